//! The hub's state, and the operations of the other parts of the cloud on it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde_json::Value;
use tokio::sync::{broadcast, oneshot};
use uuid::Uuid;

use super::connector::{ConnectorLink, Status};
use super::outbox::{LinkId, Outbox};
use super::pending::Asker;
use super::relay::{Relay, RelayPlan, RelayStage, connector_offline, unknown_connection};

/// A change that subscribers receive immediately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// The connector with this number.
    Connector(i64),
    /// The ticket with this number.
    Ticket(i64),
    /// A client triggered a ping on this channel.
    Control(Uuid),
    /// Something happened to the ticket with this number.
    Event(EventKind, i64),
}

/// What happened to a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum EventKind {
    /// A customer created the ticket.
    Created,
    /// An operator joined the ticket.
    Joined,
    /// The ticket went to another provider.
    Outsourced,
    /// The ticket was completed.
    Closed,
    /// The ticket was cancelled.
    Cancelled,
}

/// The number of changes that a slow subscriber may lag behind before it receives all updates again.
const CHANGES: usize = 256;
/// The number of events that a subscriber may lag behind before it has lost one: some seconds of a busy cloud.
const EVENTS: usize = 1024;
/// Limit for the connector's answer to a request of the REST API.
const ANSWER: Duration = Duration::from_secs(30);

/// The state of all links and connections.
pub(super) struct HubState {
    pub(super) links: HashMap<i64, ConnectorLink>,
    pub(super) status: HashMap<i64, Status>,
    pub(super) relays: HashMap<Uuid, Relay>,
    /// The connections that each operator's link has joined.
    pub(super) joined: HashMap<LinkId, Vec<Uuid>>,
    /// How many clients watch a connector, by its number.
    pub(super) watchers: HashMap<i64, usize>,
    pub(super) next_request: u64,
    pub(super) hold: Duration,
    pub(super) changes: broadcast::Sender<Changed>,
    pub(super) hub: Weak<Hub>,
}

/// The meeting point of the websockets.
pub(crate) struct Hub {
    state: Mutex<HubState>,
    changes: broadcast::Sender<Changed>,
    /// Apart from the changes, because a lost change comes again, and an event does not.
    events: broadcast::Sender<(EventKind, i64)>,
}

impl Hub {
    /// Creates a hub that holds connections for `hold` when a link is lost.
    pub(crate) fn new(hold: Duration) -> Arc<Self> {
        let (changes, _) = broadcast::channel(CHANGES);
        Arc::new_cyclic(|hub| Self {
            state: Mutex::new(HubState {
                links: HashMap::new(),
                status: HashMap::new(),
                relays: HashMap::new(),
                joined: HashMap::new(),
                watchers: HashMap::new(),
                next_request: 0,
                hold,
                changes: changes.clone(),
                hub: hub.clone(),
            }),
            changes,
            events: broadcast::Sender::new(EVENTS),
        })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, HubState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Receives changes from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Notifies subscribers of a change.
    pub(crate) fn changed(&self, what: Changed) {
        // there may be no subscriber
        let _ = match what {
            Changed::Event(kind, ticket) => self.events.send((kind, ticket)).map_err(drop),
            change => self.changes.send(change).map_err(drop),
        };
    }

    /// Receives events from now on.
    pub(crate) fn events(&self) -> broadcast::Receiver<(EventKind, i64)> {
        self.events.subscribe()
    }

    /// Whether the connector has a link.
    pub(crate) fn is_online(&self, connector_id: i64) -> bool {
        self.state().links.contains_key(&connector_id)
    }

    /// The connector's last status, while it is online.
    pub(crate) fn status(&self, connector_id: i64) -> Option<Status> {
        self.state().status.get(&connector_id).cloned()
    }

    /// The connection's stage, and the VIN with which it was opened.
    pub(crate) fn stage(&self, connection: Uuid) -> Option<(RelayStage, Option<String>)> {
        let state = self.state();
        let relay = state.relays.get(&connection)?;
        Some((relay.stage, relay.vin_number.clone()))
    }

    /// Begins the connection of a ticket in progress: opens it now or when the connector comes online.
    pub(crate) fn begin(&self, plan: RelayPlan) {
        let mut state = self.state();
        let uuid = plan.connection_uuid;
        state.relays.insert(uuid, Relay::new(plan));
        state.open(uuid);
    }

    /// Restores the connection of a ticket that was in progress when the cloud stopped. Its connector may
    /// still hold the connection.
    pub(crate) fn restore(&self, plan: RelayPlan) {
        let mut state = self.state();
        let uuid = plan.connection_uuid;
        state.relays.insert(uuid, Relay::restored(plan));
        state.arm_deadline(uuid);
    }

    /// Closes the connection of a ticket that is no longer in progress.
    pub(crate) fn end(&self, connection: Uuid) {
        let mut state = self.state();
        let Some(mut relay) = state.relays.remove(&connection) else { return };
        relay.refuse_joins(&unknown_connection());
        relay.notify_operator("connectionClosed", serde_json::json!({"reason": "closed"}));
        state.leave_removed(&relay);
        if relay.stage != RelayStage::Idle {
            state.close_at_connector(relay.plan.connector_id, connection, Asker::Ignored);
        }
    }

    /// Sends a request to a connector, and waits for the reply.
    pub(crate) async fn ask(
        &self,
        connector_id: i64,
        action: &str,
        message: Value,
    ) -> Result<Envelope, Problem> {
        let (sender, receiver) = oneshot::channel();
        self.state().ask(connector_id, action, message, Asker::Handler(sender))?;
        match tokio::time::timeout(ANSWER, receiver).await {
            Ok(Ok(envelope)) => Ok(envelope),
            Ok(Err(_)) => Err(connector_offline()),
            Err(_) => Err(ProblemKind::Timeout.problem("The connector did not answer in time.")),
        }
    }

    /// Whether a connection is open on the connector's link.
    pub(crate) fn has_open_connection(&self, connector_id: i64) -> bool {
        self.state().links.get(&connector_id).is_some_and(|link| link.open.is_some())
    }

    /// Sends a message to a connector, and ignores the reply. Returns whether the connector is online.
    pub(crate) fn notify(&self, connector_id: i64, action: &str, message: Value) -> bool {
        self.state().ask(connector_id, action, message, Asker::Ignored).is_ok()
    }

    /// The sockets of the connector, and of the operator who has joined the connection.
    pub(crate) fn sockets(&self, connector_id: i64, connection: Option<Uuid>) -> Vec<Outbox> {
        let state = self.state();
        let connector = state.links.get(&connector_id).map(|link| link.outbox.clone());
        let relay = connection.and_then(|connection| state.relays.get(&connection));
        connector.into_iter().chain(relay.and_then(|relay| relay.operator.clone())).collect()
    }
}
