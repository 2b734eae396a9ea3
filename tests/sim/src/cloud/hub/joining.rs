//! Operators join a connection, rejoin it, and leave.

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde_json::{Value, json};
use uuid::Uuid;

use super::outbox::LinkId;
use super::pending::Asker;
use super::relay::{Join, Relay, RelayStage, connector_offline, unknown_connection};
use super::state::{Hub, HubState};

/// Limit of the connections that one operator's link may join.
const MAX_JOINED: usize = 64;

/// The connection that the operator wants to resume no longer exists.
fn connection_lost() -> Problem {
    let detail = "The connector did not keep the connection: join without \"received\" and start again.";
    ProblemKind::ConnectionLost.problem(detail)
}

/// Another operator has joined the connection, or waits for it.
fn connection_in_use() -> Problem {
    ProblemKind::ConnectionInUse
        .problem("Another operator uses the connection: join with \"take_over\": true.")
}

/// The next step of a join.
enum JoinStep {
    /// Answer: this link has joined already.
    AlreadyJoined,
    /// Attach the operator: the connection is open and unused.
    Attach,
    /// Resume the connection where this operator lost it.
    Resume(u32),
    /// Attach the operator: the connector is offline, and the connection continues when both are back.
    AttachInterrupted,
    /// Open the connection.
    Open,
    /// Wait: the connection is being opened or closed.
    Wait,
    /// Close and open the connection again: its sequence numbers are unknown to this operator.
    Restart,
    /// Refuse the join.
    Refuse(Problem),
}

fn join_step(relay: &Relay, join: &Join) -> JoinStep {
    let continues = relay.is_continued_by(join);
    if relay.is_taken_by_other(join.outbox.id()) && !join.take_over && !continues {
        return JoinStep::Refuse(connection_in_use());
    }
    if join.received.is_some() && !continues && (relay.used || join.opening.is_some()) {
        return JoinStep::Refuse(connection_lost());
    }
    let begun = join.received.is_some_and(|received| received > 0);
    match relay.stage {
        RelayStage::Open if !relay.used => {
            if begun {
                JoinStep::Refuse(connection_lost())
            } else {
                JoinStep::Attach
            }
        }
        RelayStage::Open => match join.received {
            Some(received) => JoinStep::Resume(received),
            None if relay.is_operated_by(join.outbox.id()) => JoinStep::AlreadyJoined,
            None => JoinStep::Restart,
        },
        RelayStage::Interrupted if relay.used && join.received.is_some() => JoinStep::AttachInterrupted,
        RelayStage::Interrupted => JoinStep::Refuse(connector_offline()),
        RelayStage::Idle | RelayStage::Opening | RelayStage::Closing if begun => {
            JoinStep::Refuse(connection_lost())
        }
        RelayStage::Idle => JoinStep::Open,
        RelayStage::Opening | RelayStage::Closing => JoinStep::Wait,
    }
}

impl Hub {
    /// Joins an operator to a connection, or refuses. The answer may wait for the connector's.
    pub(crate) fn join(&self, uuid: Uuid, join: Join) {
        let mut state = self.state();
        let Some(relay) = state.relays.get_mut(&uuid) else { return join.refuse(&unknown_connection()) };
        if relay.plan.operator != join.operator {
            let detail = "The ticket was joined by another operator.";
            return join.refuse(&ProblemKind::Forbidden.problem(detail));
        }
        match join_step(relay, &join) {
            JoinStep::AlreadyJoined => state.answer_join(uuid, &join),
            JoinStep::Attach => state.attach(uuid, &join, true),
            JoinStep::AttachInterrupted => state.attach(uuid, &join, false),
            JoinStep::Resume(received) => {
                let connector_id = relay.plan.connector_id;
                state.notify_connector(uuid, "operatorJoined");
                let message = json!({"connection_uuid": uuid, "received": received});
                let asker = Asker::Rejoin { connection: uuid, link: join.outbox.id() };
                match state.ask(connector_id, "resumeConnection", message, asker) {
                    Ok(()) => state.attach(uuid, &join, false),
                    Err(problem) => join.refuse(&problem),
                }
            }
            JoinStep::Open => {
                relay.joins.push(join);
                state.open(uuid);
            }
            JoinStep::Wait => {
                relay.reopen |= relay.stage == RelayStage::Closing;
                relay.joins.retain(|waiting| waiting.outbox.id() != join.outbox.id());
                relay.refuse_joins(&connection_in_use());
                relay.joins.push(join);
            }
            JoinStep::Restart => {
                let connector_id = relay.plan.connector_id;
                state.displace(uuid, join.outbox.id());
                state.lose(uuid, "closed");
                if let Some(relay) = state.relays.get_mut(&uuid) {
                    relay.reopen = true;
                    relay.joins.push(join);
                }
                state.close_for(connector_id, uuid);
            }
            JoinStep::Refuse(problem) => join.refuse(&problem),
        }
    }

    /// Handles the end of an operator's link. Its connections are held for the operator.
    pub(crate) fn operator_gone(&self, link: LinkId) {
        let mut state = self.state();
        for uuid in state.joined.remove(&link).unwrap_or_default() {
            let Some(relay) = state.relays.get_mut(&uuid).filter(|relay| relay.is_operated_by(link)) else {
                continue;
            };
            relay.operator = None;
            relay.shut_gates();
            state.notify_connector(uuid, "operatorLeft");
            state.arm_deadline(uuid);
        }
        for relay in state.relays.values_mut() {
            relay.joins.retain(|join| join.outbox.id() != link);
        }
    }
}

impl HubState {
    /// Makes this link the connection's operator. With `open`, binary messages pass immediately, because
    /// nothing has to be resumed first.
    fn attach(&mut self, uuid: Uuid, join: &Join, open: bool) {
        let link = join.outbox.id();
        if self.joined.get(&link).is_some_and(|joined| joined.len() >= MAX_JOINED && !joined.contains(&uuid))
        {
            let detail = format!("A link may join {MAX_JOINED} connections.");
            return join.refuse(&ProblemKind::TooManyRequests.problem(detail));
        }
        self.displace(uuid, link);
        if open {
            self.notify_connector(uuid, "operatorJoined");
        }
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.set_operator(join);
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

    /// Takes the connection from an operator who has joined through another link than this one.
    fn displace(&mut self, uuid: Uuid, link: LinkId) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        if let Some(displaced) = relay.operator.take_if(|operator| operator.id() != link) {
            let message = json!({"connection_uuid": uuid});
            displaced.push(&Envelope::new("connectionTakenOver", &message));
            self.leave(displaced.id(), uuid);
        }
    }

    /// Notifies the connector, if it is online, that an operator joined or left the connection.
    fn notify_connector(&self, uuid: Uuid, action: &str) {
        let link = self.relays.get(&uuid).and_then(|relay| self.links.get(&relay.plan.connector_id));
        if let Some(link) = link {
            link.outbox.push(&Envelope::new(action, &json!({"connection_uuid": uuid})));
        }
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
            "opening": relay.opening,
            "vin_number": relay.vin_number.clone().or(known),
            "connector": connector,
            "policy": relay.policy,
        });
        join.outbox.push(&Envelope::new("connectionJoined", &message).in_reply_to(join.request_id.clone()));
    }

    /// Handles an opened connection: the waiting join gets it.
    pub(super) fn opened(&mut self, uuid: Uuid, vin_number: Option<String>, policy: Value) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.vin_number = vin_number;
        relay.policy = policy;
        relay.begin_opening();
        relay.reopen = false;
        let joins = std::mem::take(&mut relay.joins);
        self.set_stage(uuid, RelayStage::Open);
        // at most one, because each one that waits displaces the one before
        for join in joins {
            self.attach(uuid, &join, true);
        }
    }

    /// Handles the connector's refusal to open the connection.
    pub(super) fn refused(&mut self, uuid: Uuid, problem: &Problem) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        tracing::info!(connection = %uuid, problem = %problem, "the connector refused the connection");
        relay.eager = false;
        relay.reopen = false;
        relay.refuse_joins(problem);
        self.set_stage(uuid, RelayStage::Idle);
    }

    /// Handles a connection that the connector has closed.
    pub(super) fn closed(&mut self, uuid: Uuid) {
        self.set_stage(uuid, RelayStage::Idle);
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        if std::mem::take(&mut relay.reopen) {
            self.open(uuid);
        }
    }

    /// Removes the connection from those that the link has joined.
    pub(super) fn leave(&mut self, link: LinkId, uuid: Uuid) {
        if let Some(joined) = self.joined.get_mut(&link) {
            joined.retain(|joined| *joined != uuid);
            if joined.is_empty() {
                self.joined.remove(&link);
            }
        }
    }

    /// Removes a connection that has been taken out of the table from those that its operator has joined.
    pub(super) fn leave_removed(&mut self, relay: &Relay) {
        if let Some(operator) = &relay.operator {
            self.leave(operator.id(), relay.uuid());
        }
    }
}
