//! An operator comes to a connection, comes back to it, or goes.

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::Envelope;
use serde_json::{Value, json};
use uuid::Uuid;

use super::outbox::LinkId;
use super::relay::{Join, Relay, Stage, connector_offline, unknown_connection};
use super::{Asker, Hub, State};

/// Joins that may wait for one connection to open.
const MAX_JOINS: usize = 16;
/// Connections that one operator's link may have joined.
const MAX_JOINED: usize = 64;

/// 409: what the operator wants to go on with is gone.
fn connection_lost() -> Problem {
    let detail = "The connector did not keep the connection: join without \"received\" and begin again.";
    Problem::new(409, "connection-lost", "Connection lost", detail)
}

/// What has to happen before a join is answered.
enum Step {
    /// Nothing: it has joined already.
    Again,
    /// Nothing: the connection is open and unused.
    Attach,
    /// The connection goes on where this operator lost it.
    Resume(u32),
    /// The connector is away; it goes on when both are back.
    AttachInterrupted,
    /// The connection has to be opened.
    Open,
    /// It is being opened or closed: wait.
    Wait,
    /// It is open with sequence numbers that this operator does not know: close it and open it again.
    Restart,
    /// It cannot be.
    Refuse(Problem),
}

fn step(relay: &Relay, join: &Join) -> Step {
    let begun = join.received.is_some_and(|received| received > 0);
    match relay.stage {
        Stage::Open if !relay.used => {
            if begun {
                Step::Refuse(connection_lost())
            } else {
                Step::Attach
            }
        }
        Stage::Open => match join.received {
            Some(received) => Step::Resume(received),
            None if relay.is_operated_by(join.outbox.id()) => Step::Again,
            None => Step::Restart,
        },
        Stage::Interrupted if relay.used && join.received.is_some() => Step::AttachInterrupted,
        Stage::Interrupted => Step::Refuse(connector_offline()),
        Stage::Idle | Stage::Opening | Stage::Closing if begun => Step::Refuse(connection_lost()),
        Stage::Idle => Step::Open,
        Stage::Opening | Stage::Closing => Step::Wait,
    }
}

impl Hub {
    /// Joins an operator to a connection, or tells it why not; the answer may come later, when the connector's has.
    pub(crate) fn join(&self, uuid: Uuid, join: Join) {
        let mut state = self.state();
        let Some(relay) = state.relays.get_mut(&uuid) else { return join.refuse(&unknown_connection()) };
        if relay.plan.operator != join.operator {
            let detail = "The ticket was joined by another operator.";
            return join.refuse(&Problem::new(403, "forbidden", "Forbidden", detail));
        }
        match step(relay, &join) {
            Step::Again => state.answer_join(uuid, &join),
            Step::Attach => state.attach(uuid, &join, true),
            Step::AttachInterrupted => state.attach(uuid, &join, false),
            Step::Resume(received) => {
                let connector_id = relay.plan.connector_id;
                let message = json!({"connection_uuid": uuid, "received": received});
                let asker = Asker::Rejoin { connection: uuid, link: join.outbox.id() };
                match state.ask(connector_id, "resumeConnection", message, asker) {
                    Ok(()) => state.attach(uuid, &join, false),
                    Err(problem) => join.refuse(&problem),
                }
            }
            Step::Open => {
                relay.joins.push(join);
                state.open(uuid);
            }
            Step::Wait => {
                relay.reopen |= relay.stage == Stage::Closing;
                relay.joins.retain(|waiting| waiting.outbox.id() != join.outbox.id());
                if relay.joins.len() >= MAX_JOINS {
                    let detail = "Too many operators wait for this connection.";
                    return join.refuse(&Problem::new(429, "too-many-requests", "Too many requests", detail));
                }
                relay.joins.push(join);
            }
            Step::Restart => {
                let connector_id = relay.plan.connector_id;
                state.lose(uuid, "closed");
                if let Some(relay) = state.relays.get_mut(&uuid) {
                    relay.reopen = true;
                    relay.joins.push(join);
                }
                state.set_stage(uuid, Stage::Closing);
                state.close_at_connector(connector_id, uuid, Asker::Close(uuid));
            }
            Step::Refuse(problem) => join.refuse(&problem),
        }
    }

    /// An operator's link has ended: its connections are held for it.
    pub(crate) fn operator_gone(&self, link: LinkId) {
        let mut state = self.state();
        for uuid in state.joined.remove(&link).unwrap_or_default() {
            let Some(relay) = state.relays.get_mut(&uuid).filter(|relay| relay.is_operated_by(link)) else {
                continue;
            };
            relay.operator = None;
            relay.shut_gates();
            state.arm_deadline(uuid);
        }
        for relay in state.relays.values_mut() {
            relay.joins.retain(|join| join.outbox.id() != link);
        }
    }
}

impl State {
    /// Makes this link the connection's operator; `open` when there is nothing to resume first.
    fn attach(&mut self, uuid: Uuid, join: &Join, open: bool) {
        let link = join.outbox.id();
        if self.joined.get(&link).is_some_and(|joined| joined.len() >= MAX_JOINED && !joined.contains(&uuid))
        {
            let detail = format!("A link may join {MAX_JOINED} connections.");
            return join.refuse(&Problem::new(429, "too-many-requests", "Too many requests", detail));
        }
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        if let Some(displaced) = relay.operator.take().filter(|operator| operator.id() != link) {
            let message = json!({"connection_uuid": uuid, "reason": "closed"});
            displaced.push(&Envelope::new("connectionClosed", &message));
            self.leave(displaced.id(), uuid);
        }
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.operator = Some(join.outbox.clone());
        relay.used = true;
        if open {
            relay.open_gates();
        } else {
            relay.shut_gates();
        }
        let joined = self.joined.entry(link).or_default();
        if !joined.contains(&uuid) {
            joined.push(uuid);
        }
        self.arm_deadline(uuid);
        self.answer_join(uuid, join);
    }

    fn answer_join(&self, uuid: Uuid, join: &Join) {
        let Some(relay) = self.relays.get(&uuid) else { return };
        let connector_id = relay.plan.connector_id;
        let mut connector = join.connector.clone();
        if let (Some(connector), Some(link)) = (connector.as_object_mut(), self.links.get(&connector_id)) {
            connector.insert("buses".to_owned(), Value::from(link.buses.clone()));
        }
        let known = self.status.get(&connector_id).and_then(|status| status.vin_number.clone());
        let message = json!({
            "connection_uuid": uuid,
            "vin_number": relay.vin_number.clone().or(known),
            "connector": connector,
        });
        join.outbox.push(&Envelope::new("connectionJoined", &message).in_reply_to(join.request_id.clone()));
    }

    /// The connection is open: the last who asked has it.
    pub(super) fn opened(&mut self, uuid: Uuid, vin_number: Option<String>) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.vin_number = vin_number;
        relay.used = false;
        relay.reopen = false;
        let mut joins = std::mem::take(&mut relay.joins);
        self.set_stage(uuid, Stage::Open);
        let last = joins.pop();
        for join in joins {
            let detail = "Another link joined the connection meanwhile.";
            join.refuse(&Problem::new(409, "joined-elsewhere", "Joined elsewhere", detail));
        }
        if let Some(join) = last {
            self.attach(uuid, &join, true);
        }
    }

    /// The connector did not open it.
    pub(super) fn refused(&mut self, uuid: Uuid, problem: &Problem) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        tracing::info!(connection = %uuid, problem = %problem, "the connector refused the connection");
        relay.eager = false;
        relay.reopen = false;
        relay.refuse_joins(problem);
        self.set_stage(uuid, Stage::Idle);
    }

    /// The connector has closed it.
    pub(super) fn closed(&mut self, uuid: Uuid) {
        self.set_stage(uuid, Stage::Idle);
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        if std::mem::take(&mut relay.reopen) {
            self.open(uuid);
        }
    }

    /// The link is no longer joined to the connection.
    pub(super) fn leave(&mut self, link: LinkId, uuid: Uuid) {
        if let Some(joined) = self.joined.get_mut(&link) {
            joined.retain(|joined| *joined != uuid);
            if joined.is_empty() {
                self.joined.remove(&link);
            }
        }
    }

    /// The same for a connection that has been taken out.
    pub(super) fn forget_joined(&mut self, relay: &Relay) {
        if let Some(operator) = &relay.operator {
            self.leave(operator.id(), relay.uuid());
        }
    }
}
