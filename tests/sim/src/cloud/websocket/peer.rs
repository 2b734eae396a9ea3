//! One socket: reads it, dispatches its messages, and detects a dead peer.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::ws::{Message, WebSocket};
use bytes::Bytes;
use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use futures_util::StreamExt as _;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::broadcast;
use tokio::time::{Instant, MissedTickBehavior};

use super::documented::{Dialect, flat};
use super::subscriptions::Subscriptions;
use crate::cloud::app::{App, SocketLimits};
use crate::cloud::hub::{Changed, Closing, EventKind, Outbox, unknown_action};
use crate::cloud::rest::ApiError;
use crate::cloud::store::{Role, StoreError, Subject};

/// Interval of the updates to subscribers.
const UPDATES: Duration = Duration::from_secs(5);
/// A connector with an open connection that sends nothing for this long is dead: it pings every 5 s.
const CONNECTOR_SILENCE: Duration = Duration::from_secs(15);
/// A connector without connection that sends nothing for this long is dead: it pings every 30 s.
const IDLE_CONNECTOR_SILENCE: Duration = Duration::from_secs(95);
/// Other clients need not ping. The cloud pings them with every sixth update, and tolerates slow readers.
const CLIENT_SILENCE: Duration = Duration::from_secs(300);
const TICKS_PER_PING: u32 = 6;
/// Limit of a text message, in bytes.
const MAX_TEXT: usize = 256 * 1024;

/// Limit of an action that an error quotes, in characters: longer than every known one.
const MAX_QUOTED: usize = 64;

/// The state of one socket.
pub(super) struct Peer {
    pub(super) app: App,
    pub(super) subject: Subject,
    /// The access token that opened the socket.
    pub(super) token: Arc<str>,
    pub(super) outbox: Outbox,
    /// The connector that sent its hello on this socket.
    pub(super) connector: Option<i64>,
    /// The connector's last reported VIN, as stored in the database.
    pub(super) stored_vin: Option<String>,
    pub(super) subscriptions: Subscriptions,
    /// The events since the first subscription of events.
    pub(super) events: Option<broadcast::Receiver<(EventKind, i64)>>,
    pub(super) dialect: Dialect,
}

/// The limits of a gateway in front of the cloud: it closes a websocket after its lifetime, whatever happens on it, and
/// when its client says nothing for too long.
struct Gateway {
    limits: SocketLimits,
    opened: Instant,
    spoken: Instant,
}

impl Gateway {
    fn new(limits: SocketLimits) -> Self {
        Self { limits, opened: Instant::now(), spoken: Instant::now() }
    }

    /// A Pong only answers the cloud.
    fn note(&mut self, message: &Message) {
        if !matches!(message, Message::Pong(_)) {
            self.spoken = Instant::now();
        }
    }

    fn deadline(&self) -> Instant {
        /// Stands for no limit: longer than any process runs.
        const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
        let end = self.limits.lifetime.unwrap_or(NEVER);
        let idle = self.limits.idle.unwrap_or(NEVER);
        (self.opened + end).min(self.spoken + idle)
    }
}

/// Serves a socket until it ends.
pub(super) async fn drive(app: App, subject: Subject, token: Arc<str>, socket: WebSocket, dialect: Dialect) {
    let (sink, mut stream) = socket.split();
    let (outbox, writer) = Outbox::new();
    let writing = app.tasks.spawn(writer.drive_write(sink));
    let mut changes = app.hub.changes();
    let shutdown = app.shutdown.clone();
    let mut gateway = Gateway::new(app.socket_limits);
    let mut peer = Peer::new(app, (subject, token), outbox.clone(), dialect);
    let mut ticks = tokio::time::interval(UPDATES);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tick_count = 0_u32;
    let mut last_received = Instant::now();
    let silence = tokio::time::sleep_until(last_received + CONNECTOR_SILENCE);
    tokio::pin!(silence);
    let limit = tokio::time::sleep_until(gateway.deadline());
    tokio::pin!(limit);
    // created once, so that relayed messages do not pay for them
    let (closed, ending) = (outbox.closed(), shutdown.cancelled());
    tokio::pin!(closed, ending);

    loop {
        tokio::select! {
            biased;
            () = &mut closed => break,
            () = &mut ending => {
                outbox.close(Closing::GoingAway);
                break;
            }
            () = &mut limit => {
                if Instant::now() >= gateway.deadline() {
                    outbox.close(Closing::GoingAway);
                    break;
                }
                limit.as_mut().reset(gateway.deadline());
            }
            () = &mut silence => {
                let Some(deadline) = peer.silence_deadline(last_received) else {
                    tracing::info!(subject = peer.subject.id, "a websocket sent nothing for too long");
                    outbox.close(Closing::Dead);
                    break;
                };
                silence.as_mut().reset(deadline);
            }
            event = next_event(&mut peer.events) => peer.handle_event(event),
            change = changes.recv(), if !peer.subscriptions.is_empty() => peer.handle_change(change),
            _ = ticks.tick() => {
                tick_count = tick_count.wrapping_add(1);
                peer.handle_tick(tick_count.is_multiple_of(TICKS_PER_PING));
            }
            // last, so that a flood of messages cannot starve the others
            received = stream.next() => {
                last_received = Instant::now();
                let Some(message) = peer.read(received) else { break };
                gateway.note(&message);
                tokio::select! {
                    biased;
                    () = &mut closed => break,
                    () = peer.handle_message(message) => {}
                }
            }
        }
    }
    peer.handle_end();
    // this also ends the writer
    outbox.close(Closing::Dead);
    let _ = writing.await;
}

impl Peer {
    pub(super) fn new(
        app: App,
        (subject, token): (Subject, Arc<str>),
        outbox: Outbox,
        dialect: Dialect,
    ) -> Self {
        let subscriptions = Subscriptions::default();
        let (connector, stored_vin, events) = (None, None, None);
        Self { app, subject, token, outbox, connector, stored_vin, subscriptions, events, dialect }
    }

    /// When to look again whether a peer that sends nothing more is dead; `None` if it is dead now.
    fn silence_deadline(&self, last_received: Instant) -> Option<Instant> {
        let allowed = match self.connector {
            Some(connector_id) if self.app.hub.has_open_connection(connector_id) => CONNECTOR_SILENCE,
            Some(_) => IDLE_CONNECTOR_SILENCE,
            None => CLIENT_SILENCE,
        };
        // a connection may be opened in the meantime
        let look_again = (last_received + allowed).min(Instant::now() + CONNECTOR_SILENCE);
        (last_received.elapsed() < allowed).then_some(look_again)
    }

    /// The message that was received. After a failure to read, closes the socket. The library has no error of its own for
    /// a message that is too long.
    fn read(&self, received: Option<Result<Message, axum::Error>>) -> Option<Message> {
        match received? {
            Ok(message) => Some(message),
            Err(error) => {
                let is_too_long = error.to_string().contains("too long");
                self.outbox.close(if is_too_long { Closing::TooLong } else { Closing::Dead });
                None
            }
        }
    }

    async fn handle_message(&mut self, message: Message) {
        match message {
            Message::Binary(bytes) => self.relay_binary(bytes).await,
            Message::Text(text) if text.as_str().len() > MAX_TEXT => {
                let detail = format!("A text message has at most {MAX_TEXT} bytes.");
                self.refuse(ProblemKind::TooLong.problem(detail).into(), None);
            }
            Message::Text(text) => self.handle_text(text.as_str()).await,
            // the websocket answers pings itself, and the stream ends after a close
            Message::Ping(_) | Message::Pong(_) | Message::Close(_) => {}
        }
    }

    /// Relays a binary message without parsing it: the two sockets determine the destination. A message
    /// without destination is discarded; resuming the connection repairs that.
    async fn relay_binary(&self, bytes: Bytes) {
        let target = match self.connector {
            Some(connector_id) => self.app.hub.route_to_operator(connector_id, self.outbox.id()),
            None => self.app.hub.route_to_connector(self.outbox.id(), &bytes),
        };
        if let Some(target) = target {
            target.send(Message::Binary(bytes)).await;
        }
    }

    async fn handle_text(&mut self, text: &str) {
        let envelope = match self.dialect {
            Dialect::Relay => serde_json::from_str(text),
            Dialect::Documented => flat(text),
        };
        let envelope: Envelope = match envelope {
            Ok(envelope) => envelope,
            Err(error) => {
                let detail = format!("The text is not {}: {error}.", self.dialect.form());
                return self.refuse(ProblemKind::Malformed.problem(detail).into(), None);
            }
        };
        let (action, request_id) = (envelope.action.clone(), envelope.request_id.clone());
        let handled = match self.dialect {
            Dialect::Documented if !Subscriptions::knows_of(&action, self.subject.role) => {
                Err(unknown_action(&action).into())
            }
            // the vendor's subscriptions are not part of the relay
            _ if Subscriptions::knows(&action) => self.handle_subscription(envelope),
            _ => self.handle_envelope(envelope).await.map_err(ApiError::from),
        };
        if let Err(error) = handled {
            tracing::debug!(subject = self.subject.id, action, ?error, "refused");
            let quoted: String = action.chars().take(MAX_QUOTED).collect();
            self.refuse(error.answering(&quoted), request_id);
        }
    }

    /// Sends an error.
    fn refuse(&self, error: ApiError, request_id: Option<String>) {
        let envelope = Envelope::new(self.dialect.error_action(), &error.contents());
        self.outbox.push(&envelope.in_reply_to(request_id));
    }

    async fn handle_envelope(&mut self, envelope: Envelope) -> Result<(), Problem> {
        match envelope.action.as_str() {
            "connectorHello" => self.handle_hello(envelope).await,
            "connectorStatusUpdate" => self.handle_status(envelope).await,
            "callForAttention" => self.handle_call_for_attention(envelope).await,
            "joinConnection" => self.handle_join(envelope),
            "openConnection" => {
                let detail = "Connections are opened by the cloud, when a ticket is joined.";
                Err(ProblemKind::Forbidden.problem(detail))
            }
            _ => match (self.connector, self.subject.role) {
                (Some(connector_id), _) => self.handle_connector_reply(connector_id, envelope).await,
                (None, Role::Operator) => self.handle_operator_request(envelope).await,
                (None, Role::Connector | Role::Customer) => Err(unknown_action(&envelope.action)),
            },
        }
    }

    fn handle_change(&mut self, change: Result<Changed, broadcast::error::RecvError>) {
        match change {
            Ok(change) => self.send_updates(Some(change)),
            Err(broadcast::error::RecvError::Lagged(_)) => self.send_updates(None),
            Err(broadcast::error::RecvError::Closed) => {}
        }
    }

    fn handle_tick(&mut self, ping: bool) {
        if let Some(connector_id) = self.connector {
            self.app.hub.expire_requests(connector_id);
        } else if ping {
            self.outbox.offer(Message::Ping(Bytes::new()));
        }
        self.send_updates(None);
    }

    fn handle_end(&mut self) {
        if let Some(connector_id) = self.connector {
            tracing::info!(connector_id, "connector offline");
            self.app.hub.connector_gone(connector_id, self.outbox.id());
        }
        self.app.hub.operator_gone(self.outbox.id());
    }
}

/// The next event; none comes without a subscription.
async fn next_event(
    events: &mut Option<broadcast::Receiver<(EventKind, i64)>>,
) -> Result<(EventKind, i64), broadcast::error::RecvError> {
    match events {
        Some(events) => events.recv().await,
        None => std::future::pending().await,
    }
}

/// The contents of a message.
pub(super) fn parse<T: DeserializeOwned>(message: &Value) -> Result<T, Problem> {
    T::deserialize(message).map_err(|error| ProblemKind::Violations.problem(error.to_string()))
}

/// An internal error as a problem; the log has its reason.
pub(super) fn internal(error: StoreError) -> Problem {
    tracing::error!(error = &error as &dyn std::error::Error, "internal error in a message");
    ProblemKind::Internal.problem("The sandbox failed to handle the message; its log has the reason.")
}
