//! DoIP messages of testers and entities.

use std::fmt;

use super::{
    ActivationCode, ActivationType, DiagnosticNackCode, FurtherAction, HeaderNackCode, NodeType, PowerMode,
    ProtocolVersion, SyncStatus,
};
use crate::protocol::vin::{Vin, VinError};

/// The address of a tester, an ECU or a group of ECUs (ISO 13400-2, table 13).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LogicalAddress(u16);

/// A number that is not a logical address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("0x{0:X} is not a logical address (16 bits: to 0xFFFF)")]
pub struct LogicalAddressError(pub u32);

impl LogicalAddress {
    /// Creates the address with this value.
    pub const fn new(value: u16) -> Self {
        Self(value)
    }

    /// Returns the value of the address.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Returns whether this is an address of external test equipment, 0x0E00…0x0FFF.
    pub const fn is_tester(self) -> bool {
        matches!(self.0, 0x0E00..=0x0FFF)
    }

    /// Returns whether this is the address of a group of ECUs, 0xE000…0xEFFF.
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
    /// Entity identifier: unique for each entity, usually its MAC address.
    Eid
}

identifier! {
    /// Group identifier: common to the entities of one vehicle while they have no VIN.
    Gid
}

/// A DoIP message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Edition of the standard that the message follows.
    pub version: ProtocolVersion,
    /// Content of the message.
    pub payload: Payload,
}

impl Message {
    /// Creates a message of this version.
    pub fn new(version: ProtocolVersion, payload: impl Into<Payload>) -> Self {
        Self { version, payload: payload.into() }
    }
}

/// The content of a message (ISO 13400-2, table 17).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// 0x0000: refuses a message because of its header.
    HeaderNack(HeaderNackCode),
    /// 0x0001: asks all entities to identify themselves.
    IdentificationRequest,
    /// 0x0002: asks the entity with this EID to identify itself.
    IdentificationRequestByEid(Eid),
    /// 0x0003: asks the entities of the vehicle with this VIN to identify themselves.
    IdentificationRequestByVin([u8; 17]),
    /// 0x0004: an entity announces itself, or answers an identification request.
    Announcement(Announcement),
    /// 0x0005: requests routing on this connection.
    ActivationRequest(ActivationRequest),
    /// 0x0006: accepts or refuses routing.
    ActivationResponse(ActivationResponse),
    /// 0x0007: asks whether the tester is still there.
    AliveCheckRequest,
    /// 0x0008: confirms that the tester with this address is there.
    AliveCheckResponse(LogicalAddress),
    /// 0x4001: asks for the entity's status.
    EntityStatusRequest,
    /// 0x4002: the entity's status.
    EntityStatusResponse(EntityStatus),
    /// 0x4003: asks whether the vehicle is ready for diagnostics.
    PowerModeRequest,
    /// 0x4004: the vehicle's power mode.
    PowerModeResponse(PowerMode),
    /// 0x8001: a diagnostic request or response.
    Diagnostic(DiagnosticMessage),
    /// 0x8002: confirms that a diagnostic message was passed on.
    DiagnosticAck(DiagnosticAck),
    /// 0x8003: reports that a diagnostic message was not passed on.
    DiagnosticNack(DiagnosticNack),
    /// Any other type, such as those of manufacturers at 0xF000…0xFFFF.
    Other {
        /// The payload type.
        payload_type: u16,
        /// The payload bytes.
        data: Vec<u8>,
    },
}

/// Implements the conversion of payload structs into [`Payload`].
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

/// The identity of an entity (table 5).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Announcement {
    /// The bytes of the VIN field; [`Announcement::vin`] returns the VIN in it.
    pub vin: [u8; 17],
    /// Address of the entity.
    pub address: LogicalAddress,
    /// Identifier of the entity.
    pub eid: Eid,
    /// Identifier of the vehicle; `None` if not set (all 0x00 or all 0xFF).
    pub gid: Option<Gid>,
    /// The action that the entity requires of a tester first.
    pub further_action: FurtherAction,
    /// Whether VIN and GID are synchronized; `None` if the entity does not report it, as older ones.
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

// debug output goes to logs, in which the VIN may appear at DEBUG and below only
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

/// A request for routing (table 46).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationRequest {
    /// Address of the tester.
    pub source: LogicalAddress,
    /// Kind of routing.
    pub activation_type: ActivationType,
    /// Manufacturer's field.
    pub oem: Option<[u8; 4]>,
}

/// The response to a request for routing (table 48).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ActivationResponse {
    /// Address of the tester.
    pub tester: LogicalAddress,
    /// Address of the entity.
    pub entity: LogicalAddress,
    /// The entity's decision.
    pub code: ActivationCode,
    /// Manufacturer's field.
    pub oem: Option<[u8; 4]>,
}

/// The status of an entity (table 11).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EntityStatus {
    /// Kind of the entity.
    pub node_type: NodeType,
    /// Number of TCP connections that the entity can serve simultaneously.
    pub max_sockets: u8,
    /// Number of open TCP connections.
    pub open_sockets: u8,
    /// Longest diagnostic message that the entity accepts, in bytes; `None` if not reported.
    pub max_data_size: Option<u32>,
}

/// A diagnostic request or response (table 21).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiagnosticMessage {
    /// Address of the sender.
    pub source: LogicalAddress,
    /// Address of the receiver.
    pub target: LogicalAddress,
    /// The request or response; at least one byte.
    pub data: Vec<u8>,
}

/// The confirmation that a diagnostic message was passed on (table 23).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiagnosticAck {
    /// Address of the ECU to which the message was sent.
    pub source: LogicalAddress,
    /// Address of the tester that sent the message.
    pub target: LogicalAddress,
    /// The code 0x00; all other values are reserved.
    pub code: u8,
    /// First bytes of the message; may be empty.
    pub previous: Vec<u8>,
}

/// The report that a diagnostic message was not passed on (table 25).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiagnosticNack {
    /// Address of the ECU to which the message was sent.
    pub source: LogicalAddress,
    /// Address of the tester that sent the message.
    pub target: LogicalAddress,
    /// The reason.
    pub code: DiagnosticNackCode,
    /// First bytes of the message; may be empty.
    pub previous: Vec<u8>,
}
