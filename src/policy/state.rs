//! The policy's state as operators and the cloud see it (relay protocol, section 6).

use std::time::{Duration, Instant};

use super::class::{Class, Mode};
use super::consent::Consent;
use super::facts::{Engine, Facts, VehicleMotion};

/// Speed and voltage change all the time: they alone are reported not more often than this.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// The policy's state.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyState {
    /// The mode.
    pub mode: Mode,
    /// `moving`, `stationary` or `unknown`.
    pub motion: &'static str,
    /// The highest fresh speed, in whole km/h.
    pub speed_kmh: Option<u16>,
    /// The voltage in tenths of a volt.
    pub decivolts: Option<u16>,
    /// Whether the engine runs.
    pub engine: Engine,
    /// The consents that were given, and their ends.
    pub consent: Vec<(Class, Instant)>,
    /// The class for which the person at the vehicle is being asked.
    pub asking: Option<Class>,
    /// The number of refusals in this connection.
    pub refused: u64,
}

impl PolicyState {
    pub(super) fn new(now: Instant, mode: Mode, facts: &Facts, consent: &Consent, refused: u64) -> Self {
        let motion: VehicleMotion = facts.motion(now);
        Self {
            mode,
            motion: motion.name(),
            speed_kmh: facts.kmh(now).map(to_number),
            decivolts: facts.volts().map(|volts| to_number(volts * 10.0)),
            engine: facts.engine(now),
            consent: consent.given().to_vec(),
            asking: consent.asking(),
            refused,
        }
    }

    /// Whether nothing but the voltage is known, and nothing has happened.
    fn is_blank(&self) -> bool {
        self.motion == VehicleMotion::Unknown { moved: None }.name()
            && self.engine == Engine::Unknown
            && self.consent.is_empty()
            && self.asking.is_none()
            && self.refused == 0
    }

    /// Whether everything but speed, voltage and the number of refusals is the same.
    fn is_alike(&self, other: &Self) -> bool {
        self.motion == other.motion
            && self.engine == other.engine
            && self.consent == other.consent
            && self.asking == other.asking
            && (self.refused == 0) == (other.refused == 0)
    }
}

/// The nearest whole number.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "limited to the range before")]
pub(super) fn to_number(value: f32) -> u16 {
    value.round().clamp(0.0, f32::from(u16::MAX)) as u16
}

/// When the state was reported last.
#[derive(Debug, Default)]
pub(super) struct Reports(Option<(Instant, PolicyState)>);

impl Reports {
    /// Returns the state if it has to be reported now.
    pub(super) fn poll(&mut self, now: Instant, state: PolicyState) -> Option<PolicyState> {
        let is_due = match &self.0 {
            // an operator expects nothing to be known, and learns the voltage from the connector's status
            None if state.is_blank() => {
                self.0 = Some((now, state));
                return None;
            }
            None => true,
            Some((_, last)) if *last == state => false,
            Some((at, last)) => !last.is_alike(&state) || now.saturating_duration_since(*at) >= MIN_INTERVAL,
        };
        is_due.then(|| {
            self.0 = Some((now, state.clone()));
            state
        })
    }
}
