//! Errors of CAN adapters.

/// What can go wrong with an adapter.
#[derive(Debug, thiserror::Error)]
pub enum CanError {
    /// The device is not there, or went away.
    #[error("CAN device {device}: {source}")]
    Device {
        /// The device as the configuration names it.
        device: String,
        /// Why.
        source: std::io::Error,
    },
    /// The device or the system does not allow or know what was asked of it.
    #[error("CAN device {device} cannot {what}")]
    Unsupported {
        /// The device as the configuration names it.
        device: String,
        /// What was asked, as a verb phrase: `set 94000 bit/s`.
        what: String,
    },
    /// The text is no device name.
    #[error("`{0}` names no CAN device; write can0 or slcan:/dev/ttyACM0")]
    Name(String),
    /// The adapter answered what its protocol does not allow, or nothing at all.
    #[error("CAN device {device}: {detail}")]
    Protocol {
        /// The device as the configuration names it.
        device: String,
        /// What was wrong.
        detail: String,
    },
}

impl CanError {
    /// Whether the device is gone, so that only opening it again can help.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Device { .. } | Self::Protocol { .. })
    }
}
