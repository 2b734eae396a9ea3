//! A connector's link: its start and end, its messages, and requests to it.

use std::collections::HashMap;

use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde_json::{Value, json};
use tokio::time::Instant;
use uuid::Uuid;

use super::connector::{ConnectorLink, HeldConnection, Hello, Status};
use super::outbox::{Closing, LinkId, Outbox};
use super::pending::{Asked, Asker};
use super::relay::{Relay, RelayStage, connector_offline};
use super::state::{Changed, Hub, HubState};

/// Limit of the requests to one connector that wait for answers.
const MAX_ASKED: usize = 256;
/// Limit for the answer to a request.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(120);

impl Hub {
    /// Handles a connector's hello on its new link. An older link of the connector is closed.
    pub(crate) fn connector_here(&self, connector_id: i64, outbox: &Outbox, hello: Hello) {
        let mut state = self.state();
        if let Some(old) = state.links.remove(&connector_id) {
            // a second hello on one link restarts that link
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
        state.handle_new_link(connector_id);
        drop(state);
        self.changed(Changed::Connector(connector_id));
    }

    /// Handles the end of a connector's link.
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

    /// Stores the connector's status. Returns whether subscribers should get the change immediately.
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

    /// Gives up requests that the connector has not answered in time.
    pub(crate) fn expire_requests(&self, connector_id: i64) {
        let mut state = self.state();
        let Some(link) = state.links.get_mut(&connector_id) else { return };
        let expired: Vec<Asked> = link
            .asked
            .extract_if(|_, asked| asked.since.elapsed() > PATIENCE)
            .map(|(_, asked)| asked)
            .collect();
        for asked in expired {
            let problem = ProblemKind::Timeout.problem("The connector did not answer in time.");
            let problem = problem.answering(&asked.action);
            state.handle_failure(connector_id, asked, problem);
        }
    }
}

impl HubState {
    /// Sends a request to a connector, and stores the recipient of the reply.
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

    /// Stores the recipient of a reply. Returns the request's id, which is unique.
    pub(super) fn note_request(
        &mut self,
        connector_id: i64,
        action: &str,
        asker: Asker,
    ) -> Result<String, Problem> {
        let link = self.links.get_mut(&connector_id).ok_or_else(connector_offline)?;
        if link.asked.len() >= MAX_ASKED {
            let detail = format!("{MAX_ASKED} requests already wait for the connector's answers.");
            return Err(ProblemKind::TooManyRequests.problem(detail));
        }
        self.next_request += 1;
        let request_id = format!("c{}", self.next_request);
        let asked = Asked { asker, action: action.to_owned(), since: Instant::now() };
        link.asked.insert(request_id.clone(), asked);
        Ok(request_id)
    }

    /// Requests that the connector opens a connection, if the connector is online.
    pub(super) fn open(&mut self, uuid: Uuid) {
        let hold = self.hold;
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        let connector_id = relay.plan.connector_id;
        let message = relay.open_message(hold);
        match self.ask(connector_id, "openConnection", message, Asker::Open(uuid)) {
            Ok(()) => self.set_stage(uuid, RelayStage::Opening),
            Err(problem) => {
                self.set_stage(uuid, RelayStage::Idle);
                if let Some(relay) = self.relays.get_mut(&uuid) {
                    relay.refuse_joins(&problem);
                }
            }
        }
    }

    /// Requests that the connector closes a connection. An offline connector gets the request after its next hello.
    pub(super) fn close_at_connector(&mut self, connector_id: i64, uuid: Uuid, asker: Asker) {
        // an offline connector names the connection in its next hello, and the cloud closes it then
        let _ = self.ask(connector_id, "closeConnection", json!({"connection_uuid": uuid}), asker);
    }

    /// Closes a connection at its connector, and waits for the reply.
    pub(super) fn close_for(&mut self, connector_id: i64, uuid: Uuid) {
        self.set_stage(uuid, RelayStage::Closing);
        self.close_at_connector(connector_id, uuid, Asker::Close(uuid));
    }

    /// Changes a connection's stage, and notifies subscribers.
    pub(super) fn set_stage(&mut self, uuid: Uuid, stage: RelayStage) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.stage = stage;
        relay.generation += 1;
        if let Some(link) = self.links.get_mut(&relay.plan.connector_id) {
            match stage {
                RelayStage::Open => link.open = Some(uuid),
                _ if link.open == Some(uuid) => link.open = None,
                _ => {}
            }
        }
        let _ = self.changes.send(Changed::Ticket(relay.plan.ticket_id));
    }

    /// The connections of a connector.
    fn relays_of(&self, connector_id: i64) -> Vec<Uuid> {
        let own = |relay: &&Relay| relay.plan.connector_id == connector_id;
        self.relays.values().filter(own).map(Relay::uuid).collect()
    }

    /// Interrupts the connections of a connector whose link was lost.
    fn interrupt_relays(&mut self, connector_id: i64) {
        for uuid in self.relays_of(connector_id) {
            let Some(relay) = self.relays.get_mut(&uuid) else { continue };
            relay.shut_gates();
            relay.reopen = false;
            relay.refuse_joins(&connector_offline());
            match relay.stage {
                RelayStage::Opening => self.set_stage(uuid, RelayStage::Interrupted),
                RelayStage::Open => {
                    relay.notify_operator("connectionInterrupted", json!({}));
                    self.set_stage(uuid, RelayStage::Interrupted);
                }
                RelayStage::Closing => self.set_stage(uuid, RelayStage::Idle),
                RelayStage::Idle | RelayStage::Interrupted => {}
            }
            self.arm_deadline(uuid);
        }
    }

    /// Resumes the connections that a returning connector has held, and drops the others.
    fn take_up_relays(&mut self, connector_id: i64, held: &[HeldConnection]) {
        // first close the connections that ended meanwhile, because a connector serves one connection at a
        // time
        for held in held {
            if !self.relays.contains_key(&held.connection_uuid) {
                self.close_at_connector(connector_id, held.connection_uuid, Asker::Ignored);
            }
        }
        for uuid in self.relays_of(connector_id) {
            let Some(relay) = self.relays.get_mut(&uuid) else { continue };
            match held.iter().find(|held| held.connection_uuid == uuid) {
                Some(held) => {
                    if relay.used {
                        relay.notify_operator("connectionResumed", json!({"received": held.received}));
                    } else {
                        relay.used = held.received > 0;
                    }
                    self.set_stage(uuid, RelayStage::Open);
                    self.arm_deadline(uuid);
                }
                None => {
                    let was_open = relay.stage == RelayStage::Interrupted;
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

    /// Handles a connection that the connector no longer has: notifies the operator of the reason and
    /// removes it from the connection.
    pub(super) fn lose(&mut self, uuid: Uuid, reason: &str) {
        let Some(relay) = self.relays.get_mut(&uuid) else { return };
        relay.notify_operator("connectionClosed", json!({"reason": reason}));
        relay.shut_gates();
        relay.eager = false;
        let operator = relay.operator.take();
        if let Some(operator) = operator {
            self.leave(operator.id(), uuid);
        }
        self.set_stage(uuid, RelayStage::Idle);
    }
}
