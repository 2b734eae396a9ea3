//! Where the websockets meet: which connectors are online, and the connections between them and operators.
//!
//! Everything here happens under one short lock and never waits; what must wait for room in a socket's queue is handed
//! back to the caller, who waits in its own task. So no connection holds up another.

mod deadline;
mod joining;
mod link;
mod outbox;
mod relay;
mod route;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::Envelope;
use serde_json::Value;
use tokio::sync::{broadcast, oneshot};
use tokio::time::Instant;
use uuid::Uuid;

pub(crate) use link::{Hello, Status};
pub(crate) use outbox::{Closing, LinkId, Outbox};
pub(crate) use relay::{Join, RelayPlan, Stage, connector_offline, unknown_connection};
pub(crate) use route::unknown_action;

use link::ConnectorLink;
use relay::Relay;

/// What a subscriber may want to hear of at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Changed {
    /// The connector with this number.
    Connector(i64),
    /// The ticket with this number.
    Ticket(i64),
    /// Somebody triggered a ping on this channel.
    Control(Uuid),
}

/// Changes that a slow subscriber may be behind before it is told everything again.
const CHANGES: usize = 256;
/// How long the connector may take for a request of the REST API.
const ANSWER: Duration = Duration::from_secs(30);

/// Who waits for the connector's reply.
enum Asker {
    /// An operator's request was forwarded.
    Operator { outbox: Outbox, request_id: Option<String>, connection: Option<Uuid> },
    /// The cloud is opening a connection.
    Open(Uuid),
    /// The cloud is closing one.
    Close(Uuid),
    /// An operator rejoined, and its `received` was passed on.
    Rejoin { connection: Uuid, link: LinkId },
    /// A REST handler.
    Handler(oneshot::Sender<Envelope>),
    /// Nobody.
    Nobody,
}

/// A request that the connector has not answered.
struct Asked {
    asker: Asker,
    action: String,
    since: Instant,
}

/// All live state.
struct State {
    links: HashMap<i64, ConnectorLink>,
    status: HashMap<i64, Status>,
    relays: HashMap<Uuid, Relay>,
    /// The connections that an operator's link has joined.
    joined: HashMap<LinkId, Vec<Uuid>>,
    next_request: u64,
    hold: Duration,
    changes: broadcast::Sender<Changed>,
    hub: Weak<Hub>,
}

/// The meeting point.
pub(crate) struct Hub {
    state: Mutex<State>,
    changes: broadcast::Sender<Changed>,
}

impl Hub {
    /// A hub that lets connections be held for `hold` when a link is lost.
    pub(crate) fn new(hold: Duration) -> Arc<Self> {
        let (changes, _) = broadcast::channel(CHANGES);
        Arc::new_cyclic(|hub| Self {
            state: Mutex::new(State {
                links: HashMap::new(),
                status: HashMap::new(),
                relays: HashMap::new(),
                joined: HashMap::new(),
                next_request: 0,
                hold,
                changes: changes.clone(),
                hub: hub.clone(),
            }),
            changes,
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of changes from now on.
    pub(crate) fn changes(&self) -> broadcast::Receiver<Changed> {
        self.changes.subscribe()
    }

    /// Tells subscribers that something changed.
    pub(crate) fn changed(&self, what: Changed) {
        // nobody listening is fine
        let _ = self.changes.send(what);
    }

    /// Whether the connector has a link.
    pub(crate) fn is_online(&self, connector_id: i64) -> bool {
        self.state().links.contains_key(&connector_id)
    }

    /// What the connector last said of itself, while it is online.
    pub(crate) fn status(&self, connector_id: i64) -> Option<Status> {
        self.state().status.get(&connector_id).cloned()
    }

    /// How far a connection is, and the VIN that it was opened with.
    pub(crate) fn stage(&self, connection: Uuid) -> Option<(Stage, Option<String>)> {
        let state = self.state();
        let relay = state.relays.get(&connection)?;
        Some((relay.stage, relay.vin_number.clone()))
    }

    /// A ticket is in progress: opens its connection when the connector is online, or when it comes.
    pub(crate) fn begin(&self, plan: RelayPlan) {
        let mut state = self.state();
        let uuid = plan.connection_uuid;
        state.relays.insert(uuid, Relay::new(plan));
        state.open(uuid);
    }

    /// A ticket was in progress when the cloud stopped: its connector may still hold the connection.
    pub(crate) fn restore(&self, plan: RelayPlan) {
        let mut state = self.state();
        let uuid = plan.connection_uuid;
        state.relays.insert(uuid, Relay::restored(plan));
        state.arm_deadline(uuid);
    }

    /// The ticket is not in progress any more: closes its connection.
    pub(crate) fn end(&self, connection: Uuid) {
        let mut state = self.state();
        let Some(mut relay) = state.relays.remove(&connection) else { return };
        relay.refuse_joins(&unknown_connection());
        relay.tell_operator("connectionClosed", serde_json::json!({"reason": "closed"}));
        state.forget_joined(&relay);
        if relay.stage != Stage::Idle {
            state.close_at_connector(relay.plan.connector_id, connection, Asker::Nobody);
        }
    }

    /// Asks a connector on behalf of a REST request, and waits for its reply.
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
            Err(_) => Err(Problem::new(504, "timeout", "No answer", "The connector did not answer in time.")),
        }
    }

    /// Tells a connector something whose reply nobody waits for; whether it is online.
    pub(crate) fn tell(&self, connector_id: i64, action: &str, message: Value) -> bool {
        self.state().ask(connector_id, action, message, Asker::Nobody).is_ok()
    }

    /// The sockets of a connector and of the operator joined to this connection.
    pub(crate) fn sockets(&self, connector_id: i64, connection: Option<Uuid>) -> Vec<Outbox> {
        let state = self.state();
        let connector = state.links.get(&connector_id).map(|link| link.outbox.clone());
        let relay = connection.and_then(|connection| state.relays.get(&connection));
        connector.into_iter().chain(relay.and_then(|relay| relay.operator.clone())).collect()
    }
}
