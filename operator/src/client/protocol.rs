//! What the operator's end of a connection does with messages, requests and commands: a state machine without
//! I/O.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::link::{Link, LinkError};
use connector_agent::relay::wire::codec::{CodecError, Header, Payload};
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::error::{CloseReason, is_offline};
use super::inbox::{Full, Item, Received};
use super::joining::problem_of;
use super::shared::{ChannelCommand, ConnectorRequest, LinkState, Shared};
use super::socket::SocketError;

/// The task takes nothing more from channels while this much waits for an acknowledgement, in bytes: half of
/// the 2 MiB that may be kept, so that one more PDU of 1 MiB has room.
const MAX_UNACKNOWLEDGED: usize = 1 << 20;
/// How many requests may wait for an answer. Further requests are not sent until one is answered. As many as
/// wait in a connector while it sets up buses.
const MAX_WAITING: usize = 64;

/// Why the task stops using a websocket.
pub(super) enum Ended {
    /// The connection ended.
    Closed(CloseReason),
    /// The websocket is lost; the connection may continue on another one.
    Lost(SocketError),
}

impl From<SocketError> for Ended {
    fn from(error: SocketError) -> Self {
        Self::Lost(error)
    }
}

fn protocol(what: impl ToString) -> Ended {
    Ended::Closed(CloseReason::Protocol(what.to_string()))
}

/// The operator's end of a connection: the link that survives a lost websocket, and the requests without an
/// answer.
pub(super) struct LinkProtocol {
    uuid: Uuid,
    /// How long a lost link may take to come back.
    hold: Duration,
    shared: Arc<Shared>,
    link: Link,
    /// Requests without an answer, by their id. They are sent again when the link comes back.
    waiting: BTreeMap<u64, ConnectorRequest>,
    next_id: u64,
    texts: VecDeque<String>,
    /// The id of the `resumeConnection` without an answer.
    resuming: Option<String>,
    down_since: Option<Instant>,
}

impl LinkProtocol {
    pub(super) fn new(uuid: Uuid, hold: Duration, shared: Arc<Shared>, link: Link) -> Self {
        Self {
            uuid,
            hold,
            shared,
            link,
            waiting: BTreeMap::new(),
            next_id: 0,
            texts: VecDeque::new(),
            resuming: None,
            down_since: None,
        }
    }

    /// The number of the last message received, from which the link continues.
    pub(super) fn received(&self) -> u32 {
        self.link.received()
    }

    /// Whether another request may wait for its answer.
    pub(super) fn takes_request(&self) -> bool {
        self.waiting.len() < MAX_WAITING
    }

    /// Whether another command may be sent.
    pub(super) fn takes_command(&self) -> bool {
        self.link.kept_bytes() < MAX_UNACKNOWLEDGED
    }

    /// The time when a lost link is given up; `None` while both links are up.
    pub(super) fn gives_up_at(&self) -> Option<Instant> {
        self.down_since.map(|since| since + self.hold)
    }

    /// The time when an acknowledgement is due.
    pub(super) fn ack_due(&self) -> Option<Instant> {
        self.link.poll_timeout()
    }

    /// The next message. Texts come first: a `resumeConnection` precedes the binary messages that it
    /// announces.
    pub(super) fn poll_message(&mut self, now: Instant) -> Option<Message> {
        if let Some(text) = self.texts.pop_front() {
            return Some(Message::text(text));
        }
        self.link.poll_message(now).map(Message::Binary)
    }

    /// The operator's own websocket is lost.
    pub(super) fn handle_lost(&mut self, now: Instant) {
        self.shared.counters.add_link_lost();
        self.handle_down(now);
    }

    /// Puts a PDU or frame for the vehicle on the link.
    pub(super) fn handle_command(&mut self, now: Instant, command: ChannelCommand) -> Result<(), Ended> {
        let (channel, payload) = match &command {
            ChannelCommand::Pdu { channel, flags, data } => {
                self.shared.counters.add_pdu_sent();
                (*channel, Payload::Pdu { address: 0, flags: *flags, data })
            }
            ChannelCommand::Frame { channel, frame } => (*channel, Payload::Frame(*frame)),
        };
        self.link.push(now, now, channel, payload).map_err(|_| Ended::Closed(CloseReason::Overflow))
    }

    /// Sends a request to the connector, or keeps it until the link is back.
    pub(super) fn handle_request(&mut self, request: ConnectorRequest) {
        // requests whose callers gave up need no room
        self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
        self.next_id += 1;
        let id = self.next_id;
        if self.link.is_up() {
            self.texts.push_back(text_of(id, &request));
        }
        self.waiting.insert(id, request);
    }

    /// A message was received.
    pub(super) fn handle_message(&mut self, now: Instant, message: Message) -> Result<(), Ended> {
        match message {
            Message::Binary(bytes) => self.handle_binary(now, &bytes),
            Message::Text(text) => match serde_json::from_str::<Envelope>(text.as_str()) {
                Ok(envelope) => self.handle_envelope(now, envelope),
                Err(error) => {
                    tracing::debug!(%error, "ignoring a text that is not a message");
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    fn handle_binary(&mut self, now: Instant, message: &[u8]) -> Result<(), Ended> {
        let incoming = match self.link.handle_message(now, message) {
            Ok(Some(incoming)) => incoming,
            Ok(None) => return Ok(()),
            // joining again makes the other side repeat the missing messages
            Err(LinkError::Gap { expected, found }) => {
                tracing::warn!(expected, found, "a message is missing; joining again");
                return Err(Ended::Lost(SocketError::Closed));
            }
            Err(error) => return Err(protocol(error)),
        };
        let header = Header::decode(message).map_err(|error: CodecError| protocol(error))?;
        for record in incoming.records() {
            let Some(item) = Item::of(&record.payload) else { continue };
            let at = header.time.saturating_add_signed(i64::from(record.offset));
            let received = Received { at: Duration::from_micros(at), item };
            if let Err(Full) = self.shared.deliver(record.channel, received) {
                return Err(Ended::Closed(CloseReason::Overflow));
            }
        }
        Ok(())
    }

    fn handle_envelope(&mut self, now: Instant, envelope: Envelope) -> Result<(), Ended> {
        if let Some(named) = envelope.message.get("connection_uuid").and_then(Value::as_str)
            && named.parse() != Ok(self.uuid)
        {
            return Ok(());
        }
        if envelope.request_id.is_some() && envelope.request_id == self.resuming {
            self.resuming = None;
            if envelope.action == "error" {
                let problem = problem_of(envelope);
                // offline again: the cloud announces when the connector is back
                return if is_offline(&problem) {
                    Ok(())
                } else {
                    Err(Ended::Closed(CloseReason::Refused(problem)))
                };
            }
            return Ok(());
        }
        let is_close = envelope.action == "connectionClosed";
        let reason = envelope.message.get("reason").and_then(Value::as_str).unwrap_or("closed").to_owned();
        match envelope.action.as_str() {
            "connectionInterrupted" => {
                self.shared.counters.add_interruption();
                self.handle_down(now);
            }
            "policyState" => match serde_json::from_value(envelope.message) {
                Ok(policy) => self.shared.set_policy(policy),
                Err(error) => tracing::debug!(%error, "ignoring a policyState"),
            },
            "connectionTakenOver" => return Err(Ended::Closed(CloseReason::TakenOver)),
            // with a request_id, this is a late reply about a link that was lost since
            "connectionResumed" if envelope.request_id.is_none() => {
                return self.handle_resumed(now, &envelope.message);
            }
            _ => match envelope.request_id.as_deref().and_then(|id| id.parse::<u64>().ok()) {
                Some(id) => self.handle_answer(id, envelope),
                None if envelope.action == "error" => self.handle_error(problem_of(envelope))?,
                None => {}
            },
        }
        if is_close { Err(Ended::Closed(CloseReason::Remote(reason))) } else { Ok(()) }
    }

    fn handle_answer(&mut self, id: u64, envelope: Envelope) {
        let Some(request) = self.waiting.remove(&id) else { return };
        let answer = if envelope.action == "error" { Err(problem_of(envelope)) } else { Ok(envelope) };
        match answer {
            // the connector's link was lost: the request is sent again when the link is back
            Err(problem) if is_offline(&problem) => {
                self.waiting.insert(id, request);
            }
            // a caller that no longer waits is no error
            answer => drop(request.reply.send(answer)),
        }
    }

    /// Handles an error that does not answer a request.
    fn handle_error(&mut self, problem: Problem) -> Result<(), Ended> {
        if ProblemKind::of(&problem) == Some(ProblemKind::SequenceGap) {
            tracing::warn!(%problem, "the connector lacks a message; joining again");
            return Err(Ended::Lost(SocketError::Closed));
        }
        tracing::warn!(%problem, "the other side reports an error");
        Ok(())
    }

    /// A link is lost: nothing is sent until the connection is resumed.
    fn handle_down(&mut self, now: Instant) {
        self.link.interrupt();
        self.texts.clear();
        self.resuming = None;
        self.down_since.get_or_insert(now);
        self.shared.set_state(LinkState::Down);
    }

    fn handle_resumed(&mut self, now: Instant, message: &Value) -> Result<(), Ended> {
        if self.link.is_up() {
            return Ok(());
        }
        let received =
            message.get("received").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok());
        let received = received.ok_or_else(|| protocol("connectionResumed without \"received\""))?;
        self.link.resume(now, received).map_err(protocol)?;
        self.down_since = None;
        self.next_id += 1;
        let id = format!("resume-{}", self.next_id);
        let message = json!({"connection_uuid": self.uuid, "received": self.link.received()});
        let resume = Envelope::new("resumeConnection", &message).in_reply_to(Some(id.clone()));
        self.texts.push_back(resume.to_text());
        self.resuming = Some(id);
        self.texts.extend(self.waiting.iter().map(|(id, request)| text_of(*id, request)));
        self.shared.set_state(LinkState::Up);
        Ok(())
    }
}

fn text_of(id: u64, request: &ConnectorRequest) -> String {
    Envelope::new(request.action, &request.message).in_reply_to(Some(id.to_string())).to_text()
}

#[cfg(test)]
mod tests {
    use connector_agent::relay::link::Role;
    use connector_agent::relay::wire::codec::Tag;
    use tokio_util::sync::CancellationToken;

    use super::*;

    fn protocol_of(now: Instant) -> LinkProtocol {
        let uuid = Uuid::from_u128(7);
        let shared = Arc::new(Shared::new(CancellationToken::new()));
        LinkProtocol::new(
            uuid,
            Duration::from_secs(60),
            shared,
            Link::new(Role::Operator, Tag::from(uuid), now),
        )
    }

    fn hear(protocol: &mut LinkProtocol, now: Instant, action: &str, request_id: Option<&str>) {
        let message = json!({"connection_uuid": protocol.uuid, "received": 0});
        let envelope = Envelope::new(action, &message).in_reply_to(request_id.map(str::to_owned));
        assert!(protocol.handle_message(now, Message::text(envelope.to_text())).is_ok());
    }

    /// The request_ids of the `resumeConnection` that are sent.
    fn resuming(protocol: &mut LinkProtocol, now: Instant) -> Vec<Option<String>> {
        let mut ids = Vec::new();
        while let Some(message) = protocol.poll_message(now) {
            let Message::Text(text) = message else { continue };
            let envelope = Envelope::read(text.as_str()).unwrap();
            if envelope.action == "resumeConnection" {
                ids.push(envelope.request_id);
            }
        }
        ids
    }

    #[test]
    fn only_the_notice_of_a_resumption_resumes_the_link() {
        let now = Instant::now();
        let mut protocol = protocol_of(now);
        hear(&mut protocol, now, "connectionInterrupted", None);
        hear(&mut protocol, now, "connectionResumed", None);
        assert_eq!(resuming(&mut protocol, now), [Some("resume-1".to_owned())]);
        // the reply belongs to the link before
        hear(&mut protocol, now, "connectionInterrupted", None);
        hear(&mut protocol, now, "connectionResumed", Some("resume-1"));
        assert!(!protocol.link.is_up() && resuming(&mut protocol, now).is_empty());
        hear(&mut protocol, now, "connectionResumed", None);
        assert_eq!(resuming(&mut protocol, now), [Some("resume-2".to_owned())]);
        hear(&mut protocol, now, "connectionResumed", Some("resume-2"));
        assert!(protocol.link.is_up() && protocol.resuming.is_none());
    }

    #[test]
    fn an_operator_whose_connection_was_taken_over_does_not_join_again() {
        let now = Instant::now();
        let mut protocol = protocol_of(now);
        let message = json!({"connection_uuid": protocol.uuid});
        let text = Message::text(Envelope::new("connectionTakenOver", &message).to_text());
        let ended = protocol.handle_message(now, text);
        assert!(matches!(ended, Err(Ended::Closed(CloseReason::TakenOver))));
    }
}
