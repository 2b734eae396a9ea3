//! A channel of a K-line with its link, and what is reported about links that fail.

use crate::protocol::kline::{Endpoint, Failure};
use crate::protocol::problem::Problem;
use crate::relay::channel::{KlineTransport, Output, PduChannel, describe_failure};
use crate::relay::wire::ProblemKind;
use crate::relay::wire::codec::{EventCode, SendFailedDetail};

/// The key of a link: its channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Open(u16),
    /// A channel that was closed, and whose link is being ended.
    Closing(u32),
}

#[derive(Debug)]
pub(super) struct KlineChannel {
    pub(super) pdus: PduChannel<KlineTransport>,
    /// Whether the operator waits for the reply to `openChannel`.
    pub(super) is_opening: bool,
}

impl KlineChannel {
    /// Whether the channel is open and its ECU can be asked.
    pub(super) fn is_up(&self, key: Key) -> bool {
        matches!(key, Key::Open(_)) && !self.is_opening && self.endpoint().is_up()
    }

    pub(super) fn endpoint(&self) -> &Endpoint {
        self.pdus.transport().endpoint()
    }

    pub(super) fn endpoint_mut(&mut self) -> &mut Endpoint {
        self.pdus.transport_mut().endpoint_mut()
    }
}

/// The event that reports a lost link.
pub(super) fn lost(failure: Failure) -> Output {
    let value = match failure {
        Failure::OtherKeyBytes(found) => found.number().into(),
        _ => 0,
    };
    let detail = SendFailedDetail::NotAcknowledged as u16;
    Output::event(EventCode::KeepAliveFailed, detail, value, describe_failure(failure))
}

/// The problem that a channel was not opened.
pub(super) fn cannot_open(number: u16, failure: Failure) -> Problem {
    let detail = format!("Channel {number}: {failure}.");
    match failure {
        Failure::OtherKeyBytes(_) | Failure::KeyBytes(_) => ProblemKind::WrongKeyBytes.problem(detail),
        Failure::NoEcho | Failure::Collision { .. } | Failure::LineInUse => {
            ProblemKind::BusUnavailable.problem(detail)
        }
        _ => ProblemKind::EcuNotAnswering.problem(detail),
    }
}
