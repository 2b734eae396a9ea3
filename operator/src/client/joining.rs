//! `joinConnection` and its answer.

use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde::Serialize;
use serde_json::Value;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::error::{DialError, OperatorError, is_offline};
use super::live::{Live, LiveEvent};
use super::shared::ConnectionSettings;
use super::socket::{Dial, SocketError};

/// How long the answer may take. The connector may have to identify its vehicle first, which takes up to 12 s on a
/// K-line, and the network may be slow.
const JOIN: Duration = Duration::from_secs(60);
/// How many messages before the answer are kept. The cloud sends a few; the limit bounds the memory.
const MAX_BACKLOG: usize = 1024;

/// The content of `joinConnection`.
#[derive(Debug, Clone, Serialize)]
pub(super) struct JoinRequest {
    #[serde(rename = "connection_uuid")]
    pub(super) uuid: Uuid,
    /// The number of the last message received, if the connection was joined before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) received: Option<u32>,
    /// The opening of the connection to which `received` belongs, as the cloud named it. A cloud need not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) opening: Option<Value>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) take_over: bool,
}

/// Why a connection was not joined.
#[derive(Debug)]
pub(super) enum JoinError {
    Socket(SocketError),
    Refused(Problem),
    Timeout(Duration),
}

/// Joins a connection. If the connector is offline, repeats the attempt until `join_patience` ends.
pub(super) async fn first_join(
    dial: &dyn Dial,
    uuid: Uuid,
    settings: ConnectionSettings,
) -> Result<(Live, Value, Vec<Message>), OperatorError> {
    /// The pause between two attempts: the connector may come online at any time.
    const PAUSE: Duration = Duration::from_secs(1);
    let until = Instant::now() + settings.join_patience;
    loop {
        let mut live = Live::new(dial.dial().await?);
        let request = JoinRequest { uuid, received: None, opening: None, take_over: settings.take_over };
        let failure = match join(&mut live, request).await {
            Ok((joined, backlog)) => return Ok((live, joined, backlog)),
            Err(JoinError::Timeout(after)) => {
                return Err(OperatorError::Timeout { what: "joining the connection".to_owned(), after });
            }
            Err(JoinError::Refused(problem)) => {
                let is_final = !is_offline(&problem);
                let error = OperatorError::Refused { what: "joining the connection".to_owned(), problem };
                if is_final {
                    return Err(error);
                }
                error
            }
            Err(JoinError::Socket(error)) => {
                let source = Box::new(std::io::Error::other(error).into());
                OperatorError::Dial(DialError::Upgrade(source))
            }
        };
        if Instant::now() >= until {
            return Err(failure);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Joins a connection on this websocket. Returns the content of `connectionJoined`, and the messages that
/// came before.
pub(super) async fn join(live: &mut Live, request: JoinRequest) -> Result<(Value, Vec<Message>), JoinError> {
    let attempt = try_join(live, request);
    tokio::time::timeout(JOIN, attempt).await.unwrap_or(Err(JoinError::Timeout(JOIN)))
}

async fn try_join(live: &mut Live, request: JoinRequest) -> Result<(Value, Vec<Message>), JoinError> {
    let id = "join";
    let ask = Envelope::new("joinConnection", &request).in_reply_to(Some(id.to_owned()));
    live.write(Message::text(ask.to_text())).await.map_err(JoinError::Socket)?;
    let mut backlog = Vec::new();
    loop {
        let LiveEvent::Message(message) = live.next().await.map_err(JoinError::Socket)? else { continue };
        if let Message::Text(text) = &message
            && let Ok(envelope) = serde_json::from_str::<Envelope>(text.as_str())
        {
            let is_ours = envelope.request_id.as_deref() == Some(id);
            match envelope.action.as_str() {
                "connectionJoined" if is_ours || envelope.request_id.is_none() => {
                    return Ok((envelope.message, backlog));
                }
                "error" if is_ours => return Err(JoinError::Refused(problem_of(envelope))),
                _ => {}
            }
        }
        if backlog.len() < MAX_BACKLOG {
            backlog.push(message);
        }
    }
}

/// The problem in an error message.
pub(super) fn problem_of(envelope: Envelope) -> Problem {
    serde_json::from_value(envelope.message).unwrap_or_else(|_| {
        ProblemKind::BadAnswer.problem("The other side sent an error without a valid problem.")
    })
}
