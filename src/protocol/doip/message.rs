//! DoIP's messages, for tester and entity.

use std::fmt;

use super::{
    ActivationCode, ActivationType, DiagnosticNackCode, FurtherAction, HeaderNackCode, NodeType, PowerMode,
    ProtocolVersion, SyncStatus,
};
use crate::protocol::vin::{Vin, VinError};

/// The address of a tester, an ECU or a group of them (ISO 13400-2, table 13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogicalAddress(u16);

/// A number that is no logical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("0x{0:X} is not a logical address (16 bits: to 0xFFFF)")]
pub struct LogicalAddressError(pub u32);

impl LogicalAddress {
    /// The address with this value.
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// Its value.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whether it is one for external test equipment, 0x0E00…0x0FFF.
    pub const fn is_tester(self) -> bool {
        matches!(self.0, 0x0E00..=0x0FFF)
    }

    /// Whether it stands for a group of ECUs, 0xE000…0xEFFF.
    pub const fn is_functional(self) -> bool {
        matches!(self.0, 0xE000..=0xEFFF)
    }
}

impl From<u16> for LogicalAddress {
    fn from(value: u16) -> Self {
        Self(value)
    }
}

impl From<LogicalAddress> for u16 {
    fn from(address: LogicalAddress) -> u16 {
        address.0
    }
}

impl TryFrom<u32> for LogicalAddress {
    type Error = LogicalAddressError;

    fn try_from(value: u32) -> Result<Self, LogicalAddressError> {
        u16::try_from(value).map(Self).map_err(|_| LogicalAddressError(value))
    }
}

impl fmt::Display for LogicalAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "0x{:04X}", self.0)
    }
}

impl fmt::Debug for LogicalAddress {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

/// Defines an identifier of six bytes.
macro_rules! identifier {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 6]);

        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(formatter, "{byte:02X}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, formatter)
            }
        }
    };
}

identifier! {
    /// What tells an entity from all others, mostly its MAC address.
    Eid
}

identifier! {
    /// What the entities of one vehicle have in common while they have no VIN.
    Gid
}

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The edition it is after.
    pub version: ProtocolVersion,
    /// What it says.
    pub payload: Payload,
}

impl Message {
    /// A message of this version.
    pub fn new(version: ProtocolVersion, payload: impl Into<Payload>) -> Self {
        Self { version, payload: payload.into() }
    }
}

/// What a message says (ISO 13400-2, table 17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// 0x0000: a message was refused by its header.
    HeaderNack(HeaderNackCode),
    /// 0x0001: who is there?
    IdentificationRequest,
    /// 0x0002: is the entity with this EID there?
    IdentificationRequestByEid(Eid),
    /// 0x0003: are entities of the vehicle with this VIN there?
    IdentificationRequestByVin([u8; 17]),
    /// 0x0004: an entity announces itself, or answers an identification request.
    Announcement(Announcement),
    /// 0x0005: asks for routing on this connection.
    ActivationRequest(ActivationRequest),
    /// 0x0006: the answer.
    ActivationResponse(ActivationResponse),
    /// 0x0007: is the tester still there?
    AliveCheckRequest,
    /// 0x0008: the tester with this address is.
    AliveCheckResponse(LogicalAddress),
    /// 0x4001: asks for the entity's status.
    EntityStatusRequest,
    /// 0x4002: the answer.
    EntityStatusResponse(EntityStatus),
    /// 0x4003: asks whether the vehicle is ready for diagnostics.
    PowerModeRequest,
    /// 0x4004: the answer.
    PowerModeResponse(PowerMode),
    /// 0x8001: a diagnostic request or response.
    Diagnostic(DiagnosticMessage),
    /// 0x8002: a diagnostic message was passed on.
    DiagnosticAck(DiagnosticAck),
    /// 0x8003: a diagnostic message was not passed on.
    DiagnosticNack(DiagnosticNack),
    /// Of another type, such as the manufacturer's own at 0xF000…0xFFFF.
    Other {
        /// The payload type.
        payload_type: u16,
        /// The payload.
        data: Vec<u8>,
    },
}

/// Makes payloads from their contents.
macro_rules! payload_from {
    ($($content:ident => $variant:ident),+) => {
        $(impl From<$content> for Payload {
            fn from(content: $content) -> Self {
                Self::$variant(content)
            }
        })+
    };
}

payload_from!(
    Announcement => Announcement,
    ActivationRequest => ActivationRequest,
    ActivationResponse => ActivationResponse,
    EntityStatus => EntityStatusResponse,
    DiagnosticMessage => Diagnostic,
    DiagnosticAck => DiagnosticAck,
    DiagnosticNack => DiagnosticNack
);

/// Who an entity is (table 5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The VIN as it was sent; see [`Announcement::vin`].
    pub vin: [u8; 17],
    /// The entity's address.
    pub address: LogicalAddress,
    /// The entity's identifier.
    pub eid: Eid,
    /// The vehicle's identifier; `None` when it is not set (all 0x00 or all 0xFF).
    pub gid: Option<Gid>,
    /// What a tester must do first.
    pub further_action: FurtherAction,
    /// Whether VIN and GID are synchronized; older entities don't say.
    pub sync_status: Option<SyncStatus>,
}

impl Announcement {
    /// The announced VIN.
    ///
    /// # Errors
    ///
    /// The entity does not know the VIN yet. It announces all 0x00, all 0xFF or a placeholder until then.
    pub fn vin(&self) -> Result<Vin, VinError> {
        Vin::from_field(&self.vin)
    }
}

// the VIN stays out of logs above DEBUG, and printing is for logs
impl fmt::Debug for Announcement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Announcement")
            .field("vin", &self.vin().map(|_| "(valid)"))
            .field("address", &self.address)
            .field("eid", &self.eid)
            .field("gid", &self.gid)
            .field("further_action", &self.further_action)
            .field("sync_status", &self.sync_status)
            .finish()
    }
}

/// Asks for routing (table 46).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationRequest {
    /// The tester.
    pub source: LogicalAddress,
    /// What for.
    pub activation_type: ActivationType,
    /// The manufacturer's field.
    pub oem: Option<[u8; 4]>,
}

/// The answer to a request for routing (table 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationResponse {
    /// The tester.
    pub tester: LogicalAddress,
    /// The entity.
    pub entity: LogicalAddress,
    /// The answer.
    pub code: ActivationCode,
    /// The manufacturer's field.
    pub oem: Option<[u8; 4]>,
}

/// An entity's status (table 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityStatus {
    /// What it is.
    pub node_type: NodeType,
    /// How many TCP connections it can serve at once.
    pub max_sockets: u8,
    /// How many it serves now.
    pub open_sockets: u8,
    /// The longest diagnostic message that it takes, in bytes.
    pub max_data_size: Option<u32>,
}

/// A diagnostic request or response (table 21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiagnosticMessage {
    /// Who sends it.
    pub source: LogicalAddress,
    /// For whom it is.
    pub target: LogicalAddress,
    /// The request or response; at least one byte.
    pub data: Vec<u8>,
}

/// A diagnostic message was passed on (table 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiagnosticAck {
    /// The ECU for which the message was.
    pub source: LogicalAddress,
    /// The tester that sent the message.
    pub target: LogicalAddress,
    /// 0x00; all other values are reserved.
    pub code: u8,
    /// The first bytes of the message, or none.
    pub previous: Vec<u8>,
}

/// A diagnostic message was not passed on (table 25).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiagnosticNack {
    /// The ECU for which the message was.
    pub source: LogicalAddress,
    /// The tester that sent the message.
    pub target: LogicalAddress,
    /// Why not.
    pub code: DiagnosticNackCode,
    /// The first bytes of the message, or none.
    pub previous: Vec<u8>,
}
