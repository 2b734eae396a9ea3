//! The errors of the client library.

use std::fmt;
use std::io;
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::ProblemKind;
use connector_agent::relay::wire::codec::SendFailedDetail;
use connector_agent::tls::TlsError;
use tokio_tungstenite::tungstenite;

/// Why a connection ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CloseReason {
    /// The cloud or the connector closed the connection, for this reason (`closed`, `link-lost`,
    /// `vehicle-lost`, …).
    Remote(String),
    /// The cloud refused to resume the connection after a lost link.
    Refused(Problem),
    /// Another operator has taken the connection over.
    TakenOver,
    /// A link was lost for longer than the connection is held.
    LinkLost,
    /// A channel received more from the vehicle than this program took from it.
    Overflow,
    /// The other side violated the protocol.
    Protocol(String),
    /// This side closed the connection.
    Dropped,
}

impl CloseReason {
    /// What has happened, for people.
    pub fn describe(&self) -> String {
        match self {
            Self::Remote(reason) => describe_remote(reason).to_owned(),
            Self::Refused(problem) => {
                format!("the connection could not be resumed after the link was lost ({problem})")
            }
            Self::TakenOver => "another operator has taken the connection over".to_owned(),
            Self::LinkLost => "the link was lost and did not come back in time".to_owned(),
            Self::Overflow => "this program did not keep up with the vehicle".to_owned(),
            Self::Protocol(detail) => {
                format!("connector and operator use incompatible protocols ({detail})")
            }
            Self::Dropped => "this program closed the connection".to_owned(),
        }
    }
}

/// Describes the reason of `connectionClosed`.
fn describe_remote(reason: &str) -> &'static str {
    match reason {
        "link-lost" => "the connector's link was lost and did not come back in time",
        "vehicle-lost" => "the connector is at another vehicle now, or at none",
        "shutdown" => "the connector was switched off",
        "overflow" => "the vehicle sent more than the network could transfer",
        "policy" => "the ticket is no longer in progress, or the person at the vehicle ended the connection",
        _ => "the other side closed the connection",
    }
}

impl fmt::Display for CloseReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(reason) => f.write_str(reason),
            Self::Refused(problem) => write!(f, "{problem}"),
            Self::TakenOver => f.write_str("another operator has taken the connection over"),
            Self::LinkLost => f.write_str("link-lost"),
            Self::Overflow => f.write_str("this program did not take what the vehicle sent"),
            Self::Protocol(detail) => f.write_str(detail),
            Self::Dropped => f.write_str("closed on this side"),
        }
    }
}

/// Why the cloud, or the connector behind it, did not fulfil a request.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// The certificates are not usable.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The REST API is not reachable, or the exchange broke off.
    #[error("cannot reach the cloud: {what}")]
    Http {
        /// The request.
        what: &'static str,
        /// The HTTP error that caused this.
        source: reqwest::Error,
    },
    /// The websocket could not be opened.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The client id or its secret is wrong.
    #[error("the cloud does not accept the operator's login: {0}")]
    Login(Problem),
    /// The other side refused the request.
    #[error("{what} was refused: {problem}")]
    Refused {
        /// The request.
        what: String,
        /// The reason.
        problem: Problem,
    },
    /// The answer is not valid.
    #[error("the answer to {what} is not valid: {detail}")]
    Answer {
        /// The request.
        what: &'static str,
        /// What is wrong with the answer.
        detail: String,
    },
    /// No answer came.
    #[error("no answer to {what} within {} s", after.as_secs())]
    Timeout {
        /// The request.
        what: String,
        /// The time waited.
        after: Duration,
    },
    /// The connection ended.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
}

impl OperatorError {
    /// The problem object, if the other side sent one.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Login(problem) | Self::Refused { problem, .. } => Some(problem),
            Self::Closed(CloseReason::Refused(problem)) => Some(problem),
            _ => None,
        }
    }

    /// Whether the connector is offline, so that a later attempt may succeed.
    pub fn is_offline(&self) -> bool {
        self.problem().is_some_and(is_offline)
    }
}

/// Whether a problem reports that the connector is not connected to the cloud.
pub(super) fn is_offline(problem: &Problem) -> bool {
    ProblemKind::of(problem) == Some(ProblemKind::ConnectorOffline)
}

/// Why a websocket could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL is not usable.
    #[error("{url} is not usable as the websocket's address: {why}")]
    Url {
        /// The URL.
        url: String,
        /// The reason.
        why: &'static str,
    },
    /// The TCP or TLS connection failed.
    #[error("cannot reach the cloud's websocket at {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The cloud refused the upgrade to a websocket.
    #[error("the cloud does not open the websocket")]
    Upgrade(#[source] Box<tungstenite::Error>),
    /// The cloud refused the token, and a fresh one too.
    #[error("the cloud does not accept the operator's token")]
    Unauthorized,
    /// Opening took longer than this.
    #[error("the cloud's websocket did not open within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The login for a token failed.
    #[error(transparent)]
    Login(Box<OperatorError>),
}

/// Why a request to an ECU has no positive response.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The connection ended.
    #[error("the connection is closed: {0}")]
    Closed(CloseReason),
    /// The connector could not send the request.
    #[error("the request was not sent: {0}")]
    NotSent(SendFailure),
    /// The response was incomplete. The number is the detail of the protocol's `receive-failed`.
    #[error("the response broke off: {}", describe_receive_failure(*.0))]
    ReceiveFailed(u16),
    /// The ECU sent a negative response.
    #[error("the ECU refused service 0x{service:02X} with 0x{code:02X}")]
    Negative {
        /// The service.
        service: u8,
        /// The negative response code.
        code: u8,
    },
    /// The ECU sent no response.
    #[error("no response within {} ms", after.as_millis())]
    NoResponse {
        /// The time waited.
        after: Duration,
    },
    /// The connector discarded chained PDUs that were queued.
    #[error("the connector discarded {count} queued PDUs after 0x{code:02X}")]
    ChainBroken {
        /// The number of discarded PDUs.
        count: u32,
        /// The negative response code, or 0 if no response came.
        code: u16,
    },
}

/// Why the connector did not send a PDU or frame: the protocol's `send-failed`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SendFailure {
    /// The detail.
    pub detail: u16,
    /// The connector's own text.
    pub text: String,
}

impl SendFailure {
    /// Whether the connector's policy refused the request, which has its reason in the text.
    pub fn is_by_policy(&self) -> bool {
        self.detail == SendFailedDetail::RefusedByPolicy as u16 && self.text.starts_with("policy: ")
    }
}

impl fmt::Display for SendFailure {
    /// Writes the connector's text where the detail has more than one reason.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_refused = self.detail == SendFailedDetail::RefusedByPolicy as u16;
        match self.text.as_str() {
            text if is_refused && !text.is_empty() => f.write_str(text),
            _ => f.write_str(describe_send_failure(self.detail)),
        }
    }
}

/// Describes the detail of `send-failed`.
fn describe_send_failure(detail: u16) -> &'static str {
    match SendFailedDetail::from_wire(detail) {
        Some(SendFailedDetail::FlowControlTimeout) => "the ECU sent no flow control",
        Some(SendFailedDetail::FlowControlOverflow) => "the ECU has no room for a request this long",
        Some(SendFailedDetail::BusOff) => "the bus is off",
        Some(SendFailedDetail::NotAcknowledged) => "no node on the bus acknowledges frames",
        Some(SendFailedDetail::QueueFull) => "the connector's queue is full",
        Some(SendFailedDetail::RefusedByPolicy) => {
            "this channel does not allow this request, or the connector has not confirmed the VIN"
        }
        Some(SendFailedDetail::ChannelClosed) => "the channel is closed",
        Some(SendFailedDetail::TooOld) => "the request was too old when it reached the connector",
        None => "unknown reason",
    }
}

fn describe_receive_failure(detail: u16) -> &'static str {
    match detail {
        1 => "the ECU stopped in the middle of the response",
        2 => "frames were lost",
        3 => "the response is longer than the connector accepts",
        _ => "unknown reason",
    }
}
