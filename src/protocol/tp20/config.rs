//! How channels are set up.

use std::fmt;
use std::time::Duration;

use connector_hal::can::CanId;

use super::{APPLICATION_DIAGNOSTICS, Parameters, SETUP_ID};

/// The longest PDU, in bytes: some ECUs set the highest bit of the length, which therefore means nothing.
pub const MAX_PDU: usize = 0x7FFF;
/// The first of the identifiers with which ECUs are asked to send.
const FIRST_RECEIVE_ID: u32 = 0x300;
/// How many such identifiers there are.
const RECEIVE_IDS: u32 = 16;

/// Where an ECU is: 0x01 is the engine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogicalAddress(u8);

/// A number that is no ECU's logical address.
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
    /// Its number.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// The identifier with which the ECU answers set-up requests.
    pub fn setup_response_id(self) -> CanId {
        CanId::standard_truncated(SETUP_ID.raw() + u32::from(self.0))
    }
}

impl fmt::Display for LogicalAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:02X}", self.0)
    }
}

/// Who tells its parameters first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// We do.
    Active,
    /// The peer does, within this time.
    Passive(Duration),
}

/// A connection whose identifiers are agreed upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionConfig {
    /// What we send with.
    pub transmit: CanId,
    /// What we receive.
    pub receive: CanId,
    /// What we tell the peer to keep to.
    pub parameters: Parameters,
    /// Who begins.
    pub opening: Opening,
    /// How long nothing was sent before the channel is tested; `None`: never.
    pub test_after: Option<Duration>,
    /// How long nothing was heard before the channel is over; `None`: for ever.
    pub silence_limit: Option<Duration>,
    /// The longest PDU taken, in bytes.
    pub max_pdu: usize,
}

/// A tester's channel to an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChannelConfig {
    /// The ECU.
    pub ecu: LogicalAddress,
    /// The identifier with which the ECU is asked to send; channels of a bus need different ones.
    pub receive: CanId,
    /// What the channel is for.
    pub application_type: u8,
    /// What we tell the ECU to keep to.
    pub parameters: Parameters,
    /// How long nothing was sent before the channel is tested: ECUs drop one after about a second.
    pub test_after: Duration,
    /// The longest PDU taken, in bytes.
    pub max_pdu: usize,
}

impl ChannelConfig {
    /// The usual channel for diagnostics; `index` is to differ among the channels of a bus, 0…15.
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
