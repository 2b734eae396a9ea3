//! Messages of a connector.

use axum::extract::ws::Message;
use connector_agent::protocol::problem::Problem;
use connector_agent::protocol::vin::Vin;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde_json::Value;

use super::peer::{Peer, internal, parse};
use crate::cloud::hub::{Changed, Closing, Hello, Status};
use crate::cloud::store::{Connector, Read as _, StoreError};

/// The supported protocol version.
const PROTOCOL: u32 = 1;

fn hello_first() -> Problem {
    ProblemKind::HelloFirst.problem("The first message of a connector is connectorHello.")
}

impl Peer {
    /// `connectorHello`: makes this socket the connector's link.
    pub(super) async fn handle_hello(&mut self, envelope: Envelope) -> Result<(), Problem> {
        let result = self.accept_hello(&envelope.message).await;
        if result.is_err() {
            // write the error before the link is closed
            let (outbox, request_id) = (self.outbox.clone(), envelope.request_id);
            if let Err(problem) = &result {
                outbox.push(&Envelope::error(&problem.clone().answering(&envelope.action), request_id));
            }
            outbox.close(Closing::Policy);
            return Ok(());
        }
        result
    }

    async fn accept_hello(&mut self, message: &Value) -> Result<(), Problem> {
        let Some(connector_id) = self.subject.connector_id else {
            return Err(ProblemKind::Forbidden.problem("Only a connector may send connectorHello."));
        };
        let hello: Hello = parse(message)?;
        if hello.connector_uuid.to_string() != self.subject.id {
            return Err(ProblemKind::Forbidden.problem("The token belongs to another connector."));
        }
        if hello.protocol != PROTOCOL {
            let detail = format!("This cloud supports protocol {PROTOCOL}, not {}.", hello.protocol);
            return Err(ProblemKind::UnsupportedProtocol.problem(detail));
        }
        let record = hello.clone();
        let stored = self.app.store.change(move |change| {
            let Some(mut connector) = change.connector(connector_id)? else { return Ok(None) };
            let owed = std::mem::take(&mut connector.dismissal_owed);
            record.apply(&mut connector);
            change.put(&connector)?;
            Ok::<_, StoreError>(Some((connector, owed)))
        });
        let Some((connector, dismissal_owed)) = stored.await.map_err(internal)? else {
            return Err(ProblemKind::Forbidden.problem("The connector is no longer known."));
        };
        tracing::info!(connector_id, uuid = %connector.uuid, version = hello.agent_version, "connector online");
        self.connector = Some(connector_id);
        self.stored_vin = connector.vin_number.map(|vin| vin.to_string());
        self.app.hub.connector_here(connector_id, &self.outbox, hello);
        self.app.hellos.send_modify(|count| *count += 1);
        if dismissal_owed {
            self.app.hub.notify(connector_id, "dismissCallForAttention", Value::Object(Default::default()));
        }
        Ok(())
    }

    /// `connectorStatusUpdate`.
    pub(super) async fn handle_status(&mut self, envelope: Envelope) -> Result<(), Problem> {
        let connector_id = self.own_connector(&envelope)?;
        let status: Status = parse(&envelope.message)?;
        let vin: Option<Vin> = status
            .vin_number
            .as_deref()
            .map(str::parse)
            .transpose()
            .map_err(|error| ProblemKind::Violations.problem(format!("vin_number: {error}")))?;
        let mut is_urgent = false;
        if self.stored_vin != status.vin_number {
            let stored = self.app.store.change(move |change| {
                if let Some(mut connector) = change.connector(connector_id)? {
                    connector.vin_number = vin;
                    change.put(&connector)?;
                }
                Ok::<_, StoreError>(())
            });
            stored.await.map_err(internal)?;
            self.stored_vin.clone_from(&status.vin_number);
            is_urgent = true;
        }
        if self.app.hub.set_status(connector_id, self.outbox.id(), status) || is_urgent {
            self.app.hub.changed(Changed::Connector(connector_id));
        }
        Ok(())
    }

    /// `callForAttention`.
    pub(super) async fn handle_call_for_attention(&mut self, envelope: Envelope) -> Result<(), Problem> {
        let connector_id = self.own_connector(&envelope)?;
        let stored = self.app.store.change(move |change| {
            if let Some(mut connector) = change.connector(connector_id)? {
                connector.call_for_attention = true;
                change.put(&connector)?;
            }
            Ok::<_, StoreError>(())
        });
        stored.await.map_err(internal)?;
        tracing::info!(connector_id, "call for attention");
        self.app.hub.changed(Changed::Connector(connector_id));
        Ok(())
    }

    /// Handles all other messages of a connector: replies, and closed connections.
    pub(super) async fn handle_connector_reply(
        &mut self,
        connector_id: i64,
        envelope: Envelope,
    ) -> Result<(), Problem> {
        let forward = self.app.hub.connector_message(connector_id, self.outbox.id(), envelope)?;
        if let Some(forward) = forward {
            forward.outbox.send(Message::text(forward.envelope.to_text())).await;
        }
        Ok(())
    }

    /// The connector of this link, if the message is about it.
    fn own_connector(&self, envelope: &Envelope) -> Result<i64, Problem> {
        let connector_id = self.connector.ok_or_else(hello_first)?;
        match envelope.message.get("connector_id").and_then(Value::as_str) {
            Some(uuid) if !uuid.eq_ignore_ascii_case(&self.subject.id) => {
                Err(ProblemKind::Forbidden.problem("connector_id names another connector."))
            }
            _ => Ok(connector_id),
        }
    }
}

impl Hello {
    /// Copies the connector's description of itself to its record.
    fn apply(self, connector: &mut Connector) {
        connector.agent_version = self.agent_version.or(connector.agent_version.take());
        connector.software_version = self.software_version.unwrap_or(connector.software_version);
        connector.hardware_version = self.hardware_version.unwrap_or(connector.hardware_version);
        connector.has_wifi = self.has_wifi.unwrap_or(connector.has_wifi);
        connector.supports_doip = self.supports_doip.unwrap_or(connector.supports_doip);
        if let Some(hardware_type) = self.hardware_type {
            connector.hardware_type = hardware_type;
        }
    }
}
