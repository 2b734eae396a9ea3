//! The steps of programming, its result, and its errors.

use std::time::Duration;

use crate::client::ExchangeError;

/// A step of programming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Opening the programming session.
    Session,
    /// Unlocking the ECU.
    Security,
    /// Erasing the memory.
    Erase,
    /// Requesting the download.
    Download,
    /// Transferring blocks.
    Transfer {
        /// The number of bytes that the ECU confirmed.
        confirmed: usize,
    },
    /// Ending the transfer.
    Exit,
    /// Requesting that the ECU checks its memory.
    Check,
    /// Returning to the default session.
    Default,
}

impl Step {
    /// The name of the step, for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Session => "opening the programming session",
            Self::Security => "unlocking the ECU",
            Self::Erase => "erasing the memory",
            Self::Download => "requesting the download",
            Self::Transfer { .. } => "transferring the firmware",
            Self::Exit => "ending the transfer",
            Self::Check => "checking the memory",
            Self::Default => "returning to the default session",
        }
    }

    /// Whether the ECU is without valid firmware if this step fails.
    pub fn leaves_ecu_without_firmware(self) -> bool {
        !matches!(self, Self::Session | Self::Security | Self::Default)
    }
}

/// The result of programming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FlashReport {
    /// The number of bytes programmed.
    pub bytes: usize,
    /// The number of blocks.
    pub blocks: usize,
    /// The length of the longest block's PDU.
    pub block_length: usize,
    /// How long erasing took.
    pub erasing: Duration,
    /// The time from the first block sent to the last one confirmed.
    pub transferring: Duration,
    /// The time for everything.
    pub total: Duration,
}

/// Why programming an ECU failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FlashError {
    /// A step failed.
    #[error("{} failed", step.name())]
    Step {
        /// The step.
        step: Step,
        /// The error that caused this.
        source: ExchangeError,
    },
    /// The ECU's response is not valid.
    #[error("{} failed: the ECU answered {response:02X?}", step.name())]
    Response {
        /// The step.
        step: Step,
        /// The response.
        response: Vec<u8>,
    },
    /// The memory does not contain the transferred firmware.
    #[error("the ECU's memory differs from the transferred firmware")]
    Checksum,
    /// The firmware is empty, or longer than its length field can express.
    #[error("a firmware of {0} bytes cannot be programmed")]
    Size(usize),
}
