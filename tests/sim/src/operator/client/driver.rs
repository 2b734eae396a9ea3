//! The task of a connection: its websocket, its link, and everything that survives a lost one.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::link::{Link, LinkError};
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::codec::{CodecError, Header, Payload, PduFlags};
use connector_hal::can::CanFrame;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;
use uuid::Uuid;

use super::connection::{ConnectionSettings, LinkState, Shared};
use super::error::{CloseReason, is_offline};
use super::inbox::{Full, Item, Received};
use super::joining::{JoinError, join, problem_of};
use super::live::{Live, LiveEvent};
use super::socket::{Dial, SocketError};

/// Nothing more is taken from channels while this much waits for an acknowledgement, in bytes.
const ENOUGH: usize = 1 << 20;
/// Requests that may wait for an answer; more wait before they are sent.
const MAX_WAITING: usize = 64;
/// The pauses between attempts to reconnect: the first is made at once.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Something for the vehicle.
#[derive(Debug)]
pub(super) enum Command {
    Pdu { channel: u16, flags: PduFlags, data: Vec<u8> },
    Frame { channel: u16, frame: CanFrame },
}

/// A request to the connector, and who waits for its answer.
#[derive(Debug)]
pub(super) struct Ask {
    pub(super) action: &'static str,
    pub(super) message: Value,
    pub(super) reply: oneshot::Sender<Result<Envelope, Problem>>,
}

/// Why a websocket is no longer used.
enum Ended {
    /// The connection is over.
    Closed(CloseReason),
    /// The websocket is lost; the connection may go on by another one.
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

/// See the module.
pub(super) struct Driver {
    dial: Arc<dyn Dial>,
    uuid: Uuid,
    settings: ConnectionSettings,
    shared: Arc<Shared>,
    asks: mpsc::Receiver<Ask>,
    commands: mpsc::Receiver<Command>,
    link: Link,
    /// Requests without an answer, by their id: sent again when the link is back.
    waiting: BTreeMap<u64, Ask>,
    next_id: u64,
    texts: VecDeque<String>,
    /// The `resumeConnection` whose answer is due.
    resuming: Option<String>,
    down_since: Option<Instant>,
}

impl Driver {
    pub(super) fn new(
        dial: Arc<dyn Dial>,
        uuid: Uuid,
        settings: ConnectionSettings,
        shared: Arc<Shared>,
        asks: mpsc::Receiver<Ask>,
        commands: mpsc::Receiver<Command>,
        link: Link,
    ) -> Self {
        Self {
            dial,
            uuid,
            settings,
            shared,
            asks,
            commands,
            link,
            waiting: BTreeMap::new(),
            next_id: 0,
            texts: VecDeque::new(),
            resuming: None,
            down_since: None,
        }
    }

    /// Runs until the connection is over, and says so to everyone.
    pub(super) async fn drive(mut self, live: Live, backlog: Vec<Message>) {
        let reason = self.run(live, backlog).await;
        tracing::debug!(connection = %self.uuid, %reason, "the connection is over");
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

    /// Uses a websocket until it or the connection ends.
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
        // texts first: a resumeConnection goes before the binary messages that it is about
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
            Some(ask) = self.asks.recv(), if self.waiting.len() < MAX_WAITING => {
                self.handle_ask(ask);
                Ok(())
            }
            Some(command) = self.commands.recv(), if self.link.kept_bytes() < ENOUGH => {
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

    fn handle_command(&mut self, command: Command) -> Result<(), Ended> {
        let now = Instant::now().into_std();
        let (channel, payload) = match &command {
            Command::Pdu { channel, flags, data } => {
                self.shared.counters.add_pdu_sent();
                (*channel, Payload::Pdu { address: 0, flags: *flags, data })
            }
            Command::Frame { channel, frame } => (*channel, Payload::Frame(*frame)),
        };
        self.link.push(now, now, channel, payload).map_err(|_| Ended::Closed(CloseReason::Overflow))
    }

    fn handle_ask(&mut self, ask: Ask) {
        // whoever gave up waiting needs no room here
        self.waiting.retain(|_, waiting| !waiting.reply.is_closed());
        self.next_id += 1;
        let id = self.next_id;
        if self.link.is_up() {
            self.texts.push_back(text_of(id, &ask));
        }
        self.waiting.insert(id, ask);
    }

    fn handle_message(&mut self, message: Message) -> Result<(), Ended> {
        match message {
            Message::Binary(bytes) => self.handle_binary(&bytes),
            Message::Text(text) => match serde_json::from_str::<Envelope>(text.as_str()) {
                Ok(envelope) => self.handle_envelope(envelope),
                Err(error) => {
                    tracing::debug!(%error, "a text that is no message");
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
            // joining again has the missing ones sent again
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
                // away again: that it comes back is announced
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
        let Some(ask) = self.waiting.remove(&id) else { return };
        let answer = if envelope.action == "error" { Err(problem_of(envelope)) } else { Ok(envelope) };
        match answer {
            // the connector's link broke meanwhile: the request is sent again when it is back
            Err(problem) if is_offline(&problem) => {
                self.waiting.insert(id, ask);
            }
            // nobody waits any more: fine
            answer => drop(ask.reply.send(answer)),
        }
    }

    /// An error that answers no request of ours.
    fn handle_error(&mut self, problem: Problem) -> Result<(), Ended> {
        if problem.kind == "/problems/sequence-gap" {
            tracing::warn!(%problem, "the connector lacks a message; joining again");
            return Err(Ended::Lost(SocketError::Closed));
        }
        tracing::warn!(%problem, "the other side reports an error");
        Ok(())
    }

    /// One of the links is lost; until the connection is resumed, nothing is sent.
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
        self.texts.extend(self.waiting.iter().map(|(id, ask)| text_of(*id, ask)));
        self.shared.set_state(LinkState::Up);
        Ok(())
    }

    /// A websocket that has joined the connection again; what the link lacks comes with `connectionResumed`.
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
            // half of it at random, so that many operators do not come at once
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

    /// The error is the problem that the cloud answered with, or none where there was no answer.
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

fn text_of(id: u64, ask: &Ask) -> String {
    Envelope::new(ask.action, &ask.message).in_reply_to(Some(id.to_string())).to_text()
}

/// Until the moment; for ever if there is none.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
