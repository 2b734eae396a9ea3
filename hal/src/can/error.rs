//! Errors of CAN adapters.

/// An error of an adapter.
#[derive(Debug, thiserror::Error)]
pub enum CanError {
    /// The device does not exist or has gone away.
    #[error("CAN device {device}: {source}")]
    Device {
        /// The device as the configuration names it.
        device: String,
        /// The I/O error that caused this.
        source: std::io::Error,
    },
    /// The device or the system does not support or permit the request.
    #[error("CAN device {device} cannot {what}")]
    Unsupported {
        /// The device as the configuration names it.
        device: String,
        /// The request, as a verb phrase: `set 94000 bit/s`.
        what: String,
    },
    /// The text is not a device name.
    #[error("`{0}` is not a CAN device; write can0 or slcan:/dev/ttyACM0")]
    Name(String),
    /// The adapter violated its protocol or did not answer.
    #[error("CAN device {device}: {detail}")]
    Protocol {
        /// The device as the configuration names it.
        device: String,
        /// How the adapter violated its protocol.
        detail: String,
    },
}

impl CanError {
    /// Whether the device is gone and must be opened again.
    pub fn is_fatal(&self) -> bool {
        matches!(self, Self::Device { .. } | Self::Protocol { .. })
    }
}
