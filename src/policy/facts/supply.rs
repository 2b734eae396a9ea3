//! Whether the voltage suffices, and what it says about the engine.

use std::time::{Duration, Instant};

/// A low voltage suffices again when it is this much above the limit …
const HYSTERESIS_VOLTS: f32 = 0.3;
/// … for this long.
const RECOVERED_FOR: Duration = Duration::from_secs(5);
/// Above, the alternator charges: a full battery at rest has less.
const CHARGING_ABOVE_VOLTS: f32 = 13.2;

/// The voltage of the vehicle's battery.
#[derive(Debug)]
pub(super) struct Supply {
    min: f32,
    volts: Option<f32>,
    is_low: bool,
    recovered_since: Option<Instant>,
}

impl Supply {
    /// A voltage below `min` volts is low.
    pub(super) fn new(min: f32) -> Self {
        Self { min, volts: None, is_low: false, recovered_since: None }
    }

    /// Handles a measured voltage; `None` if it cannot be measured.
    pub(super) fn handle_voltage(&mut self, now: Instant, volts: Option<f32>) {
        self.volts = volts.filter(|volts| volts.is_finite());
        let Some(volts) = self.volts else {
            self.is_low = false;
            self.recovered_since = None;
            return;
        };
        if volts < self.min {
            self.is_low = true;
        }
        if !self.is_low || volts < self.min + HYSTERESIS_VOLTS {
            self.recovered_since = None;
            return;
        }
        let since = *self.recovered_since.get_or_insert(now);
        if now.saturating_duration_since(since) >= RECOVERED_FOR {
            self.is_low = false;
            self.recovered_since = None;
        }
    }

    /// The voltage.
    pub(super) fn volts(&self) -> Option<f32> {
        self.volts
    }

    /// Whether the voltage is low, or was until a moment ago.
    pub(super) fn is_low(&self) -> bool {
        self.is_low
    }

    /// Whether the alternator charges the battery.
    pub(super) fn is_charging(&self) -> bool {
        self.volts.is_some_and(|volts| volts > CHARGING_ABOVE_VOLTS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voltage_suffices_again_after_five_seconds_above_the_hysteresis() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut supply = Supply::new(12.0);
        assert!(!supply.is_low());
        supply.handle_voltage(start, Some(11.9));
        assert!(supply.is_low());
        supply.handle_voltage(after(1), Some(12.2));
        supply.handle_voltage(after(10), Some(12.2));
        assert!(supply.is_low(), "within the hysteresis");
        supply.handle_voltage(after(11), Some(12.4));
        supply.handle_voltage(after(15), Some(12.4));
        assert!(supply.is_low(), "not long enough");
        supply.handle_voltage(after(16), Some(12.4));
        assert!(!supply.is_low());
        supply.handle_voltage(after(17), Some(12.05));
        assert!(!supply.is_low(), "above the limit");
    }

    #[test]
    fn a_voltage_that_cannot_be_measured_is_neither_low_nor_charging() {
        let start = Instant::now();
        let mut supply = Supply::new(12.0);
        supply.handle_voltage(start, Some(11.0));
        supply.handle_voltage(start, None);
        assert!(!supply.is_low() && !supply.is_charging() && supply.volts().is_none());
        supply.handle_voltage(start, Some(f32::NAN));
        assert_eq!(supply.volts(), None);
        supply.handle_voltage(start, Some(14.1));
        assert!(supply.is_charging());
    }
}
