//! The limits of a connection.

use std::time::Duration;

use super::link::KEPT_LIMIT;

/// The limits of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// The longest PDU, in bytes.
    pub max_pdu: usize,
    /// The number of channels that may be open simultaneously.
    pub max_channels: usize,
    /// The limit of the messages that are kept until they are acknowledged, in bytes.
    pub max_kept_bytes: usize,
    /// The default of the greatest age at which a record of a raw channel may still be sent to the vehicle.
    pub raw_max_age: Duration,
    /// The default of the greatest age at which a record of any other channel may still be sent to the
    /// vehicle.
    pub pdu_max_age: Duration,
    /// How long TesterPresent is still sent after the ignition was switched off.
    pub keep_alive_after_ignition_off: Duration,
}

/// The limits that the relay protocol sets, and the defaults of the configuration.
impl Default for RelayLimits {
    fn default() -> Self {
        Self {
            max_pdu: 1 << 20,
            max_channels: 64,
            max_kept_bytes: KEPT_LIMIT,
            raw_max_age: Duration::from_millis(500),
            pdu_max_age: Duration::from_secs(30),
            keep_alive_after_ignition_off: Duration::from_secs(300),
        }
    }
}
