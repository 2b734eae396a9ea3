//! Which message goes to whom.

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::Envelope;
use serde_json::Value;
use uuid::Uuid;

use super::outbox::{LinkId, Outbox};
use super::relay::{Stage, connector_offline, unknown_connection};
use super::{Asked, Asker, Hub, State};

/// Where a binary message's tag is (relay protocol, section 4): the first bytes of the connection's UUID.
const TAG: std::ops::Range<usize> = 4..8;

/// A text message on its way to another socket; the caller waits for room there.
pub(crate) struct Forward {
    /// Where to.
    pub(crate) outbox: Outbox,
    /// What.
    pub(crate) envelope: Envelope,
}

/// The requests of section 3 that an operator may make, and whether they are about a connection by name.
fn forwarded(action: &str) -> Option<bool> {
    match action {
        "configureBuses" | "openChannel" | "closeChannel" | "resumeConnection" | "closeConnection"
        | "scanEcus" => Some(true),
        "identifyVehicle" | "dismissCallForAttention" => Some(false),
        _ => None,
    }
}

/// 400: nobody knows this action.
pub(crate) fn unknown_action(action: &str) -> Problem {
    let shown: String = action.chars().take(64).collect();
    Problem::new(400, "unknown-action", "Unknown action", format!("There is no action \"{shown}\" here."))
}

/// The connection that a message names.
fn named_connection(message: &Value) -> Option<Uuid> {
    message.get("connection_uuid")?.as_str()?.parse().ok()
}

impl Hub {
    /// An operator's request: where it goes, under an id of the cloud's own.
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
                return Err(Problem::new(400, "violations", "The request has invalid fields", detail));
            }
            None => match state.joined.get(&operator.id()).map(Vec::as_slice) {
                Some([only]) => *only,
                _ => {
                    let detail = "Name one of the joined connections by connection_uuid.";
                    return Err(Problem::new(409, "not-joined", "Not joined", detail));
                }
            },
        };
        let relay = state.relays.get_mut(&uuid).ok_or_else(unknown_connection)?;
        if !relay.is_operated_by(operator.id()) {
            let detail = "Join the connection before using it.";
            return Err(Problem::new(403, "not-joined", "Not joined", detail));
        }
        match relay.stage {
            Stage::Open => {}
            Stage::Interrupted => return Err(connector_offline()),
            Stage::Idle | Stage::Opening | Stage::Closing => return Err(unknown_connection()),
        }
        if envelope.action == "resumeConnection" {
            // what follows on this link is what the connector lacks
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

    /// A connector's reply, or a `connectionClosed` nobody asked for: what has to be passed on.
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
            // about something that has no request, such as a binary message
            "error" if envelope.request_id.is_none() => {
                Ok(state.operator_of(connector_id).map(|outbox| Forward { outbox, envelope }))
            }
            // a late answer, or one to what the cloud never asked
            _ if envelope.request_id.is_some() || envelope.action == "error" => {
                tracing::debug!(connector_id, action = envelope.action, "an answer that nobody waits for");
                Ok(None)
            }
            action => Err(unknown_action(action)),
        }
    }

    /// Where an operator's binary message goes: nowhere, when nobody could use it.
    pub(crate) fn route_to_connector(&self, operator: LinkId, message: &[u8]) -> Option<Outbox> {
        let state = self.state();
        let joined = state.joined.get(&operator)?;
        let uuid = match joined.as_slice() {
            [only] => only,
            several => several.iter().find(|uuid| uuid.as_bytes().get(..4) == message.get(TAG))?,
        };
        let relay = state.relays.get(uuid)?;
        if !relay.to_connector || relay.stage != Stage::Open {
            return None;
        }
        Some(state.links.get(&relay.plan.connector_id)?.outbox.clone())
    }

    /// Where a connector's binary message goes: nowhere, when nobody could use it.
    pub(crate) fn route_to_operator(&self, connector_id: i64, link: LinkId) -> Option<Outbox> {
        let state = self.state();
        let link = state.links.get(&connector_id).filter(|current| current.outbox.id() == link)?;
        let relay = state.relays.get(&link.open?)?;
        relay.operator.clone().filter(|_| relay.to_operator)
    }
}

impl State {
    /// A request will get no answer; this is said instead.
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
            // an error means that it was not open: closed all the same
            Asker::Close(uuid) => {
                if self.relays.get(&uuid).is_some_and(|relay| relay.stage == Stage::Closing) {
                    self.closed(uuid);
                }
                None
            }
            Asker::Rejoin { connection, link } => {
                let relay = self.relays.get_mut(&connection).filter(|relay| relay.is_operated_by(link))?;
                if envelope.action == "connectionResumed" {
                    relay.open_gates();
                    relay.tell_operator("connectionResumed", envelope.message);
                } else {
                    self.lose(connection, "link-lost");
                }
                None
            }
            Asker::Handler(sender) => {
                // a handler that has gone away needs no answer
                let _ = sender.send(envelope);
                None
            }
            Asker::Nobody => None,
        }
    }

    fn handle_opened(&mut self, connector_id: i64, uuid: Uuid, envelope: &Envelope) {
        if self.relays.get(&uuid).is_none_or(|relay| relay.stage != Stage::Opening) {
            return;
        }
        if envelope.action == "connectionOpened" {
            let vin = envelope.message.get("vin_number").and_then(Value::as_str).map(str::to_owned);
            tracing::info!(connector_id, connection = %uuid, "connection open");
            return self.opened(uuid, vin);
        }
        let problem = serde_json::from_value(envelope.message.clone()).unwrap_or_else(|_| {
            Problem::new(502, "bad-answer", "Bad answer", "The connector's answer cannot be understood.")
        });
        self.refused(uuid, &problem);
    }

    /// What a reply to the operator means for the connection.
    fn note_operator_reply(&mut self, uuid: Uuid, reply: &Envelope) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        match reply.action.as_str() {
            "connectionResumed" => relay.open_gates(),
            "connectionClosed" => {
                // the reply itself says it to the operator
                relay.shut_gates();
                relay.eager = false;
                if let Some(operator) = relay.operator.take() {
                    self.leave(operator.id(), uuid);
                }
                self.set_stage(uuid, Stage::Idle);
            }
            _ => {}
        }
    }

    /// The operator who is joined to the connector's open connection.
    fn operator_of(&self, connector_id: i64) -> Option<Outbox> {
        let relay = self.relays.values().find(|relay| {
            relay.plan.connector_id == connector_id && relay.stage == Stage::Open && relay.operator.is_some()
        })?;
        relay.operator.clone()
    }

    fn closed_unasked(&mut self, connector_id: i64, uuid: Uuid, reason: &str) {
        let own = |relay: &&mut super::relay::Relay| relay.plan.connector_id == connector_id;
        let Some(relay) = self.relays.get_mut(&uuid).filter(own) else { return };
        match relay.stage {
            Stage::Open | Stage::Interrupted => {
                tracing::info!(connection = %uuid, reason, "the connector closed the connection");
                let detail = format!("The connector closed the connection: {reason}.");
                relay.refuse_joins(&Problem::new(409, "connection-closed", "Connection closed", detail));
                self.lose(uuid, reason);
            }
            // being opened again, this is word of the one before
            Stage::Idle | Stage::Opening | Stage::Closing => {}
        }
    }
}
