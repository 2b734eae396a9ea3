//! The bounds of a connection.

use std::time::Duration;

use super::link::KEPT_LIMIT;

/// The bounds of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayLimits {
    /// The longest PDU, in bytes.
    pub max_pdu: usize,
    /// How many channels may be open at a time.
    pub max_channels: usize,
    /// How much is kept until it is acknowledged, in bytes.
    pub max_kept_bytes: usize,
    /// How old a record may be that goes to the vehicle by a raw channel, unless the operator says otherwise.
    pub raw_max_age: Duration,
    /// The same for all other channels.
    pub pdu_max_age: Duration,
    /// How long after the ignition was switched off TesterPresent is still sent.
    pub keep_alive_after_ignition_off: Duration,
}

/// The protocol's own bounds, and the configuration's defaults.
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
