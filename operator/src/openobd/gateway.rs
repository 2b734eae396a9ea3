//! What the services share: the registry of sessions, and the sessions' connections to vehicles.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use connector_agent::relay::wire::rfc3339;
use serde_json::json;
use tokio::sync::watch;
use tonic::Status;
use tonic::metadata::MetadataMap;
use uuid::Uuid;

use super::broker::Broker;
use super::mapping::ChannelFields;
use super::proto::configured_channel::ChannelDefinition;
use super::proto::{BusConfiguration, Result as Outcome, ServiceResult};
use super::registry::{Info, Registry, State};
use super::tokens::Place;
use super::ui::Ui;
use crate::client::{Channel, Connection, Credentials, LinkState, Operator, OperatorError, Ticket};

/// The name under which the gateway joins tickets.
const OPERATOR_ID: &str = "openobd-gateway";
/// How long closing a connection may take: a few round trips of a slow network. The connector closes it by itself later.
const CLOSING: Duration = Duration::from_secs(5);
/// How often the registry looks for abandoned sessions. Tokens live for minutes.
const SWEEP: Duration = Duration::from_secs(5);

/// How many tickets the gateway remembers with their connectors.
const MAX_CONNECTORS: usize = 1000;

/// The UUID and the number of a connector.
type ConnectorNames = (Option<Uuid>, Option<String>);

/// How the gateway reaches the cloud, and what it does at the end of a session.
#[derive(Debug, Clone)]
pub struct OpenobdSettings {
    /// The base URL of the REST API.
    pub api_url: String,
    /// The URL of the websocket.
    pub websocket_url: String,
    /// The root certificates to trust; by default, those that web browsers trust.
    pub ca_file: Option<PathBuf>,
    /// Whether a session that finishes with success completes its ticket.
    pub complete_tickets: bool,
    /// Whether the connector's button answers the controls that ask a mechanic to continue.
    pub button: bool,
}

/// A session with its connection to the vehicle.
pub(super) struct Live {
    pub(super) id: Uuid,
    pub(super) operator: Operator,
    pub(super) ticket: Ticket,
    pub(super) connection: Connection,
    pub(super) since: SystemTime,
    /// The configured buses. Locked while the connector configures others.
    pub(super) buses: tokio::sync::Mutex<Vec<BusConfiguration>>,
    /// Counts the configurations: each one closes the channels of the one before.
    pub(super) configurations: watch::Sender<u64>,
    channels: Mutex<BTreeMap<u16, ChannelDefinition>>,
    /// Locked while a control waits for the connector's button: one press answers one control.
    pub(super) button: tokio::sync::Mutex<()>,
    ended: watch::Sender<Option<State>>,
}

impl Live {
    fn channels(&self) -> MutexGuard<'_, BTreeMap<u16, ChannelDefinition>> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a channel.
    pub(super) async fn open(
        &self,
        (kind, fields): ChannelFields,
        definition: Option<ChannelDefinition>,
    ) -> Result<Channel, OperatorError> {
        let open = self.connection.open_channel(|open| {
            open.other.insert(kind.to_owned(), fields);
        });
        let channel = open.await?;
        if let Some(definition) = definition {
            self.channels().insert(channel.number(), definition);
        }
        Ok(channel)
    }

    /// Closes a channel.
    pub(super) async fn close(&self, channel: Channel) {
        self.channels().remove(&channel.number());
        if let Err(error) = self.connection.close_channel(channel).await {
            tracing::debug!(%error, "a channel was not closed");
        }
    }

    /// Forgets the channels, which the connector closes when other buses are configured.
    pub(super) fn forget_channels(&self) {
        self.channels().clear();
    }

    /// The open channels, as they were configured.
    pub(super) fn open_channels(&self) -> Vec<ChannelDefinition> {
        self.channels().values().cloned().collect()
    }

    /// Waits until the session is over. The error is for streams; after `finish` they end without one.
    pub(super) async fn over(&self) -> Result<(), Status> {
        let mut ended = self.ended.subscribe();
        let state = ended.wait_for(Option::is_some).await.ok().and_then(|state| *state);
        match state {
            Some(State::Finished) => Ok(()),
            Some(State::Failed) => match &*self.connection.state().borrow() {
                LinkState::Closed(reason) => Err(reason.clone().into()),
                _ => Err(Status::unavailable("the connection to the vehicle has ended")),
            },
            _ => Err(Status::aborted("the session was interrupted")),
        }
    }

    async fn disconnect(&self) {
        let message = json!({"connection_uuid": self.connection.uuid()});
        let closing = self.connection.ask("closeConnection", message);
        match tokio::time::timeout(CLOSING, closing).await {
            Ok(Ok(_) | Err(OperatorError::Closed(_))) => {}
            Ok(Err(error)) => tracing::warn!(%error, "the connection was not closed"),
            Err(_) => tracing::warn!("the connector did not close the connection within {CLOSING:?}"),
        }
    }
}

/// What all services share.
pub(super) struct Gateway {
    pub(super) settings: OpenobdSettings,
    registry: Mutex<Registry>,
    live: Mutex<HashMap<Uuid, Arc<Live>>>,
    operators: Mutex<HashMap<String, Operator>>,
    starting: Mutex<HashSet<Uuid>>,
    /// The connectors of joined tickets, by ticket: the cloud names them in pending tickets only.
    connectors: Mutex<HashMap<String, ConnectorNames>>,
    /// Notified when a context or a session ends.
    pub(super) changed: watch::Sender<()>,
    pub(super) broker: Broker,
    pub(super) ui: Ui,
}

/// Keeps a connection from being opened twice.
struct Starting<'a> {
    gateway: &'a Gateway,
    connection: Uuid,
}

impl Drop for Starting<'_> {
    fn drop(&mut self) {
        lock(&self.gateway.starting).remove(&self.connection);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A text that cannot be guessed: 244 random bits.
fn random_token() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// The token of a call. Empty if there is none.
pub(super) fn bearer(metadata: &MetadataMap) -> &str {
    let value = metadata.get("authorization").and_then(|value| value.to_str().ok());
    value.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or_default().trim()
}

impl Gateway {
    pub(super) fn new(settings: OpenobdSettings, ui: Ui) -> Arc<Self> {
        let gateway = Arc::new(Self {
            settings,
            registry: Mutex::new(Registry::new(random_token)),
            live: Mutex::default(),
            operators: Mutex::default(),
            starting: Mutex::default(),
            connectors: Mutex::default(),
            changed: watch::Sender::new(()),
            broker: Broker::default(),
            ui,
        });
        let weak = Arc::downgrade(&gateway);
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(gateway) = weak.upgrade() else { return };
                let abandoned = gateway.registry().handle_timeout(Instant::now());
                for id in abandoned {
                    tracing::warn!(session = %id, "no client uses the session any more");
                    gateway.leave(id, State::Interrupted).await;
                }
            }
        });
        gateway
    }

    pub(super) fn registry(&self) -> MutexGuard<'_, Registry> {
        lock(&self.registry)
    }

    /// Checks a partner's credentials at the cloud.
    pub(super) async fn log_in(&self, client_id: String, client_secret: String) -> Result<String, Status> {
        if client_id.is_empty() || client_secret.is_empty() {
            return Err(Status::unauthenticated("the client id or the client secret is empty"));
        }
        let settings = &self.settings;
        let credentials = Credentials { client_id: client_id.clone(), client_secret };
        let operator = Operator::login(
            &settings.api_url,
            &settings.websocket_url,
            settings.ca_file.as_deref(),
            credentials,
        );
        let operator = operator.await?;
        lock(&self.operators).insert(client_id.clone(), operator);
        Ok(client_id)
    }

    /// Starts a session on the ticket that `is_meant` finds.
    pub(super) async fn start(
        self: &Arc<Self>,
        partner: &str,
        what: &str,
        is_meant: impl Fn(&Ticket) -> bool,
    ) -> Result<(Info, String), Status> {
        let operator = lock(&self.operators).get(partner).cloned();
        let operator = operator.ok_or_else(|| Status::unauthenticated("the partner is not logged in"))?;
        let ticket = self.joined_ticket(&operator, what, is_meant).await?;
        let connection = ticket.connection().ok_or_else(|| {
            Status::failed_precondition(format!(
                "{what} has no connection; check that the cloud relays connections"
            ))
        })?;
        let busy = || Status::failed_precondition(format!("another session is just starting on {what}"));
        if !lock(&self.starting).insert(connection) {
            return Err(busy());
        }
        let _starting = Starting { gateway: self, connection };
        let other = self.registry().on_connection(connection);
        match other {
            Some((id, true)) => {
                let sentence = format!("session {id} is active on {what}; finish or interrupt it first");
                return Err(Status::failed_precondition(sentence));
            }
            Some((id, false)) => drop(self.end(id, State::Interrupted).await),
            None => {}
        }
        let connection = operator.connect(connection).await?;
        self.register(partner, operator, ticket, connection)
    }

    fn register(
        self: &Arc<Self>,
        partner: &str,
        operator: Operator,
        ticket: Ticket,
        connection: Connection,
    ) -> Result<(Info, String), Status> {
        let (id, since) = (Uuid::new_v4(), SystemTime::now());
        let started =
            self.registry().start(Instant::now(), id, partner, connection.uuid(), rfc3339(since))?;
        let live = Arc::new(Live {
            id,
            operator,
            ticket,
            connection,
            since,
            buses: tokio::sync::Mutex::default(),
            configurations: watch::Sender::new(0),
            channels: Mutex::default(),
            button: tokio::sync::Mutex::default(),
            ended: watch::Sender::new(None),
        });
        lock(&self.live).insert(id, Arc::clone(&live));
        let gateway = Arc::clone(self);
        tokio::spawn(async move {
            let mut state = live.connection.state();
            let closed = async {
                let _gone = state.wait_for(|state| matches!(state, LinkState::Closed(_))).await;
            };
            tokio::select! {
                _ = live.over() => {}
                () = closed => drop(gateway.end(id, State::Failed).await),
            }
        });
        Ok(started)
    }

    /// The running session of a session token.
    pub(super) fn enter(&self, metadata: &MetadataMap) -> Result<Arc<Live>, Status> {
        let place = self.registry().enter(Instant::now(), bearer(metadata))?;
        self.live(place)
    }

    /// The running session of a session token, or of an authentication token that has not been used.
    pub(super) fn enter_unauthenticated(&self, metadata: &MetadataMap) -> Result<Arc<Live>, Status> {
        let place = self.registry().enter_unauthenticated(Instant::now(), bearer(metadata))?;
        self.live(place)
    }

    fn live(&self, place: Place) -> Result<Arc<Live>, Status> {
        let live = lock(&self.live).get(&place.session).cloned();
        live.ok_or_else(|| Status::failed_precondition("the session is over"))
    }

    /// Ends a running session. Returns whether it was running.
    pub(super) async fn end(&self, id: Uuid, state: State) -> bool {
        let was_running = self.registry().end(Instant::now(), id, state);
        if was_running {
            self.leave(id, state).await;
        }
        was_running
    }

    /// Ends the streams of a session that is over, and closes its connection.
    async fn leave(&self, id: Uuid, state: State) {
        let live = lock(&self.live).remove(&id);
        self.notify();
        if let Some(live) = live {
            live.ended.send_replace(Some(state));
            if state != State::Failed {
                live.disconnect().await;
            }
            tracing::info!(session = %id, state = state.name(), "the session is over");
        }
    }

    /// Closes the connection of a session that `finish` has ended; completes the ticket, if that is wanted.
    pub(super) async fn finish(&self, id: Uuid, result: &ServiceResult) -> Result<(), Status> {
        let live = lock(&self.live).get(&id).cloned();
        self.leave(id, State::Finished).await;
        let is_success =
            !result.result.is_empty() && result.result.iter().all(|one| *one == Outcome::Success as i32);
        match live {
            Some(live) if self.settings.complete_tickets && is_success => {
                Ok(live.operator.complete(&live.ticket.id).await?)
            }
            _ => Ok(()),
        }
    }

    /// Notifies those who wait for the end of a context.
    pub(super) fn notify(&self) {
        self.changed.send_replace(());
    }

    /// Interrupts all sessions.
    pub(super) async fn shut_down(&self) {
        let sessions: Vec<Uuid> = lock(&self.live).keys().copied().collect();
        let ending = sessions.into_iter().map(|id| self.end(id, State::Interrupted));
        futures_util::future::join_all(ending).await;
    }

    fn remember(&self, ticket: &str, names: ConnectorNames) {
        let mut connectors = lock(&self.connectors);
        if connectors.len() >= MAX_CONNECTORS {
            connectors.clear();
        }
        connectors.insert(ticket.to_owned(), names);
    }

    /// The ticket in progress, or else the pending one, which is joined.
    async fn joined_ticket(
        &self,
        operator: &Operator,
        what: &str,
        is_meant: impl Fn(&Ticket) -> bool,
    ) -> Result<Ticket, Status> {
        let named = |ticket: Ticket| match lock(&self.connectors).get(&ticket.id).cloned() {
            Some((connector_uuid, connector_id)) => Ticket { connector_uuid, connector_id, ..ticket },
            None => ticket,
        };
        let in_progress = operator.in_progress_tickets().await?.into_iter().map(named);
        if let Some(ticket) = in_progress.into_iter().find(&is_meant) {
            // the documented list leaves the products out
            return Ok(operator.ticket(&ticket.id).await.unwrap_or(ticket));
        }
        let pending = operator.pending_tickets().await?.into_iter().find(&is_meant);
        let pending = pending
            .ok_or_else(|| Status::not_found(format!("there is no {what} that is pending or in progress")))?;
        let joined = operator.join(&pending.id, OPERATOR_ID).await?;
        self.remember(&joined.id, (pending.connector_uuid, pending.connector_id));
        Ok(operator.ticket(&joined.id).await.unwrap_or(joined))
    }
}
