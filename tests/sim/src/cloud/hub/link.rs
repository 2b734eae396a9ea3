//! A connector's link: coming, going, what it says of itself, and asking it.

use std::collections::HashMap;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::Envelope;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::outbox::{Closing, LinkId, Outbox};
use super::relay::{Stage, connector_offline};
use super::{Asked, Asker, Changed, Hub, State};

/// Requests that one connector may owe answers to.
const MAX_ASKED: usize = 256;
/// A request that got no answer for this long gets none.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

/// `connectorHello`, as far as the cloud reads it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Hello {
    pub(crate) connector_uuid: Uuid,
    pub(crate) protocol: u32,
    #[serde(default)]
    pub(crate) agent_version: Option<String>,
    #[serde(default)]
    pub(crate) software_version: Option<i64>,
    #[serde(default)]
    pub(crate) hardware_version: Option<i64>,
    #[serde(default)]
    pub(crate) hardware_type: Option<String>,
    #[serde(default)]
    pub(crate) has_wifi: Option<bool>,
    #[serde(default)]
    pub(crate) supports_doip: Option<bool>,
    #[serde(default)]
    pub(crate) buses: Vec<Value>,
    #[serde(default)]
    pub(crate) connections: Vec<HeldConnection>,
}

/// A connection that a connector holds over a lost link.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HeldConnection {
    pub(crate) connection_uuid: Uuid,
    pub(crate) received: u32,
}

/// `connectorStatusUpdate`, as far as the cloud reads it.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Status {
    #[serde(default)]
    pub(crate) voltage: Option<f64>,
    #[serde(default)]
    pub(crate) vin_number: Option<String>,
    #[serde(default)]
    pub(crate) round_trip_time: Option<f64>,
    #[serde(default)]
    pub(crate) ignition: Option<bool>,
    #[serde(default)]
    pub(crate) connection_uuid: Option<Uuid>,
    #[serde(default)]
    pub(crate) buses: Vec<Value>,
}

/// An online connector.
pub(super) struct ConnectorLink {
    pub(super) outbox: Outbox,
    /// The buses that its hardware has.
    pub(super) buses: Vec<Value>,
    pub(super) asked: HashMap<String, Asked>,
    /// The connection that is open on it.
    pub(super) open: Option<Uuid>,
}

impl ConnectorLink {
    /// The link is gone: nobody gets an answer any more.
    fn fail_asked(self) {
        for (_, asked) in self.asked {
            if let Asker::Operator { outbox, request_id, .. } = asked.asker {
                outbox.push(&Envelope::error(&connector_offline().answering(&asked.action), request_id));
            }
        }
    }
}

impl Hub {
    /// A connector has said hello on a link of its own; an older link of it is closed.
    pub(crate) fn connector_here(&self, connector_id: i64, outbox: &Outbox, hello: Hello) {
        let mut state = self.state();
        if let Some(old) = state.links.remove(&connector_id) {
            // a second hello on the same link is a new beginning of that link
            if old.outbox.id() != outbox.id() {
                old.outbox.close(Closing::Replaced);
            }
            old.fail_asked();
            state.interrupt_relays(connector_id);
        }
        let link =
            ConnectorLink { outbox: outbox.clone(), buses: hello.buses, asked: HashMap::new(), open: None };
        state.links.insert(connector_id, link);
        state.status.insert(connector_id, Status::default());
        state.take_up_relays(connector_id, &hello.connections);
        drop(state);
        self.changed(Changed::Connector(connector_id));
    }

    /// A connector's link has ended.
    pub(crate) fn connector_gone(&self, connector_id: i64, link: LinkId) {
        let mut state = self.state();
        if state.links.get(&connector_id).is_none_or(|current| current.outbox.id() != link) {
            return;
        }
        if let Some(link) = state.links.remove(&connector_id) {
            link.fail_asked();
        }
        state.status.remove(&connector_id);
        state.interrupt_relays(connector_id);
        drop(state);
        self.changed(Changed::Connector(connector_id));
    }

    /// The connector's status; whether it is news worth telling at once.
    pub(crate) fn set_status(&self, connector_id: i64, link: LinkId, status: Status) -> bool {
        let mut state = self.state();
        if state.links.get(&connector_id).is_none_or(|current| current.outbox.id() != link) {
            return false;
        }
        let old = state.status.insert(connector_id, status.clone()).unwrap_or_default();
        old.vin_number != status.vin_number
            || old.ignition != status.ignition
            || old.connection_uuid != status.connection_uuid
    }

    /// Gives up on requests that the connector has left unanswered for too long.
    pub(crate) fn expire_requests(&self, connector_id: i64) {
        let mut state = self.state();
        let Some(link) = state.links.get_mut(&connector_id) else { return };
        let expired: Vec<Asked> = link
            .asked
            .extract_if(|_, asked| asked.since.elapsed() > PATIENCE)
            .map(|(_, asked)| asked)
            .collect();
        for asked in expired {
            let problem = Problem::new(504, "timeout", "No answer", "The connector did not answer in time.")
                .answering(&asked.action);
            state.handle_failure(connector_id, asked, problem);
        }
    }
}

impl State {
    /// Sends a request to a connector and notes who waits for the reply.
    pub(super) fn ask(
        &mut self,
        connector_id: i64,
        action: &str,
        message: Value,
        asker: Asker,
    ) -> Result<(), Problem> {
        let request_id = self.note_request(connector_id, action, asker)?;
        if let Some(link) = self.links.get(&connector_id) {
            link.outbox.push(&Envelope::new(action, &message).in_reply_to(Some(request_id)));
        }
        Ok(())
    }

    /// Notes who waits for a reply; gives the id under which the request goes out, which no other request has.
    pub(super) fn note_request(
        &mut self,
        connector_id: i64,
        action: &str,
        asker: Asker,
    ) -> Result<String, Problem> {
        let link = self.links.get_mut(&connector_id).ok_or_else(connector_offline)?;
        if link.asked.len() >= MAX_ASKED {
            let detail = format!("The connector owes {MAX_ASKED} answers already.");
            return Err(Problem::new(429, "too-many-requests", "Too many requests", detail));
        }
        self.next_request += 1;
        let request_id = format!("c{}", self.next_request);
        let asked = Asked { asker, action: action.to_owned(), since: Instant::now() };
        link.asked.insert(request_id.clone(), asked);
        Ok(request_id)
    }

    /// Has the connector open a connection, if it is online.
    pub(super) fn open(&mut self, uuid: Uuid) {
        let hold = self.hold;
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        let connector_id = relay.plan.connector_id;
        let message = relay.open_message(hold);
        match self.ask(connector_id, "openConnection", message, Asker::Open(uuid)) {
            Ok(()) => self.set_stage(uuid, Stage::Opening),
            Err(problem) => {
                self.set_stage(uuid, Stage::Idle);
                if let Some(relay) = self.relays.get_mut(&uuid) {
                    relay.refuse_joins(&problem);
                }
            }
        }
    }

    /// Has the connector close a connection, if it is online; else it learns of it when it comes back.
    pub(super) fn close_at_connector(&mut self, connector_id: i64, uuid: Uuid, asker: Asker) {
        // offline: its next hello names the connection, and it is closed then
        let _ = self.ask(connector_id, "closeConnection", json!({"connection_uuid": uuid}), asker);
    }

    /// Moves a connection on, and tells subscribers.
    pub(super) fn set_stage(&mut self, uuid: Uuid, stage: Stage) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.stage = stage;
        relay.generation += 1;
        if let Some(link) = self.links.get_mut(&relay.plan.connector_id) {
            match stage {
                Stage::Open => link.open = Some(uuid),
                _ if link.open == Some(uuid) => link.open = None,
                _ => {}
            }
        }
        let _ = self.changes.send(Changed::Ticket(relay.plan.ticket_id));
    }

    /// The connections of a connector.
    fn relays_of(&self, connector_id: i64) -> Vec<Uuid> {
        let own = |relay: &&super::relay::Relay| relay.plan.connector_id == connector_id;
        self.relays.values().filter(own).map(super::relay::Relay::uuid).collect()
    }

    /// The connector's link was lost.
    fn interrupt_relays(&mut self, connector_id: i64) {
        for uuid in self.relays_of(connector_id) {
            let Some(relay) = self.relays.get_mut(&uuid) else { continue };
            relay.shut_gates();
            relay.reopen = false;
            relay.refuse_joins(&connector_offline());
            match relay.stage {
                Stage::Opening => self.set_stage(uuid, Stage::Interrupted),
                Stage::Open => {
                    relay.tell_operator("connectionInterrupted", json!({}));
                    self.set_stage(uuid, Stage::Interrupted);
                }
                Stage::Closing => self.set_stage(uuid, Stage::Idle),
                Stage::Idle | Stage::Interrupted => {}
            }
            self.arm_deadline(uuid);
        }
    }

    /// The connector is back, and says which connections it has held.
    fn take_up_relays(&mut self, connector_id: i64, held: &[HeldConnection]) {
        // first what is over: a connector serves one connection at a time
        for held in held {
            if !self.relays.contains_key(&held.connection_uuid) {
                self.close_at_connector(connector_id, held.connection_uuid, Asker::Nobody);
            }
        }
        for uuid in self.relays_of(connector_id) {
            let Some(relay) = self.relays.get_mut(&uuid) else { continue };
            match held.iter().find(|held| held.connection_uuid == uuid) {
                Some(held) => {
                    if relay.used {
                        relay.tell_operator("connectionResumed", json!({"received": held.received}));
                    } else {
                        relay.used = held.received > 0;
                    }
                    self.set_stage(uuid, Stage::Open);
                    self.arm_deadline(uuid);
                }
                None => {
                    let was_open = relay.stage == Stage::Interrupted;
                    if was_open {
                        self.lose(uuid, "link-lost");
                    }
                    if self.relays.get(&uuid).is_some_and(|relay| relay.eager) || was_open {
                        self.open(uuid);
                    }
                }
            }
        }
    }

    /// The connection is not there any more at the connector: the operator hears why and has left it.
    pub(super) fn lose(&mut self, uuid: Uuid, reason: &str) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.tell_operator("connectionClosed", json!({"reason": reason}));
        relay.shut_gates();
        relay.eager = false;
        let operator = relay.operator.take();
        if let Some(operator) = operator {
            self.leave(operator.id(), uuid);
        }
        self.set_stage(uuid, Stage::Idle);
    }
}
