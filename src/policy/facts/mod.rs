//! What is known about the vehicle: motion, engine, ignition, voltage. Unknown is a value.

mod motion;
mod signal;
mod supply;

use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId};

use motion::Speeds;
pub use motion::VehicleMotion;
use supply::Supply;

use super::settings::{FactSettings, SpeedFact};

/// The engine's speed counts this long.
const ENGINE_STALE: Duration = Duration::from_secs(5);

/// Whether the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    /// It runs, or the alternator charges the battery.
    On,
    /// Its speed is zero.
    Off,
    /// Nothing fresh shows one or the other.
    Unknown,
}

impl Engine {
    /// The word of the relay protocol.
    pub const fn name(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Unknown => "unknown",
        }
    }
}

/// All facts.
#[derive(Debug)]
pub(super) struct Facts {
    settings: FactSettings,
    speeds: Speeds,
    supply: Supply,
    engine: Option<(Instant, f32)>,
    ignition: Option<bool>,
}

impl Facts {
    /// Knows nothing yet.
    pub(super) fn new(settings: FactSettings) -> Self {
        let stale = Duration::from_millis(settings.speed_stale_ms.into());
        let speeds = Speeds::new(stale, settings.moving_above_kmh);
        let supply = Supply::new(settings.min_volts);
        Self { settings, speeds, supply, engine: None, ignition: None }
    }

    /// Handles a frame that was heard on a bus, for speed signals.
    pub(super) fn handle_frame(&mut self, now: Instant, bus: &str, frame: &CanFrame) {
        for (number, source) in self.settings.speed.iter().enumerate() {
            if let SpeedFact::Signal(signal) = source
                && CanId::try_from(signal.id).is_ok_and(|id| id == frame.id())
                && frame.is_data()
                && signal.bus == bus
                && let Some(kmh) = signal::kmh(signal, frame.data())
            {
                self.speeds.handle_speed(now, number, kmh);
            }
        }
    }

    /// Handles a speed that the vehicle reported when asked, in km/h, and which source it came from.
    pub(super) fn handle_asked_speed(&mut self, now: Instant, source: AskedSource, kmh: f32) {
        let number = self.settings.speed.len() + source as usize;
        self.speeds.handle_speed(now, number, kmh);
    }

    /// Handles the engine's speed, in revolutions per minute.
    pub(super) fn handle_engine_speed(&mut self, now: Instant, rpm: f32) {
        if rpm.is_finite() {
            self.engine = Some((now, rpm));
        }
    }

    /// Handles a measured voltage; `None` if it cannot be measured.
    pub(super) fn handle_voltage(&mut self, now: Instant, volts: Option<f32>) {
        self.supply.handle_voltage(now, volts);
    }

    /// Handles the state of the ignition; `None` if it cannot be read.
    pub(super) fn handle_ignition(&mut self, on: Option<bool>) {
        self.ignition = on;
        if on == Some(false) {
            self.speeds.handle_ignition_off();
        }
    }

    /// Whether the vehicle moves.
    pub(super) fn motion(&self, now: Instant) -> VehicleMotion {
        self.speeds.motion(now)
    }

    /// The highest fresh speed, in km/h.
    pub(super) fn kmh(&self, now: Instant) -> Option<f32> {
        self.speeds.kmh(now)
    }

    /// Whether the engine runs.
    pub(super) fn engine(&self, now: Instant) -> Engine {
        if self.supply.is_charging() {
            return Engine::On;
        }
        match self.engine.filter(|(at, _)| now.saturating_duration_since(*at) < ENGINE_STALE) {
            Some((_, rpm)) if rpm > 0.0 => Engine::On,
            Some(_) => Engine::Off,
            None => Engine::Unknown,
        }
    }

    /// Whether the ignition is on.
    pub(super) fn ignition(&self) -> Option<bool> {
        self.ignition
    }

    /// The voltage.
    pub(super) fn volts(&self) -> Option<f32> {
        self.supply.volts()
    }

    /// Whether the voltage is low, or was until a moment ago.
    pub(super) fn is_voltage_low(&self) -> bool {
        self.supply.is_low()
    }

    /// When a fact may change though nothing is handled.
    pub(super) fn next_change(&self, now: Instant) -> Option<Instant> {
        self.speeds.next_change(now)
    }
}

/// A vehicle's answer to a question for its speed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedSource {
    /// OBD, service 01, PID 0D.
    Obd,
    /// A data identifier by DoIP.
    Doip,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::settings::{ByteOrder, SpeedSignal};

    fn facts() -> Facts {
        let signal = SpeedSignal {
            bus: "HS".into(),
            id: 0x3E9,
            start: 0,
            bits: 16,
            scale: 0.01,
            offset: 0.0,
            order: ByteOrder::Big,
        };
        Facts::new(FactSettings { speed: vec![SpeedFact::Signal(signal)], ..FactSettings::default() })
    }

    fn frame(id: u32, data: &[u8]) -> CanFrame {
        CanFrame::new(CanId::standard(id).unwrap(), data).unwrap()
    }

    #[test]
    fn a_configured_signal_gives_the_speed_on_its_bus_only() {
        let now = Instant::now();
        let mut facts = facts();
        facts.handle_frame(now, "LS", &frame(0x3E9, &[0x13, 0x88]));
        facts.handle_frame(now, "HS", &frame(0x3EA, &[0x13, 0x88]));
        let extended = CanFrame::new(CanId::extended(0x3E9).unwrap(), &[0x13, 0x88]).unwrap();
        facts.handle_frame(now, "HS", &extended);
        assert_eq!(facts.motion(now), VehicleMotion::Unknown { moved: None });
        facts.handle_frame(now, "HS", &frame(0x3E9, &[0x13, 0x88]));
        assert_eq!(facts.motion(now), VehicleMotion::Moving { kmh: 50.0 });
    }

    #[test]
    fn answers_to_questions_are_sources_of_their_own() {
        let now = Instant::now();
        let mut facts = facts();
        facts.handle_frame(now, "HS", &frame(0x3E9, &[0, 0]));
        facts.handle_asked_speed(now, AskedSource::Obd, 0.0);
        facts.handle_asked_speed(now, AskedSource::Doip, 20.0);
        assert_eq!(facts.motion(now), VehicleMotion::Moving { kmh: 20.0 });
    }

    #[test]
    fn the_engine_is_known_by_its_speed_or_by_a_charging_battery() {
        let now = Instant::now();
        let mut facts = facts();
        assert_eq!(facts.engine(now), Engine::Unknown);
        facts.handle_engine_speed(now, 0.0);
        assert_eq!(facts.engine(now), Engine::Off);
        facts.handle_engine_speed(now, 800.0);
        assert_eq!(facts.engine(now), Engine::On);
        assert_eq!(facts.engine(now + ENGINE_STALE), Engine::Unknown);
        facts.handle_voltage(now, Some(14.0));
        assert_eq!(facts.engine(now + ENGINE_STALE), Engine::On);
    }
}
