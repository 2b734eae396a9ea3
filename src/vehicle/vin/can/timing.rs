//! The times of reading the VIN by CAN.

use std::time::Duration;

/// The time that adapter and bus may add to P2: an adapter on USB delivers within 16 ms, and a frame with a
/// low priority waits for others on the bus.
pub(crate) const LATENCY_ALLOWANCE: Duration = Duration::from_millis(20);
/// The pause before a busy ECU is asked again: P2, the time in which an ECU handles a request (ISO 14229-2).
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(50);
