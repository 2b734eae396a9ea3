//! One connection between an operator and a connector, as the cloud manages it.

use std::sync::Arc;
use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::protocol::vin::Vin;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::outbox::{LinkId, Outbox};
use crate::cloud::random;
use crate::cloud::store::Ticket;

/// The length of an opening's identifier, in random bytes: enough that none is repeated.
const OPENING_BYTES: usize = 9;

/// The part of a ticket in progress that the relay needs.
#[derive(Debug, Clone)]
pub(crate) struct RelayPlan {
    /// The connection's UUID.
    pub(crate) connection_uuid: Uuid,
    /// The ticket's number.
    pub(crate) ticket_id: i64,
    /// The connector's number.
    pub(crate) connector_id: i64,
    /// The VIN of the ticket's vehicle.
    pub(crate) vin: Option<Vin>,
    /// The login that may join.
    pub(crate) operator: String,
    /// Whether the ticket confirms unattended service.
    pub(crate) unattended: bool,
}

impl RelayPlan {
    /// The relay's plan for a ticket in progress.
    pub(crate) fn of(ticket: &Ticket) -> Option<Self> {
        Some(Self {
            connection_uuid: ticket.connection_uuid?,
            ticket_id: ticket.id,
            connector_id: ticket.connector_id,
            vin: ticket.vin.as_deref().and_then(|vin| vin.parse().ok()),
            operator: ticket.operator.clone()?,
            unattended: ticket.confirmed_unattended_service.unwrap_or_default(),
        })
    }
}

/// The stage of a connection at the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RelayStage {
    /// Not open.
    Idle,
    /// `openConnection` has been sent.
    Opening,
    /// Open.
    Open,
    /// The connection was open when the connector's link was lost; the connector may still hold it.
    Interrupted,
    /// `closeConnection` has been sent.
    Closing,
}

impl RelayStage {
    /// The stage's name for portal clients.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Opening => "opening",
            Self::Open => "open",
            Self::Interrupted => "interrupted",
            Self::Closing => "closing",
        }
    }
}

/// A `joinConnection` without an answer so far.
pub(crate) struct Join {
    /// The operator's link.
    pub(crate) outbox: Outbox,
    /// The operator's login.
    pub(crate) operator: String,
    /// The request's id, for the answer.
    pub(crate) request_id: Option<String>,
    /// The access token of the operator's link.
    pub(crate) token: Arc<str>,
    /// The highest sequence number that the operator has received, if it joined before.
    pub(crate) received: Option<u32>,
    /// The opening to which `received` belongs, as the cloud's answer to the earlier join named it.
    pub(crate) opening: Option<String>,
    /// Whether the operator takes the connection over from another one.
    pub(crate) take_over: bool,
    /// The connector's record, for the answer.
    pub(crate) connector: Value,
}

impl Join {
    /// Answers the join with an error.
    pub(crate) fn refuse(&self, problem: &Problem) {
        let problem = problem.clone().answering("joinConnection");
        self.outbox.push(&Envelope::error(&problem, self.request_id.clone()));
    }
}

/// A connection.
pub(crate) struct Relay {
    pub(crate) plan: RelayPlan,
    pub(crate) stage: RelayStage,
    /// The VIN that the connector reported when it opened the connection.
    pub(crate) vin_number: Option<String>,
    /// The policy that the connector reported when it opened the connection.
    pub(crate) policy: Value,
    /// Whether an operator has joined since the connection was opened, so that sequence numbers have begun.
    pub(crate) used: bool,
    /// Identifies the present opening of the connection, once an operator has joined it.
    pub(crate) opening: Option<String>,
    /// Whether an operator had joined an earlier opening, and may still come back for it.
    pub(crate) reopened: bool,
    /// The access token with which the operator joined the present opening.
    pub(crate) joined_with: Option<Arc<str>>,
    /// Whether to open the connection as soon as the connector is online, without a join.
    pub(crate) eager: bool,
    /// Whether to open the connection again when it has been closed.
    pub(crate) reopen: bool,
    /// The operator's link, while an operator has joined.
    pub(crate) operator: Option<Outbox>,
    /// Whether binary messages pass to the connector. They do not pass between a lost link and the
    /// resumption, because the connector would discard messages after a gap.
    pub(crate) to_connector: bool,
    /// Whether binary messages pass to the operator.
    pub(crate) to_operator: bool,
    /// Joins that wait for the connector.
    pub(crate) joins: Vec<Join>,
    /// Increases with each deadline, to distinguish current deadlines from void ones.
    pub(crate) generation: u64,
}

impl Relay {
    /// A connection that was never open.
    pub(crate) fn new(plan: RelayPlan) -> Self {
        Self {
            plan,
            stage: RelayStage::Idle,
            vin_number: None,
            policy: Value::Null,
            used: false,
            opening: None,
            reopened: false,
            joined_with: None,
            eager: true,
            reopen: false,
            operator: None,
            to_connector: false,
            to_operator: false,
            joins: Vec::new(),
            generation: 0,
        }
    }

    /// A connection that the connector may still hold since an earlier run of the cloud.
    pub(crate) fn restored(plan: RelayPlan) -> Self {
        Self { stage: RelayStage::Interrupted, used: true, ..Self::new(plan) }
    }

    /// The connection's UUID.
    pub(crate) fn uuid(&self) -> Uuid {
        self.plan.connection_uuid
    }

    /// Sends a message about the connection to the operator, if one has joined.
    pub(crate) fn notify_operator(&self, action: &str, mut message: Value) {
        if let Some(operator) = &self.operator {
            if let Some(message) = message.as_object_mut() {
                message.insert("connection_uuid".to_owned(), json!(self.uuid()));
            }
            operator.push(&Envelope::new(action, &message));
        }
    }

    /// Stops binary messages until the connection is resumed.
    pub(crate) fn shut_gates(&mut self) {
        self.to_connector = false;
        self.to_operator = false;
    }

    /// Lets binary messages pass in both directions.
    pub(crate) fn open_gates(&mut self) {
        self.to_connector = true;
        self.to_operator = true;
    }

    /// Refuses every waiting join.
    pub(crate) fn refuse_joins(&mut self, problem: &Problem) {
        for join in self.joins.drain(..) {
            join.refuse(problem);
        }
    }

    /// Whether an operator has joined, or waits, through another link.
    pub(crate) fn is_taken_by_other(&self, link: LinkId) -> bool {
        let waiting = self.joins.iter().map(|join| join.outbox.id());
        self.operator.iter().map(Outbox::id).chain(waiting).any(|other| other != link)
    }

    /// Whether the operator has joined through this link.
    pub(crate) fn is_operated_by(&self, link: LinkId) -> bool {
        self.operator.as_ref().is_some_and(|operator| operator.id() == link)
    }

    /// Begins another opening, with sequence numbers that start again.
    pub(crate) fn begin_opening(&mut self) {
        self.reopened |= self.used;
        self.used = false;
        self.opening = None;
        self.joined_with = None;
    }

    /// Makes the operator of this join the one of the present opening.
    pub(crate) fn set_operator(&mut self, join: &Join) {
        self.operator = Some(join.outbox.clone());
        self.used = true;
        self.joined_with = Some(Arc::clone(&join.token));
        // an opening of which the cloud does not know is one of its earlier run
        let named = || {
            join.opening
                .clone()
                .filter(|_| join.received.is_some())
                .unwrap_or_else(|| random::token(OPENING_BYTES))
        };
        self.opening.get_or_insert_with(named);
    }

    /// Whether the join continues the present opening, where an earlier link of the operator ended.
    ///
    /// An operator that does not name the opening is recognised by its token, if there were several openings.
    pub(crate) fn is_continued_by(&self, join: &Join) -> bool {
        let is_open = matches!(self.stage, RelayStage::Open | RelayStage::Interrupted) && self.used;
        let is_known = match (&join.opening, &self.opening) {
            (Some(named), Some(opening)) => named == opening,
            // the cloud has restarted since
            (Some(_), None) => true,
            (None, _) => !self.reopened || self.joined_with.as_ref() == Some(&join.token),
        };
        join.received.is_some() && is_open && is_known
    }

    /// The message of `openConnection`.
    pub(crate) fn open_message(&self, hold: Duration) -> Value {
        let mut message = json!({
            "connection_uuid": self.uuid(),
            "ticket_id": self.plan.ticket_id,
            "hold_seconds": hold.as_secs(),
        });
        if let (Some(vin), Some(message)) = (&self.plan.vin, message.as_object_mut()) {
            message.insert("vin".to_owned(), json!(vin));
        }
        if let (true, Some(message)) = (self.plan.unattended, message.as_object_mut()) {
            message.insert("unattended".to_owned(), json!(true));
        }
        message
    }
}

/// The connector is offline.
pub(crate) fn connector_offline() -> Problem {
    ProblemKind::ConnectorOffline.problem("The connector is not connected to the cloud.")
}

/// The connection does not exist, or no longer.
pub(crate) fn unknown_connection() -> Problem {
    ProblemKind::UnknownConnection.problem("No ticket in progress has this connection.")
}
