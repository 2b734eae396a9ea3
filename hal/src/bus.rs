//! State and load of a bus of any kind: CAN, K-line, DoIP.

use std::time::{Duration, Instant};

/// The fault confinement state of a controller (ISO 11898-1, 12.1.4.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum BusState {
    /// Error active: the controller takes part in all traffic.
    #[default]
    Active,
    /// Error passive: an error counter has passed its limit.
    Passive,
    /// Bus off: the controller has left the bus, or its device is gone.
    Off,
}

/// The share of bus time that frames took over about the last second, 0…1.
#[derive(Debug, Clone, Copy, PartialEq, PartialOrd, Default)]
pub struct BusLoad(pub f32);

/// The state and load of a bus.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct BusStatus {
    /// The controller's state.
    pub state: BusState,
    /// The load.
    pub load: BusLoad,
}

/// How long `bits` bits take at `bit_rate` bit/s.
pub fn bit_time(bits: u32, bit_rate: u32) -> Duration {
    Duration::from_nanos(u64::from(bits) * 1_000_000_000 / u64::from(bit_rate.max(1)))
}

/// The load is that of the last second: long enough for the slow periodic messages, and short enough for a
/// live display.
const SLOTS: usize = 10;
/// The step in which the second advances.
const SLOT: Duration = Duration::from_millis(100);

/// Measures the load of a bus: sums the time that frames took over the last second, in steps of 100 ms.
#[derive(Debug, Clone)]
pub struct LoadMeter {
    slots: [Duration; SLOTS],
    current: usize,
    current_since: Instant,
}

impl LoadMeter {
    /// Starts with an idle bus.
    pub fn new(now: Instant) -> Self {
        Self { slots: [Duration::ZERO; SLOTS], current: 0, current_since: now }
    }

    /// Records that a frame occupied the bus for `busy`.
    pub fn add(&mut self, now: Instant, busy: Duration) {
        self.advance(now);
        if let Some(slot) = self.slots.get_mut(self.current) {
            *slot += busy;
        }
    }

    /// The load over the last second. Time before [`LoadMeter::new`] counts as idle.
    pub fn load(&self, now: Instant) -> BusLoad {
        let mut meter = self.clone();
        meter.advance(now);
        let busy: Duration = meter.slots.iter().sum();
        let window = SLOT * (SLOTS as u32 - 1) + now.saturating_duration_since(meter.current_since);
        BusLoad((busy.as_secs_f32() / window.as_secs_f32()).min(1.0))
    }

    fn advance(&mut self, now: Instant) {
        for _ in 0..SLOTS {
            if now.saturating_duration_since(self.current_since) < SLOT {
                return;
            }
            self.current = (self.current + 1) % SLOTS;
            self.current_since += SLOT;
            if let Some(slot) = self.slots.get_mut(self.current) {
                *slot = Duration::ZERO;
            }
        }
        // the bus was idle for longer than all slots cover
        if now.saturating_duration_since(self.current_since) >= SLOT {
            self.current_since = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_busy_half_the_time_has_half_the_load_for_one_second() {
        let start = Instant::now();
        let mut meter = LoadMeter::new(start);
        for step in 0..2000 {
            meter.add(start + Duration::from_millis(step), Duration::from_micros(500));
        }
        let now = start + Duration::from_millis(1999);
        assert!((meter.load(now).0 - 0.5).abs() < 0.01, "{:?}", meter.load(now));
        assert_eq!(meter.load(now + Duration::from_millis(1100)), BusLoad(0.0));
    }

    #[test]
    fn the_load_is_zero_after_a_long_silence() {
        let start = Instant::now();
        let mut meter = LoadMeter::new(start);
        meter.add(start, SLOT);
        let later = start + Duration::from_secs(86_400);
        meter.add(later, SLOT / 2);
        let load = meter.load(later).0;
        assert!((0.04..0.07).contains(&load), "{load}");
    }
}
