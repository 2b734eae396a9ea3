//! What can go wrong for an operator.

use std::fmt;
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::codec::SendFailedDetail;
use connector_agent::tls::TlsError;

use super::socket::DialError;

/// Why a connection is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// Cloud or connector closed it, for this reason (`closed`, `link-lost`, `vehicle-lost`, …).
    Remote(String),
    /// It could not be taken up again after a lost link.
    Refused(Problem),
    /// A link was away for longer than a connection is held.
    LinkLost,
    /// More came from the vehicle than was taken from the channel.
    Overflow,
    /// The peer broke the protocol.
    Protocol(String),
    /// This side is done with it.
    Dropped,
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(reason) => f.write_str(reason),
            Self::Refused(problem) => write!(f, "{problem}"),
            Self::LinkLost => f.write_str("link-lost"),
            Self::Overflow => f.write_str("what came from the vehicle was not taken"),
            Self::Protocol(what) => f.write_str(what),
            Self::Dropped => f.write_str("closed on this side"),
        }
    }
}

/// Why the cloud, or the connector behind it, did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The REST API cannot be reached, or broke off.
    #[error("cannot reach the cloud: {what}")]
    Http {
        /// What was asked.
        what: &'static str,
        /// Why.
        source: reqwest::Error,
    },
    /// The websocket cannot be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The client id or its secret is wrong.
    #[error("the cloud does not accept the operator's login: {0}")]
    Login(Problem),
    /// It was understood and refused.
    #[error("{what} was refused: {problem}")]
    Refused {
        /// What was asked.
        what: String,
        /// Why not.
        problem: Problem,
    },
    /// The answer makes no sense.
    #[error("the answer to {what} cannot be understood: {detail}")]
    Answer {
        /// What was asked.
        what: &'static str,
        /// What is wrong with it.
        detail: String,
    },
    /// No answer came.
    #[error("{what} was not answered within {} s", after.as_secs())]
    Timeout {
        /// What was asked.
        what: String,
        /// How long was waited.
        after: Duration,
    },
    /// The connection is over.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
}

impl OperatorError {
    /// The problem object, where the other side sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Login(problem) | Self::Refused { problem, .. } => Some(problem),
            Self::Closed(CloseReason::Refused(problem)) => Some(problem),
            _ => None,
        }
    }

    /// Whether the connector is not there now, but may come.
    pub fn is_offline(&self) -> bool {
        self.problem().is_some_and(is_offline)
    }
}

/// Whether a problem says that the connector is not connected to the cloud.
pub(super) fn is_offline(problem: &Problem) -> bool {
    problem.kind == "/problems/connector-offline"
}

/// Why a request to an ECU has no positive response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The connection is over.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
    /// The connector did not get the request on the bus; the number is the protocol's, where it is a new one.
    #[error("the request was not sent: {}", describe_send_failure(*.0))]
    NotSent(u16),
    /// The response did not come in whole.
    #[error("the response broke off: {}", describe_receive_failure(*.0))]
    ReceiveFailed(u16),
    /// The ECU refused.
    #[error("the ECU refused service 0x{service:02X} with 0x{code:02X}")]
    Negative {
        /// The service.
        service: u8,
        /// The negative response code.
        code: u8,
    },
    /// Nothing came.
    #[error("no response within {} ms", after.as_millis())]
    NoResponse {
        /// How long was waited.
        after: Duration,
    },
    /// Queued chained PDUs were thrown away.
    #[error("{count} queued PDUs were thrown away after 0x{code:02X}")]
    ChainBroken {
        /// How many.
        count: u32,
        /// The negative response code; 0 where no response came.
        code: u16,
    },
}

/// The detail of `send-failed` in words.
pub fn describe_send_failure(detail: u16) -> &'static str {
    match SendFailedDetail::from_wire(detail) {
        Some(SendFailedDetail::FlowControlTimeout) => "the ECU gave no flow control",
        Some(SendFailedDetail::FlowControlOverflow) => "the ECU has no room for a request this long",
        Some(SendFailedDetail::BusOff) => "the bus is off",
        Some(SendFailedDetail::NotAcknowledged) => "nobody on the bus acknowledges frames",
        Some(SendFailedDetail::QueueFull) => "the connector's queue is full",
        Some(SendFailedDetail::RefusedByPolicy) => "this channel does not allow it",
        Some(SendFailedDetail::ChannelClosed) => "the channel is closed",
        Some(SendFailedDetail::TooOld) => "it was too old when it reached the connector",
        None => "for a reason that this program does not know",
    }
}

fn describe_receive_failure(detail: u16) -> &'static str {
    match detail {
        1 => "the ECU stopped in the middle of it",
        2 => "frames of it were lost",
        3 => "it is longer than the connector takes",
        _ => "for a reason that this program does not know",
    }
}
