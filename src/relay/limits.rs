//! The limits of a connection.

use std::time::Duration;

use connector_hal::board::Number;

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
    /// How long nothing may be heard of the operator while something waits for an acknowledgement.
    pub operator_silence: Duration,
    /// How long nothing may be heard of the operator otherwise.
    pub operator_idle: Duration,
    /// When TesterPresent is stopped.
    pub keep_alive: KeepAliveLimits,
}

/// When TesterPresent is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeepAliveLimits {
    /// How long it is still sent after the ignition was switched off.
    pub after_ignition_off: Duration,
    /// How long it is still sent after the operator's last PDU or frame.
    pub after_last_request: Duration,
    /// The supply voltage below which it is stopped where the ignition cannot be read, in volts.
    pub above: Number,
    /// How long the voltage must have been too low.
    pub after_low_voltage: Duration,
}

impl Default for KeepAliveLimits {
    fn default() -> Self {
        Self {
            after_ignition_off: Duration::from_secs(300),
            after_last_request: Duration::from_secs(600),
            above: Number::from_thousandths(12_200),
            after_low_voltage: Duration::from_secs(60),
        }
    }
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
            operator_silence: Duration::from_secs(120),
            operator_idle: Duration::from_secs(900),
            keep_alive: KeepAliveLimits::default(),
        }
    }
}
