//! The times of reading the VIN by CAN.

use std::time::Duration;

/// The time that adapter and bus may add to P2.
pub(crate) const LATENCY_ALLOWANCE: Duration = Duration::from_millis(20);
/// The pause before a busy ECU is asked again.
pub(crate) const BUSY_PAUSE: Duration = Duration::from_millis(50);
