//! The events and messages of the websocket, and the reasons why it dropped.

use std::time::Duration;

use bytes::Bytes;
use tokio_tungstenite::tungstenite;

use super::reconnect::ConnectFailure;

/// An event of a [`CloudSocket`](super::CloudSocket).
#[derive(Debug)]
pub enum SocketEvent {
    /// The websocket is up. Messages sent earlier are lost; `connectorHello` comes first.
    Up,
    /// A text message was received.
    Text(String),
    /// A text message was received that is longer than allowed. It is lost, and the websocket stays up.
    LongText {
        /// The length of the text, in bytes.
        len: usize,
        /// The longest text allowed, in bytes.
        max: usize,
    },
    /// A message is longer than allowed, and cannot be received. The next event is [`SocketEvent::Down`]; a text
    /// sent before it still reaches the cloud.
    TooLong {
        /// The length of the message, in bytes.
        len: usize,
        /// The longest message allowed, in bytes.
        max: usize,
    },
    /// A binary message was received.
    Binary(Bytes),
    /// The websocket can take a message now. Reported only while the caller passes `wants_to_send`.
    Writable,
    /// The websocket dropped and is being made again.
    Down(DownReason),
}

/// A message to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OutgoingMessage {
    /// A text message.
    Text(String),
    /// A binary message. The first copy of its bytes is made when they are masked into the socket's buffer.
    Binary(Bytes),
}

/// Why the websocket dropped.
#[derive(Debug, thiserror::Error)]
pub enum DownReason {
    /// Nothing was received for this long.
    #[error("nothing was received for {0:?}")]
    Dead(Duration),
    /// The cloud closed the websocket.
    #[error("the cloud closed the websocket ({code}{}{reason})", if .reason.is_empty() { "" } else { ": " })]
    Closed {
        /// The close code (RFC 6455, 7.4); 1005 if the cloud sent none.
        code: u16,
        /// The cloud's explanation, at most 123 bytes.
        reason: String,
    },
    /// A received message was too long.
    #[error("received a message of {len} bytes; at most {max} are allowed")]
    TooLong {
        /// The length of the message.
        len: usize,
        /// The longest message allowed.
        max: usize,
    },
    /// The connection broke, or the bytes received were not a websocket's.
    #[error("the websocket broke")]
    Broken(#[source] Box<tungstenite::Error>),
}

impl DownReason {
    /// Classifies the reason for the reconnect policy.
    pub(super) fn failure(&self) -> ConnectFailure {
        match self {
            // "going away", "service restart", "try again later" (the registry of RFC 6455, 11.7)
            Self::Closed { code: 1001 | 1012 | 1013, .. } => ConnectFailure::Restarting,
            _ => ConnectFailure::Lost,
        }
    }
}
