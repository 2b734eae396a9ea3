//! One connection between an operator and a connector, as the cloud keeps it.

use std::time::Duration;

use connector_agent::protocol::problem::Problem;
use connector_agent::protocol::vin::Vin;
use connector_agent::relay::wire::Envelope;
use serde_json::{Value, json};
use uuid::Uuid;

use super::outbox::{LinkId, Outbox};

/// What a ticket in progress asks of the relay.
#[derive(Debug, Clone)]
pub(crate) struct RelayPlan {
    /// The connection's UUID.
    pub(crate) connection_uuid: Uuid,
    /// The ticket's number.
    pub(crate) ticket_id: i64,
    /// The connector's number.
    pub(crate) connector_id: i64,
    /// The vehicle that the ticket is for.
    pub(crate) vin: Option<Vin>,
    /// Whose login may join.
    pub(crate) operator: String,
}

/// How far the connection is, at the connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Not open.
    Idle,
    /// `openConnection` is on its way.
    Opening,
    /// Open.
    Open,
    /// Open when the connector's link was lost; it may still hold it.
    Interrupted,
    /// `closeConnection` is on its way.
    Closing,
}

impl Stage {
    /// Its name for portal clients.
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

/// A `joinConnection` that has not been answered yet.
pub(crate) struct Join {
    /// Who asks.
    pub(crate) outbox: Outbox,
    /// Its login.
    pub(crate) operator: String,
    /// The request's id, for the answer.
    pub(crate) request_id: Option<String>,
    /// The highest sequence number that the operator has, if it was joined before.
    pub(crate) received: Option<u32>,
    /// The connector's record, for the answer.
    pub(crate) connector: Value,
}

impl Join {
    /// Answers with an error.
    pub(crate) fn refuse(&self, problem: &Problem) {
        let problem = problem.clone().answering("joinConnection");
        self.outbox.push(&Envelope::error(&problem, self.request_id.clone()));
    }
}

/// The connection.
pub(crate) struct Relay {
    pub(crate) plan: RelayPlan,
    pub(crate) stage: Stage,
    /// The VIN that the connector opened it with.
    pub(crate) vin_number: Option<String>,
    /// Whether an operator has been joined since it was opened: sequence numbers have begun.
    pub(crate) used: bool,
    /// Whether to open it as soon as the connector is there, without an operator asking.
    pub(crate) eager: bool,
    /// Whether to open it again when the closing is done.
    pub(crate) reopen: bool,
    /// The operator's link.
    pub(crate) operator: Option<Outbox>,
    /// Whether binary messages pass to the connector: not between a lost link and the resuming, because what follows
    /// a gap would only be thrown away there.
    pub(crate) to_connector: bool,
    /// The same toward the operator.
    pub(crate) to_operator: bool,
    /// Joins that wait for the connector.
    pub(crate) joins: Vec<Join>,
    /// Tells deadlines that are still meant from those that are not.
    pub(crate) generation: u64,
}

impl Relay {
    /// A connection that was never open.
    pub(crate) fn new(plan: RelayPlan) -> Self {
        Self {
            plan,
            stage: Stage::Idle,
            vin_number: None,
            used: false,
            eager: true,
            reopen: false,
            operator: None,
            to_connector: false,
            to_operator: false,
            joins: Vec::new(),
            generation: 0,
        }
    }

    /// A connection that the connector may still hold from before this process.
    pub(crate) fn restored(plan: RelayPlan) -> Self {
        Self { stage: Stage::Interrupted, used: true, ..Self::new(plan) }
    }

    /// Its UUID.
    pub(crate) fn uuid(&self) -> Uuid {
        self.plan.connection_uuid
    }

    /// Says something about the connection to the operator, if there is one.
    pub(crate) fn tell_operator(&self, action: &str, mut message: Value) {
        if let Some(operator) = &self.operator {
            if let Some(message) = message.as_object_mut() {
                message.insert("connection_uuid".to_owned(), json!(self.uuid()));
            }
            operator.push(&Envelope::new(action, &message));
        }
    }

    /// No binary message passes until the connection is resumed.
    pub(crate) fn shut_gates(&mut self) {
        self.to_connector = false;
        self.to_operator = false;
    }

    /// Binary messages pass both ways.
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

    /// Whether this link is the operator's.
    pub(crate) fn is_operated_by(&self, link: LinkId) -> bool {
        self.operator.as_ref().is_some_and(|operator| operator.id() == link)
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
        message
    }
}

/// 503: the connector is not there.
pub(crate) fn connector_offline() -> Problem {
    Problem::new(
        503,
        "connector-offline",
        "Connector offline",
        "The connector is not connected to the cloud.",
    )
}

/// 404: no such connection, or no longer.
pub(crate) fn unknown_connection() -> Problem {
    Problem::new(
        404,
        "unknown-connection",
        "Unknown connection",
        "No ticket in progress has this connection.",
    )
}
