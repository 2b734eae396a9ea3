//! DoIP (ISO 13400-2:2012 to 2025), as pure state machines.
//!
//! - [`codec`] encodes and decodes messages.
//! - [`discovery`] finds the gateways of the vehicle by UDP.
//! - [`connection`] is a tester's connection to a gateway by TCP or TLS.
//! - [`link_local`] claims an IPv4 link-local address.

pub mod codec;
mod codes;
pub mod connection;
pub mod discovery;
pub mod link_local;
mod message;

pub use codes::{
    ActivationCode, ActivationType, DiagnosticNackCode, FurtherAction, HeaderNackCode, NodeType, PowerMode,
    ProtocolVersion, SyncStatus,
};
pub use message::{
    ActivationRequest, ActivationResponse, Announcement, DiagnosticAck, DiagnosticMessage, DiagnosticNack,
    Eid, EntityStatus, Gid, LogicalAddress, LogicalAddressError, Message, Payload,
};

/// Port of discovery by UDP and of connections by TCP without TLS (ISO 13400-2, 7.2 and 7.3).
pub const PORT: u16 = 13400;
/// Port of connections by TLS (ISO 13400-2:2019).
pub(crate) const TLS_PORT: u16 = 3496;
