//! DoIP (ISO 13400-2:2012 and 2019): messages, discovery, and sessions with a gateway.
//!
//! What decides anything is a pure state machine, with time as an argument: `handle_*` in, `poll_*` out.

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

/// The port for discovery by UDP, and for sessions by TCP without TLS (ISO 13400-2, 7.2 and 7.3).
pub const PORT: u16 = 13400;
/// The port for sessions by TLS (ISO 13400-2:2019).
pub const TLS_PORT: u16 = 3496;
