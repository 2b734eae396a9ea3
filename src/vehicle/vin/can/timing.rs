//! The times of reading the VIN by CAN.

use std::time::Duration;

/// The time until the first frame of an ECU's answer (ISO 15765-4, P2CAN).
pub const P2: Duration = Duration::from_millis(50);
/// The time until the first frame of an ECU's answer after response pending (ISO 14229-2).
pub const P2_STAR: Duration = Duration::from_secs(5);
/// The time that adapter and bus may add to P2.
pub const LATENCY_ALLOWANCE: Duration = Duration::from_millis(20);
/// The pause before a busy ECU is asked again.
pub const BUSY_PAUSE: Duration = Duration::from_millis(50);
