//! Scripts of drives, such as `0s 0, 5s 50, 20s 0`.

use std::str::FromStr;
use std::time::Duration;

use super::Drive;

/// A drive: speeds at moments, between which the speed changes evenly, and the loss of the brake controller.
#[derive(Debug, Clone, PartialEq)]
pub struct DriveScript(Vec<(Duration, Step)>);

#[derive(Debug, Clone, Copy, PartialEq)]
enum Step {
    /// A speed in km/h.
    Speed(f32),
    /// The brake controller is lost until the next step.
    Lost,
}

impl DriveScript {
    /// The time of the last step.
    pub(super) fn end(&self) -> Duration {
        self.0.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// Sets the speed of this moment.
    pub(super) fn apply(&self, elapsed: Duration, drive: &Drive) {
        let next = self.0.iter().find(|(at, _)| *at > elapsed).copied();
        let Some((since, step)) = self.0.iter().rev().find(|(at, _)| *at <= elapsed).copied() else { return };
        drive.set_abs(step != Step::Lost);
        match (step, next) {
            (Step::Lost, _) => {}
            (Step::Speed(from), Some((until, Step::Speed(to)))) => {
                let part = (elapsed - since).as_secs_f32() / (until - since).as_secs_f32();
                drive.set_speed(from + (to - from) * part);
            }
            (Step::Speed(kmh), _) => drive.set_speed(kmh),
        }
    }
}

impl FromStr for DriveScript {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut steps: Vec<(Duration, Step)> = Vec::new();
        for part in text.split(',') {
            let step = parse_step(part.trim()).ok_or_else(|| {
                format!(
                    "{:?} is not a time and a speed in km/h, such as \"5s 50\", or \"5s lost\"",
                    part.trim()
                )
            })?;
            if steps.last().is_some_and(|(before, _)| *before >= step.0) {
                return Err(format!("{:?} is not later than the step before", part.trim()));
            }
            steps.push(step);
        }
        Ok(Self(steps))
    }
}

fn parse_step(text: &str) -> Option<(Duration, Step)> {
    let (at, step) = text.split_once(char::is_whitespace)?;
    let at = Duration::try_from_secs_f64(at.strip_suffix('s')?.parse().ok()?).ok()?;
    let step = match step.trim() {
        "lost" => Step::Lost,
        kmh => Step::Speed(kmh.parse().ok().filter(|kmh| (0.0..=300.0).contains(kmh))?),
    };
    Some((at, step))
}
