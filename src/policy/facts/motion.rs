//! Whether the vehicle moves, by the speeds that its sources report.

use std::time::{Duration, Instant};

/// A vehicle stands after speeds of zero for this long: a wheel sensor reports zero between two teeth.
const STANDING_FOR: Duration = Duration::from_secs(2);
/// Speeds below count as zero: some signals have a small offset. Kilometres per hour.
const ZERO_BELOW: f32 = 1.0;
/// For this long, a vehicle whose speed was lost while moving counts as moving for `not-moving`: from 130 km/h, a vehicle
/// that rolls without power comes to a stand within a minute and a half.
const LOST_FOR: Duration = Duration::from_secs(90);
/// The most sources; others are ignored. A configuration has one for each signal, OBD and DoIP.
const MAX_SOURCES: usize = 16;

/// Whether the vehicle moves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum VehicleMotion {
    /// A fresh speed is above the limit, or was, and is not zero yet.
    Moving {
        /// The highest fresh speed.
        kmh: f32,
    },
    /// All fresh speeds have been zero for two seconds.
    Stationary,
    /// Nothing fresh shows one or the other.
    Unknown {
        /// The last speed, if the vehicle moved when the speed was lost.
        moved: Option<f32>,
    },
}

impl VehicleMotion {
    /// The word of the relay protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Moving { .. } => "moving",
            Self::Stationary => "stationary",
            Self::Unknown { .. } => "unknown",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct SpeedReading {
    number: usize,
    kmh: f32,
    at: Instant,
    /// Since when every speed has been zero.
    zero_since: Option<Instant>,
    is_moving: bool,
}

/// The speeds of all sources.
#[derive(Debug)]
pub(super) struct Speeds {
    stale: Duration,
    moving_above: f32,
    sources: Vec<SpeedReading>,
    /// The last moment at which the vehicle moved, and its speed.
    moved: Option<(Instant, f32)>,
}

impl Speeds {
    /// Speeds count for `stale`; a vehicle moves above `moving_above` km/h.
    pub(super) fn new(stale: Duration, moving_above: f32) -> Self {
        Self { stale, moving_above, sources: Vec::with_capacity(MAX_SOURCES), moved: None }
    }

    /// Handles a speed of a source, in km/h. Speeds that are no number are ignored.
    pub(super) fn handle_speed(&mut self, now: Instant, number: usize, kmh: f32) {
        if !kmh.is_finite() {
            return;
        }
        // some signals are negative when the vehicle drives backwards
        let kmh = kmh.abs();
        let stale = self.stale;
        let known = self.sources.iter().position(|source| source.number == number);
        let before = known.and_then(|at| self.sources.get(at)).filter(|source| is_fresh(source, now, stale));
        let is_zero = kmh < ZERO_BELOW;
        let source = SpeedReading {
            number,
            kmh,
            at: now,
            zero_since: is_zero.then(|| before.and_then(|source| source.zero_since).unwrap_or(now)),
            // a vehicle that creeps after it moved still moves
            is_moving: kmh > self.moving_above || !is_zero && before.is_some_and(|source| source.is_moving),
        };
        if known.is_none() && self.sources.len() >= MAX_SOURCES {
            return;
        }
        match known.and_then(|at| self.sources.get_mut(at)) {
            Some(known) => *known = source,
            None => self.sources.push(source),
        }
        if source.is_moving {
            self.moved = Some((now, kmh));
        } else if self.motion(now) == VehicleMotion::Stationary {
            self.moved = None;
        }
    }

    /// Handles an ignition that is off: a lost speed does not count as moving any more.
    pub(super) fn handle_ignition_off(&mut self) {
        self.moved = None;
    }

    /// Returns whether the vehicle moves.
    pub(super) fn motion(&self, now: Instant) -> VehicleMotion {
        let mut standing = None;
        let mut fastest: Option<f32> = None;
        for source in self.sources.iter().filter(|source| is_fresh(source, now, self.stale)) {
            if source.is_moving {
                fastest = Some(fastest.unwrap_or(0.0).max(source.kmh));
            }
            let stands =
                source.zero_since.is_some_and(|since| now.saturating_duration_since(since) >= STANDING_FOR);
            standing = Some(standing.unwrap_or(true) && stands);
        }
        match (fastest, standing) {
            (Some(kmh), _) => VehicleMotion::Moving { kmh },
            (None, Some(true)) => VehicleMotion::Stationary,
            _ => VehicleMotion::Unknown { moved: self.lost(now) },
        }
    }

    /// The last speed of a vehicle that moved when its speed was lost.
    fn lost(&self, now: Instant) -> Option<f32> {
        let (at, kmh) = self.moved?;
        (now.saturating_duration_since(at) < LOST_FOR).then_some(kmh)
    }

    /// The highest fresh speed, in km/h.
    pub(super) fn kmh(&self, now: Instant) -> Option<f32> {
        let fresh = self.sources.iter().filter(|source| is_fresh(source, now, self.stale));
        fresh.map(|source| source.kmh).reduce(f32::max)
    }

    /// When the motion may change though no speed comes.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        let stale =
            self.sources.iter().filter(|source| is_fresh(source, now, self.stale)).map(|s| s.at + self.stale);
        let standing =
            self.sources.iter().filter_map(|source| source.zero_since).map(|since| since + STANDING_FOR);
        let lost = self.moved.map(|(at, _)| at + LOST_FOR);
        stale.chain(standing).chain(lost).filter(|at| *at > now).min()
    }
}

fn is_fresh(source: &SpeedReading, now: Instant, stale: Duration) -> bool {
    now.saturating_duration_since(source.at) < stale
}

#[cfg(test)]
mod tests {
    use super::*;

    const STALE: Duration = Duration::from_secs(2);

    fn after(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    fn speeds() -> (Speeds, Instant) {
        (Speeds::new(STALE, 3.0), Instant::now())
    }

    #[test]
    fn one_speed_above_the_limit_is_motion_immediately() {
        let (mut speeds, start) = speeds();
        assert_eq!(speeds.motion(start), VehicleMotion::Unknown { moved: None });
        speeds.handle_speed(start, 0, 12.4);
        assert_eq!(speeds.motion(start), VehicleMotion::Moving { kmh: 12.4 });
        assert_eq!(speeds.kmh(start), Some(12.4));
    }

    #[test]
    fn a_vehicle_that_drives_backwards_moves() {
        let (mut speeds, start) = speeds();
        speeds.handle_speed(start, 0, -12.4);
        assert_eq!(speeds.motion(start), VehicleMotion::Moving { kmh: 12.4 });
        for ms in (500..=2500).step_by(500) {
            speeds.handle_speed(after(start, ms), 0, -0.4);
        }
        assert_eq!(speeds.motion(after(start, 2500)), VehicleMotion::Stationary, "an offset of the signal");
    }

    #[test]
    fn a_vehicle_stands_after_two_seconds_of_zero_and_not_before() {
        let (mut speeds, start) = speeds();
        for ms in (0..2000).step_by(500) {
            speeds.handle_speed(after(start, ms), 0, 0.0);
            assert_eq!(speeds.motion(after(start, ms)), VehicleMotion::Unknown { moved: None });
        }
        speeds.handle_speed(after(start, 2000), 0, 0.4);
        assert_eq!(speeds.motion(after(start, 2000)), VehicleMotion::Stationary);
        speeds.handle_speed(after(start, 2100), 0, 2.0);
        assert_eq!(speeds.motion(after(start, 2100)), VehicleMotion::Unknown { moved: None }, "it creeps");
    }

    #[test]
    fn a_speed_of_zero_before_a_gap_does_not_count_towards_standing() {
        let (mut speeds, start) = speeds();
        speeds.handle_speed(start, 0, 0.0);
        speeds.handle_speed(after(start, 2000), 0, 0.0);
        assert_eq!(speeds.motion(after(start, 2000)), VehicleMotion::Unknown { moved: None });
        speeds.handle_speed(after(start, 3900), 0, 0.0);
        assert_eq!(speeds.motion(after(start, 4000)), VehicleMotion::Stationary);
    }

    #[test]
    fn a_vehicle_that_creeps_after_it_moved_still_moves() {
        let (mut speeds, start) = speeds();
        speeds.handle_speed(start, 0, 30.0);
        speeds.handle_speed(after(start, 500), 0, 2.0);
        assert_eq!(speeds.motion(after(start, 500)), VehicleMotion::Moving { kmh: 2.0 });
        speeds.handle_speed(after(start, 900), 0, 0.0);
        assert_eq!(speeds.motion(after(start, 900)), VehicleMotion::Unknown { moved: Some(2.0) });
    }

    #[test]
    fn every_fresh_source_must_agree_on_standing_and_one_suffices_for_motion() {
        let (mut speeds, start) = speeds();
        for ms in [0, 1000, 2000] {
            speeds.handle_speed(after(start, ms), 0, 0.0);
        }
        speeds.handle_speed(after(start, 2000), 1, 0.0);
        assert_eq!(
            speeds.motion(after(start, 2000)),
            VehicleMotion::Unknown { moved: None },
            "source 1 is new"
        );
        speeds.handle_speed(after(start, 2100), 1, 50.0);
        assert_eq!(speeds.motion(after(start, 2100)), VehicleMotion::Moving { kmh: 50.0 });
    }

    #[test]
    fn a_speed_lost_while_moving_is_unknown_and_remembered_for_a_while() {
        let (mut speeds, start) = speeds();
        speeds.handle_speed(start, 0, 87.0);
        assert_eq!(speeds.motion(after(start, 1999)), VehicleMotion::Moving { kmh: 87.0 });
        assert_eq!(speeds.next_change(start), Some(after(start, 2000)));
        assert_eq!(speeds.motion(after(start, 2000)), VehicleMotion::Unknown { moved: Some(87.0) });
        assert_eq!(speeds.motion(after(start, 90_000)), VehicleMotion::Unknown { moved: None });
        speeds.handle_ignition_off();
        assert_eq!(speeds.motion(after(start, 2000)), VehicleMotion::Unknown { moved: None });
    }

    #[test]
    fn speeds_that_are_no_numbers_and_too_many_sources_are_ignored() {
        let (mut speeds, start) = speeds();
        speeds.handle_speed(start, 0, f32::NAN);
        speeds.handle_speed(start, 0, f32::INFINITY);
        assert_eq!(speeds.kmh(start), None);
        for number in 1..1000 {
            speeds.handle_speed(start, number, 99.0);
        }
        assert_eq!(speeds.sources.len(), MAX_SOURCES);
    }
}
