//! The steps of a recorded session: the tool's requests with the ECUs' answers.

use std::time::Duration;

use connector_hal::can::CanId;

use crate::vehicle::ecu::Target;

/// The answer of one ECU to a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedAnswer {
    /// The ECU's response identifier.
    pub response_id: CanId,
    /// Time from the request's last frame to the answer's first.
    pub delay: Duration,
    /// The answer.
    pub pdu: Vec<u8>,
}

/// A request of the tool, and all answers to it, including response pending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolStep {
    /// The addressing of the request.
    pub target: Target,
    /// The identifier of the request.
    pub request_id: CanId,
    /// When the request's first frame was on the bus, since the recording's start.
    pub start: Duration,
    /// When the request's last frame was on the bus.
    pub end: Duration,
    /// The request.
    pub pdu: Vec<u8>,
    /// The answers, in their order on the bus.
    pub answers: Vec<RecordedAnswer>,
}

/// Whether `pdu` is a response of `service`, positive or negative.
pub(super) fn is_response(pdu: &[u8], service: u8) -> bool {
    match *pdu {
        [0x7F, refused, ..] => refused == service,
        [first, ..] => Some(first) == service.checked_add(0x40),
        [] => false,
    }
}
