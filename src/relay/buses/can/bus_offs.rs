//! How often a bus may go off before its adapter stays off.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// With this many bus-offs within [`BUS_OFF_PERIOD`], the adapter stays off. Each return to a bus with another bit
/// rate, or a short circuit, disturbs the other nodes again; two returns are enough to pass a loose contact.
const MOST_BUS_OFFS: usize = 3;
/// Bus-offs with more time between them have different causes.
const BUS_OFF_PERIOD: Duration = Duration::from_secs(10);

/// The recent times at which a bus went off.
#[derive(Debug, Default)]
pub(super) struct BusOffs {
    recent: VecDeque<Instant>,
    is_given_up: bool,
}

impl BusOffs {
    /// The bus went off. Returns whether the adapter may return to it.
    pub(super) fn handle_bus_off(&mut self, now: Instant) -> bool {
        self.recent.retain(|at| now.saturating_duration_since(*at) < BUS_OFF_PERIOD);
        self.recent.push_back(now);
        self.is_given_up |= self.recent.len() >= MOST_BUS_OFFS;
        !self.is_given_up
    }

    /// Whether the adapter stays off until the buses are configured again.
    pub(super) fn is_given_up(&self) -> bool {
        self.is_given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_third_bus_off_within_ten_seconds_is_the_last() {
        let (mut offs, start) = (BusOffs::default(), Instant::now());
        let second = Duration::from_secs(1);
        for at in [0, 5, 10, 15] {
            assert!(offs.handle_bus_off(start + at * second), "{at} s");
        }
        assert!(!offs.handle_bus_off(start + 19 * second));
        assert!(!offs.handle_bus_off(start + 100 * second));
        assert!(offs.is_given_up());
    }
}
