//! The state of routing, and the messages without an acknowledgement.

use std::time::Instant;

use super::outcome::SendId;
use crate::protocol::doip::LogicalAddress;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoutingState {
    /// The answer to the routing activation is due.
    Activating { until: Instant },
    /// The confirmation in the vehicle is due.
    Confirming { until: Instant },
    /// Diagnostic messages can be sent.
    Active,
    /// The connection is over.
    Closed,
}

/// A diagnostic message without an acknowledgement.
#[derive(Debug)]
pub(super) struct Unacknowledged {
    pub(super) id: SendId,
    pub(super) target: LogicalAddress,
    /// The first bytes of the message, with which an acknowledgement may name it.
    pub(super) head: Vec<u8>,
    /// When the message was written to the stream.
    pub(super) sent: Option<Instant>,
    /// The response arrived before the acknowledgement, so that the message was reported as sent already.
    pub(super) is_reported: bool,
}
