//! Routes messages between operators and connectors.

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde_json::Value;
use uuid::Uuid;

use super::outbox::{LinkId, Outbox};
use super::pending::{Asked, Asker};
use super::relay::{Relay, RelayStage, connector_offline, unknown_connection};
use super::state::{Hub, HubState};

/// The position of a binary message's tag (relay protocol, section 4): the first bytes of the connection's
/// UUID.
const TAG: std::ops::Range<usize> = 4..8;

/// A text message to another socket. The caller waits for room there.
pub(crate) struct Forward {
    /// The destination.
    pub(crate) outbox: Outbox,
    /// The message.
    pub(crate) envelope: Envelope,
}

/// Whether operators may send this request of section 3, and if so, whether the request has to name its
/// connection.
fn forwarded(action: &str) -> Option<bool> {
    match action {
        "configureBuses" | "openChannel" | "closeChannel" | "resumeConnection" | "closeConnection"
        | "scanEcus" | "requestConsent" | "muteLocals" | "unmuteLocals" | "getConfiguration"
        | "connectionQuality" => Some(true),
        "identifyVehicle" | "dismissCallForAttention" => Some(false),
        _ => None,
    }
}

/// The action is unknown.
pub(crate) fn unknown_action(action: &str) -> Problem {
    let shown: String = action.chars().take(64).collect();
    ProblemKind::UnknownAction.problem(format!("There is no action \"{shown}\" here."))
}

/// The problem in a connector's error message.
pub(crate) fn problem_of(message: Value) -> Problem {
    serde_json::from_value(message)
        .unwrap_or_else(|_| ProblemKind::BadAnswer.problem("The connector's answer cannot be understood."))
}

/// The connection that a message names.
fn named_connection(message: &Value) -> Option<Uuid> {
    message.get("connection_uuid")?.as_str()?.parse().ok()
}

impl Hub {
    /// Routes an operator's request to the connector. The request gets an id of the cloud.
    pub(crate) fn operator_request(
        &self,
        operator: &Outbox,
        mut envelope: Envelope,
    ) -> Result<Forward, Problem> {
        let by_name = forwarded(&envelope.action).ok_or_else(|| unknown_action(&envelope.action))?;
        let mut state = self.state();
        let uuid = match named_connection(&envelope.message) {
            Some(uuid) => uuid,
            None if by_name || envelope.message.get("connection_uuid").is_some() => {
                let detail = "connection_uuid must be the UUID of a connection.";
                return Err(ProblemKind::Violations.problem(detail));
            }
            None => match state.joined.get(&operator.id()).map(Vec::as_slice) {
                Some([only]) => *only,
                _ => {
                    let detail = "Name one of the joined connections by connection_uuid.";
                    return Err(ProblemKind::NotJoined.problem(detail));
                }
            },
        };
        let relay = state.relays.get_mut(&uuid).ok_or_else(unknown_connection)?;
        if !relay.is_operated_by(operator.id()) {
            return Err(ProblemKind::NotJoined.problem("Join the connection before using it."));
        }
        match relay.stage {
            RelayStage::Open => {}
            RelayStage::Interrupted => return Err(connector_offline()),
            RelayStage::Idle | RelayStage::Opening | RelayStage::Closing => return Err(unknown_connection()),
        }
        if envelope.action == "resumeConnection" {
            if envelope.request_id.is_none() {
                let detail = "Without a request_id, the reply would look like the notice.";
                return Err(ProblemKind::Violations.problem(detail));
            }
            // the messages that follow on this link are those that the connector lacks
            relay.to_connector = true;
        }
        let connector_id = relay.plan.connector_id;
        let asker = Asker::Operator {
            outbox: operator.clone(),
            request_id: envelope.request_id.take(),
            connection: Some(uuid),
        };
        envelope.request_id = Some(state.note_request(connector_id, &envelope.action, asker)?);
        let outbox =
            state.links.get(&connector_id).map(|link| link.outbox.clone()).ok_or_else(connector_offline)?;
        Ok(Forward { outbox, envelope })
    }

    /// Handles a connector's reply or unsolicited `connectionClosed`. Returns the message to forward, if
    /// any.
    pub(crate) fn connector_message(
        &self,
        connector_id: i64,
        link: LinkId,
        envelope: Envelope,
    ) -> Result<Option<Forward>, Problem> {
        let mut state = self.state();
        let Some(current) = state.links.get_mut(&connector_id).filter(|current| current.outbox.id() == link)
        else {
            return Ok(None);
        };
        if let Some(asked) = envelope.request_id.as_ref().and_then(|id| current.asked.remove(id)) {
            return Ok(state.handle_reply(connector_id, asked, envelope));
        }
        match envelope.action.as_str() {
            "connectionClosed" => {
                let reason = envelope.message.get("reason").and_then(Value::as_str).unwrap_or("closed");
                if let Some(uuid) = named_connection(&envelope.message) {
                    state.closed_unasked(connector_id, uuid, reason);
                }
                Ok(None)
            }
            "policyState" => Ok(state.operator_of(connector_id).map(|outbox| Forward { outbox, envelope })),
            // a connector of the first version does not know the notices
            "error" if answers_notice(&envelope.message) => Ok(None),
            // an error about something that has no request, such as a binary message
            "error" if envelope.request_id.is_none() => {
                Ok(state.operator_of(connector_id).map(|outbox| Forward { outbox, envelope }))
            }
            // a late answer, or one without a request
            _ if envelope.request_id.is_some() || envelope.action == "error" => {
                tracing::debug!(
                    connector_id,
                    action = envelope.action,
                    "ignoring an answer without a request"
                );
                Ok(None)
            }
            action => Err(unknown_action(action)),
        }
    }

    /// The destination of an operator's binary message; `None` if the message could not be used.
    pub(crate) fn route_to_connector(&self, operator: LinkId, message: &[u8]) -> Option<Outbox> {
        let state = self.state();
        let joined = state.joined.get(&operator)?;
        let uuid = match joined.as_slice() {
            [only] => only,
            several => several.iter().find(|uuid| uuid.as_bytes().get(..4) == message.get(TAG))?,
        };
        let relay = state.relays.get(uuid)?;
        if !relay.to_connector || relay.stage != RelayStage::Open {
            return None;
        }
        Some(state.links.get(&relay.plan.connector_id)?.outbox.clone())
    }

    /// The destination of a connector's binary message; `None` if the message could not be used.
    pub(crate) fn route_to_operator(&self, connector_id: i64, link: LinkId) -> Option<Outbox> {
        let state = self.state();
        let link = state.links.get(&connector_id).filter(|current| current.outbox.id() == link)?;
        let relay = state.relays.get(&link.open?)?;
        relay.operator.clone().filter(|_| relay.to_operator)
    }
}

impl HubState {
    /// Answers a request with an error instead of a reply.
    pub(super) fn handle_failure(&mut self, connector_id: i64, asked: Asked, problem: Problem) {
        if let Some(forward) = self.handle_reply(connector_id, asked, Envelope::error(&problem, None)) {
            forward.outbox.push(&forward.envelope);
        }
    }

    fn handle_reply(&mut self, connector_id: i64, asked: Asked, envelope: Envelope) -> Option<Forward> {
        match asked.asker {
            Asker::Operator { outbox, request_id, connection } => {
                if let Some(uuid) = connection {
                    self.note_operator_reply(uuid, &envelope);
                }
                Some(Forward { outbox, envelope: envelope.in_reply_to(request_id) })
            }
            Asker::Open(uuid) => {
                self.handle_opened(connector_id, uuid, &envelope);
                None
            }
            // an error means that the connection was not open, so it counts as closed
            Asker::Close(uuid) => {
                if self.relays.get(&uuid).is_some_and(|relay| relay.stage == RelayStage::Closing) {
                    self.closed(uuid);
                }
                None
            }
            Asker::Rejoin { connection, link } => {
                let relay = self.relays.get_mut(&connection).filter(|relay| relay.is_operated_by(link))?;
                if envelope.action == "connectionResumed" {
                    relay.open_gates();
                    relay.notify_operator("connectionResumed", envelope.message);
                } else {
                    self.lose(connection, "link-lost");
                    // the connector may still have the connection, with numbers that no operator can continue
                    self.close_for(connector_id, connection);
                }
                None
            }
            Asker::Handler(sender) => {
                // the handler may be gone
                let _ = sender.send(envelope);
                None
            }
            Asker::Ignored => None,
        }
    }

    fn handle_opened(&mut self, connector_id: i64, uuid: Uuid, envelope: &Envelope) {
        if self.relays.get(&uuid).is_none_or(|relay| relay.stage != RelayStage::Opening) {
            return;
        }
        if envelope.action == "connectionOpened" {
            let vin = envelope.message.get("vin_number").and_then(Value::as_str).map(str::to_owned);
            tracing::info!(connector_id, connection = %uuid, "connection open");
            let policy = envelope.message.get("policy").cloned().unwrap_or_default();
            return self.opened(uuid, vin, policy);
        }
        self.refused(uuid, &problem_of(envelope.message.clone()));
    }

    /// Updates the connection's state after a reply to the operator.
    fn note_operator_reply(&mut self, uuid: Uuid, reply: &Envelope) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        match reply.action.as_str() {
            "connectionResumed" => relay.open_gates(),
            "connectionClosed" => {
                // the reply itself notifies the operator
                relay.shut_gates();
                relay.eager = false;
                if let Some(operator) = relay.operator.take() {
                    self.leave(operator.id(), uuid);
                }
                self.set_stage(uuid, RelayStage::Idle);
            }
            _ => {}
        }
    }

    /// The link of the operator who has joined the connector's open connection.
    fn operator_of(&self, connector_id: i64) -> Option<Outbox> {
        let relay = self.relays.values().find(|relay| {
            relay.plan.connector_id == connector_id
                && relay.stage == RelayStage::Open
                && relay.operator.is_some()
        })?;
        relay.operator.clone()
    }

    fn closed_unasked(&mut self, connector_id: i64, uuid: Uuid, reason: &str) {
        let own = |relay: &&mut Relay| relay.plan.connector_id == connector_id;
        let Some(relay) = self.relays.get_mut(&uuid).filter(own) else { return };
        match relay.stage {
            RelayStage::Open | RelayStage::Interrupted => {
                tracing::info!(connection = %uuid, reason, "the connector closed the connection");
                let detail = format!("The connector closed the connection: {reason}.");
                relay.refuse_joins(&ProblemKind::ConnectionClosed.problem(detail));
                self.lose(uuid, reason);
            }
            // the connection is being opened again: the message is about the one before
            RelayStage::Idle | RelayStage::Opening | RelayStage::Closing => {}
        }
    }
}

/// Whether a connector's error is about a notice of the cloud.
fn answers_notice(problem: &Value) -> bool {
    let action = problem.get("in_reply_to").and_then(Value::as_str);
    action.is_some_and(|action| matches!(action, "operatorJoined" | "operatorLeft"))
}
