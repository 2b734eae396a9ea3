//! Configuration of channels and connections.

use std::fmt;
use std::time::Duration;

use connector_hal::can::CanId;

use super::Parameters;

/// Longest PDU, in bytes. Some ECUs set the highest bit of the length without meaning, so that 15 bits
/// remain.
pub const MAX_PDU: usize = 0x7FFF;
/// First of the identifiers with which ECUs are requested to send.
const FIRST_RECEIVE_ID: u32 = 0x300;
/// Number of such identifiers: 0x300 to 0x30F. A bus can have that many channels; an ECU has one at a time.
const RECEIVE_IDS: u32 = 16;

/// Identifier of set-up requests.
pub const SETUP_ID: CanId = CanId::standard_truncated(0x200);
/// Application type of diagnostics.
pub(crate) const APPLICATION_DIAGNOSTICS: u8 = 0x01;

/// The address of an ECU, 0x01 to 0xEF; the engine has 0x01.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogicalAddress(u8);

/// A number that is not the logical address of an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0} is not the logical address of an ECU, 1 to 239")]
pub struct LogicalAddressError(pub u32);

impl TryFrom<u32> for LogicalAddress {
    type Error = LogicalAddressError;

    fn try_from(address: u32) -> Result<Self, LogicalAddressError> {
        match u8::try_from(address) {
            Ok(byte @ 0x01..=0xEF) => Ok(Self(byte)),
            _ => Err(LogicalAddressError(address)),
        }
    }
}

impl LogicalAddress {
    /// Returns the address as a number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Returns the identifier with which the ECU answers set-up requests.
    pub fn setup_response_id(self) -> CanId {
        CanId::standard_truncated(SETUP_ID.raw() + u32::from(self.0))
    }
}

impl fmt::Display for LogicalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X}", self.0)
    }
}

/// The side that sends its parameters first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// Our side.
    Active,
    /// The peer, within this time.
    Passive(Duration),
}

/// Configuration of a [`Connection`](super::Connection), whose identifiers are agreed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// Identifier with which we send.
    pub transmit: CanId,
    /// Identifier with which the peer sends.
    pub receive: CanId,
    /// Parameters that the peer must keep.
    pub parameters: Parameters,
    /// The side that sends its parameters first.
    pub opening: Opening,
    /// Time without a sent frame after which the channel is tested; `None` disables the test.
    pub test_after: Option<Duration>,
    /// Time without a received frame after which the connection ends; `None` means never.
    pub silence_limit: Option<Duration>,
    /// Longest PDU accepted, in bytes.
    pub max_pdu: usize,
}

/// Configuration of a [`Channel`](super::Channel), a tester's channel to an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelConfig {
    /// Address of the ECU.
    pub ecu: LogicalAddress,
    /// Identifier with which the ECU is requested to send. Channels of one bus need different identifiers.
    pub receive: CanId,
    /// Application type of the channel; 0x01 is diagnostics.
    pub application_type: u8,
    /// Parameters that the ECU must keep.
    pub parameters: Parameters,
    /// Time without a sent frame after which the channel is tested. ECUs drop an unused channel after about a
    /// second.
    pub test_after: Duration,
    /// Longest PDU accepted, in bytes.
    pub max_pdu: usize,
}

impl ChannelConfig {
    /// Creates the usual configuration for diagnostics. Each channel of a bus needs a different `index`,
    /// 0…15.
    pub fn new(ecu: LogicalAddress, index: u8) -> Self {
        Self {
            ecu,
            receive: CanId::standard_truncated(FIRST_RECEIVE_ID + u32::from(index) % RECEIVE_IDS),
            application_type: APPLICATION_DIAGNOSTICS,
            parameters: Parameters::default(),
            test_after: Duration::from_millis(500),
            max_pdu: MAX_PDU,
        }
    }
}
