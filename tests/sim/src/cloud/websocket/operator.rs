//! Messages of an operator: joins, and requests to the connector.

use std::sync::Arc;

use axum::extract::ws::Message;
use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::{Envelope, ProblemKind};
use serde::Deserialize;
use uuid::Uuid;

use super::peer::{Peer, internal, parse};
use crate::cloud::hub::{Join, unknown_connection};
use crate::cloud::store::{Read as _, Role, Ticket};
use crate::cloud::views;

#[derive(Deserialize)]
struct JoinMessage {
    connection_uuid: Uuid,
    #[serde(default)]
    received: Option<u32>,
    #[serde(default)]
    opening: Option<String>,
    #[serde(default)]
    take_over: bool,
}

impl Peer {
    /// `joinConnection`.
    pub(super) fn handle_join(&mut self, envelope: Envelope) -> Result<(), Problem> {
        if self.subject.role != Role::Operator {
            return Err(ProblemKind::Forbidden.problem("Only operators join connections."));
        }
        let message: JoinMessage = parse(&envelope.message)?;
        let view = self.app.store.view().map_err(internal)?;
        let ticket = view
            .all::<Ticket>()
            .map_err(internal)?
            .into_iter()
            .find(|ticket| ticket.connection_uuid == Some(message.connection_uuid))
            .ok_or_else(unknown_connection)?;
        let connector =
            view.connector(ticket.connector_id).map_err(internal)?.ok_or_else(unknown_connection)?;
        let join = Join {
            outbox: self.outbox.clone(),
            operator: self.subject.id.clone(),
            request_id: envelope.request_id,
            token: Arc::clone(&self.token),
            received: message.received,
            opening: message.opening,
            take_over: message.take_over,
            connector: views::connector(&self.app.hub, &connector),
        };
        self.app.hub.join(message.connection_uuid, join);
        Ok(())
    }

    /// Forwards a request of section 3 to the connector.
    pub(super) async fn handle_operator_request(&mut self, envelope: Envelope) -> Result<(), Problem> {
        // an error must not be answered
        if envelope.action == "error" {
            tracing::debug!(subject = self.subject.id, "an operator reports an error");
            return Ok(());
        }
        let forward = self.app.hub.operator_request(&self.outbox, envelope)?;
        forward.outbox.send(Message::text(forward.envelope.to_text())).await;
        Ok(())
    }
}
