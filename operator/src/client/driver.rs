//! The task of a connection: it owns the websocket, and the link that survives a lost websocket.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::link::{Link, LinkError};
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::codec::{CodecError, Header, Payload};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::error::{CloseReason, is_offline};
use super::inbox::{Full, Item, Received};
use super::joining::{JoinError, join, problem_of};
use super::live::{Live, LiveEvent};
use super::shared::{ChannelCommand, ConnectionSettings, ConnectorRequest, LinkState, Shared};
use super::socket::{Dial, SocketError};

/// The task takes nothing more from channels while this much waits for an acknowledgement, in bytes: half of
/// the 2 MiB that may be kept, so that one more PDU of 1 MiB has room.
const MAX_UNACKNOWLEDGED: usize = 1 << 20;
/// How many requests may wait for an answer. Further requests are not sent until one is answered. As many as
/// wait in a connector while it sets up buses.
const MAX_WAITING: usize = 64;
/// The first pause between attempts to reconnect, which is then doubled up to [`LAST_PAUSE`]. The first
/// attempt follows the loss immediately. The value is a compromise: a flash waits for the link, and a cloud
/// that restarts refuses connections.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// The longest pause between attempts to reconnect. The vendor asks clients to reconnect no faster than every
/// 5 s after a few immediate attempts.
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Why the task stops using a websocket.
enum Ended {
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

/// The task of a connection, which [`Driver::drive`] runs.
pub(super) struct Driver {
    dial: Arc<dyn Dial>,
    uuid: Uuid,
    settings: ConnectionSettings,
    shared: Arc<Shared>,
    requests: mpsc::Receiver<ConnectorRequest>,
    commands: mpsc::Receiver<ChannelCommand>,
    link: Link,
    /// Requests without an answer, by their id. They are sent again when the link comes back.
    waiting: BTreeMap<u64, ConnectorRequest>,
    next_id: u64,
    texts: VecDeque<String>,
    /// The id of the `resumeConnection` without an answer.
    resuming: Option<String>,
    down_since: Option<Instant>,
}

impl Driver {
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        uuid: Uuid,
        settings: ConnectionSettings,
        shared: Arc<Shared>,
        requests: mpsc::Receiver<ConnectorRequest>,
        commands: mpsc::Receiver<ChannelCommand>,
        link: Link,
    ) -> Self {
        Self {
            dial,
            uuid,
            settings,
            shared,
            requests,
            commands,
            link,
            waiting: BTreeMap::new(),
            next_id: 0,
            texts: VecDeque::new(),
            resuming: None,
            down_since: None,
        }
    }

    /// Runs until the connection ends, then closes all channels with the reason.
    pub(super) async fn drive(mut self, live: Live, backlog: Vec<Message>) {
        let reason = self.run(live, backlog).await;
        tracing::debug!(connection = %self.uuid, %reason, "the connection ended");
        self.shared.close(&reason);
    }

    async fn run(&mut self, mut live: Live, mut backlog: Vec<Message>) -> CloseReason {
        loop {
            match self.drive_socket(&mut live, backlog).await {
                Ended::Closed(reason) => {
                    live.close().await;
                    return reason;
                }
                Ended::Lost(error) => tracing::debug!(connection = %self.uuid, %error, "lost the websocket"),
            }
            self.shared.counters.add_link_lost();
            self.handle_down();
            match self.reconnect().await {
                Ok(again) => (live, backlog) = again,
                Err(reason) => return reason,
            }
        }
    }

    /// Uses a websocket until the websocket or the connection ends.
    async fn drive_socket(&mut self, live: &mut Live, backlog: Vec<Message>) -> Ended {
        for message in backlog {
            if let Err(ended) = self.handle_message(message) {
                return ended;
            }
        }
        loop {
            if let Err(ended) = self.drive_socket_once(live).await {
                return ended;
            }
        }
    }

    async fn drive_socket_once(&mut self, live: &mut Live) -> Result<(), Ended> {
        // send texts first: a resumeConnection precedes the binary messages that it announces
        if live.is_idle()
            && let Some(message) = self.next_message()
        {
            live.write(message).await?;
        }
        let now = Instant::now();
        let gives_up_at = self.down_since.map(|since| since + self.settings.hold);
        if gives_up_at.is_some_and(|at| at <= now) {
            return Err(Ended::Closed(CloseReason::LinkLost));
        }
        let ack_due = self.link.poll_timeout().filter(|_| live.is_idle()).map(Instant::from_std);
        let timeout = [gives_up_at, ack_due].into_iter().flatten().min();
        tokio::select! {
            () = self.shared.dropped.cancelled() => Err(Ended::Closed(CloseReason::Dropped)),
            event = live.next() => match event? {
                LiveEvent::Message(message) => self.handle_message(message),
                LiveEvent::Flushed => Ok(()),
            },
            Some(request) = self.requests.recv(), if self.waiting.len() < MAX_WAITING => {
                self.handle_request(request);
                Ok(())
            }
            Some(command) = self.commands.recv(), if self.link.kept_bytes() < MAX_UNACKNOWLEDGED => {
                self.handle_command(command)
            }
            () = sleep_until(timeout) => Ok(()),
        }
    }

    fn next_message(&mut self) -> Option<Message> {
        if let Some(text) = self.texts.pop_front() {
            return Some(Message::text(text));
        }
        self.link.poll_message(Instant::now().into_std()).map(Message::Binary)
    }

    fn handle_command(&mut self, command: ChannelCommand) -> Result<(), Ended> {
        let now = Instant::now().into_std();
        let (channel, payload) = match &command {
            ChannelCommand::Pdu { channel, flags, data } => {
                self.shared.counters.add_pdu_sent();
                (*channel, Payload::Pdu { address: 0, flags: *flags, data })
            }
            ChannelCommand::Frame { channel, frame } => (*channel, Payload::Frame(*frame)),
        };
        self.link.push(now, now, channel, payload).map_err(|_| Ended::Closed(CloseReason::Overflow))
    }

    fn handle_request(&mut self, request: ConnectorRequest) {
        // requests whose callers gave up need no room
        self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
        self.next_id += 1;
        let id = self.next_id;
        if self.link.is_up() {
            self.texts.push_back(text_of(id, &request));
        }
        self.waiting.insert(id, request);
    }

    fn handle_message(&mut self, message: Message) -> Result<(), Ended> {
        match message {
            Message::Binary(bytes) => self.handle_binary(&bytes),
            Message::Text(text) => match serde_json::from_str::<Envelope>(text.as_str()) {
                Ok(envelope) => self.handle_envelope(envelope),
                Err(error) => {
                    tracing::debug!(%error, "ignoring a text that is not a message");
                    Ok(())
                }
            },
            _ => Ok(()),
        }
    }

    fn handle_binary(&mut self, message: &[u8]) -> Result<(), Ended> {
        let now = Instant::now().into_std();
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

    fn handle_envelope(&mut self, envelope: Envelope) -> Result<(), Ended> {
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
                self.handle_down();
            }
            "connectionResumed" => return self.handle_resumed(&envelope.message),
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
        if problem.kind == "/problems/sequence-gap" {
            tracing::warn!(%problem, "the connector lacks a message; joining again");
            return Err(Ended::Lost(SocketError::Closed));
        }
        tracing::warn!(%problem, "the other side reports an error");
        Ok(())
    }

    /// A link is lost: nothing is sent until the connection is resumed.
    fn handle_down(&mut self) {
        self.link.interrupt();
        self.texts.clear();
        self.resuming = None;
        self.down_since.get_or_insert_with(Instant::now);
        self.shared.set_state(LinkState::Down);
    }

    fn handle_resumed(&mut self, message: &Value) -> Result<(), Ended> {
        if self.link.is_up() {
            return Ok(());
        }
        let received =
            message.get("received").and_then(Value::as_u64).and_then(|seq| u32::try_from(seq).ok());
        let received = received.ok_or_else(|| protocol("connectionResumed without \"received\""))?;
        self.link.resume(received).map_err(protocol)?;
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

    /// Opens another websocket and joins the connection again. `connectionResumed` then says where the link
    /// continues.
    async fn reconnect(&mut self) -> Result<(Live, Vec<Message>), CloseReason> {
        let until = self.down_since.unwrap_or_else(Instant::now) + self.settings.hold;
        let mut pause = FIRST_PAUSE;
        loop {
            let attempt = self.dial_and_join();
            tokio::select! {
                () = self.shared.dropped.cancelled() => return Err(CloseReason::Dropped),
                attempt = tokio::time::timeout_at(until, attempt) => match attempt {
                    Ok(Ok(joined)) => return Ok(joined),
                    Ok(Err(Some(problem))) if !is_offline(&problem) => return Err(CloseReason::Refused(problem)),
                    Ok(Err(_)) => {}
                    Err(_) => return Err(CloseReason::LinkLost),
                }
            }
            // half of the pause is random, so that many operators do not reconnect simultaneously
            let jittered = pause.mul_f64(0.5 + fastrand::f64() / 2.0);
            tokio::select! {
                () = self.shared.dropped.cancelled() => return Err(CloseReason::Dropped),
                () = tokio::time::sleep_until((Instant::now() + jittered).min(until)) => {}
            }
            if Instant::now() >= until {
                return Err(CloseReason::LinkLost);
            }
            pause = (pause * 2).min(LAST_PAUSE);
        }
    }

    /// The error is the problem that the cloud answered with, or `None` if there was no answer.
    async fn dial_and_join(&self) -> Result<(Live, Vec<Message>), Option<Problem>> {
        let socket = self.dial.dial().await.map_err(|error| {
            tracing::debug!(%error, "cannot reconnect");
            None
        })?;
        let mut live = Live::new(socket);
        match join(&mut live, self.uuid, Some(self.link.received())).await {
            Ok((_, backlog)) => Ok((live, backlog)),
            Err(JoinError::Refused(problem)) => Err(Some(problem)),
            Err(JoinError::Socket(error)) => {
                tracing::debug!(%error, "lost the websocket while joining");
                Err(None)
            }
            Err(JoinError::Timeout(_)) => Err(None),
        }
    }
}

fn text_of(id: u64, request: &ConnectorRequest) -> String {
    Envelope::new(request.action, &request.message).in_reply_to(Some(id.to_string())).to_text()
}

/// Sleeps until `at`, or forever if there is none.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
