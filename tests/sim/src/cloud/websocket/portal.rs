//! Subscriptions of portal clients. Their errors are those of the vendor's REST API.

use axum::extract::ws::Message;
use axum::http::StatusCode;
use connector_agent::relay::wire::Envelope;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use super::documented::Dialect;
use super::peer::Peer;
use super::subscriptions::{ACTIONS, Subscription, Topic};
use crate::cloud::hub::{Changed, EventKind};
use crate::cloud::rest::ApiError;
use crate::cloud::store::{Connector, Read, Role, StoreError, Ticket};
use crate::cloud::views;

/// Limit of the subscriptions of one socket.
const MAX_SUBSCRIPTIONS: usize = 100;

/// A resource, as a message names it.
enum Named {
    Number(i64),
    Uuid(Uuid),
}

/// The names that a field takes. The documented websocket has one for each field, as the documents have it.
#[derive(Clone, Copy)]
enum Names {
    Number,
    Uuid,
    Either,
}

impl Names {
    /// The resource that a field of a message names.
    fn read(self, message: &Value, field: &str) -> Result<Named, ApiError> {
        let value = message.get(field).ok_or_else(|| ApiError::violation(field, "is required"))?;
        let uuid = || value.as_str()?.parse().ok().map(Named::Uuid);
        let text = || value.as_str()?.parse().ok().map(Named::Number);
        let number = || value.as_i64().map(Named::Number);
        let (named, expected) = match self {
            Self::Number => (number(), "must be a whole number"),
            Self::Uuid => (uuid(), "must be a UUID"),
            Self::Either => (number().or_else(text).or_else(uuid), "must be a number or a UUID"),
        };
        named.ok_or_else(|| ApiError::violation(field, expected))
    }
}

/// The ticket of a connection.
fn ticket_of_connection(read: &impl Read, connection: Uuid) -> Result<Option<Ticket>, StoreError> {
    Ok(read.all::<Ticket>()?.into_iter().find(|ticket| ticket.connection_uuid == Some(connection)))
}

impl Peer {
    /// Begins or ends a subscription, and answers with the first update.
    pub(super) fn handle_subscription(&mut self, envelope: Envelope) -> Result<(), ApiError> {
        let found = ACTIONS.iter().find(|(begin, end)| *begin == envelope.action || *end == envelope.action);
        let Some((action, _)) = found else { return Ok(()) };
        let topic = self.topic(action, &envelope.message)?;
        let subscriptions = &mut self.subscriptions.0;
        let known = subscriptions.iter().position(|known| known.action == *action && known.topic == topic);
        if *action != envelope.action {
            if let Some(index) = known {
                subscriptions.swap_remove(index);
            }
            // the documents have no reply
            if self.dialect == Dialect::Relay {
                let reply = Envelope { message: Value::Object(Map::new()), ..envelope };
                self.outbox.push(&reply);
            }
            return Ok(());
        }
        if known.is_none() {
            if subscriptions.len() >= MAX_SUBSCRIPTIONS {
                let detail = format!("A socket may have {MAX_SUBSCRIPTIONS} subscriptions.");
                return Err(ApiError::new(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too-many-requests",
                    "Too many subscriptions",
                    detail,
                ));
            }
            let watcher = match topic {
                Topic::Connector(id) => Some(self.app.hub.watch(id)),
                Topic::Ticket(_) | Topic::Connection(_) | Topic::Event(_) => None,
            };
            if let (Topic::Event(_), None) = (topic, &self.events) {
                self.events = Some(self.app.hub.events());
            }
            subscriptions.push(Subscription { action, topic, _watcher: watcher });
        }
        if let Some(update) = self.update(action, topic)? {
            self.outbox.push(&update.in_reply_to(envelope.request_id));
        }
        Ok(())
    }

    /// The topic of a message, if the topic exists and the subject may see it.
    fn topic(&self, action: &str, message: &Value) -> Result<Topic, ApiError> {
        let view = self.app.store.view()?;
        let ticket = |ticket: Option<Ticket>, what| {
            let ticket = ticket.ok_or_else(|| ApiError::not_found(what))?;
            if self.subject.sees(ticket.connector_id) {
                Ok(ticket.id)
            } else {
                Err(ApiError::forbidden("The topic belongs to another connector."))
            }
        };
        match action {
            "subscribe-to-event" => {
                if self.subject.role != Role::Operator {
                    return Err(ApiError::forbidden("Only operators may subscribe to events."));
                }
                let kind = message.get("event_type");
                let kind = kind.ok_or_else(|| ApiError::violation("event_type", "is required"))?;
                let kind = kind.as_str().and_then(EventKind::of);
                kind.map(Topic::Event).ok_or_else(|| ApiError::violation("event_type", "is not a known type"))
            }
            "subscribeToTicket" => {
                let found = match self.names(Names::Number).read(message, "ticket_id")? {
                    Named::Number(id) => view.ticket(id)?,
                    Named::Uuid(uuid) => view.by_uuid(uuid)?,
                };
                ticket(found, "ticket").map(Topic::Ticket)
            }
            "subscribeToConnection" => {
                let found = match Names::Uuid.read(message, "connection_uuid")? {
                    Named::Uuid(uuid) => ticket_of_connection(&view, uuid)?,
                    Named::Number(_) => None,
                };
                ticket(found, "connection").map(Topic::Connection)
            }
            _ => {
                let of_role = if self.subject.role == Role::Operator { Names::Uuid } else { Names::Number };
                let found: Option<Connector> = match self.names(of_role).read(message, "connector_id")? {
                    Named::Number(id) => view.connector(id)?,
                    Named::Uuid(uuid) => view.by_uuid(uuid)?,
                };
                let connector = found.ok_or_else(|| ApiError::not_found("connector"))?;
                if self.subject.sees(connector.id) {
                    Ok(Topic::Connector(connector.id))
                } else {
                    Err(ApiError::forbidden("The token belongs to another connector."))
                }
            }
        }
    }

    /// The names that a field takes whose documented ones are these.
    fn names(&self, documented: Names) -> Names {
        match self.dialect {
            Dialect::Documented => documented,
            Dialect::Relay => Names::Either,
        }
    }

    /// The current state of a topic.
    fn update(&self, action: &str, topic: Topic) -> Result<Option<Envelope>, StoreError> {
        if self.dialect == Dialect::Documented {
            let update = self.documented_update(action, topic)?;
            return Ok(update.map(|message| Envelope::new(action, &message)));
        }
        let (view, hub) = (self.app.store.view()?, &self.app.hub);
        let message = match topic {
            Topic::Event(_) => None,
            Topic::Connector(id) => view.connector(id)?.map(|connector| match action {
                "subscribe-to-connector" => views::partner_connector_update(hub, &connector),
                _ => views::connector_update(hub, &connector),
            }),
            Topic::Ticket(id) => view.ticket(id)?.map(|ticket| views::ticket_update(hub, &ticket)),
            Topic::Connection(id) => match view.ticket(id)? {
                Some(ticket) => {
                    let connector = view.connector(ticket.connector_id)?;
                    Some(views::connection_update(hub, &ticket, connector.as_ref()))
                }
                None => None,
            },
        };
        Ok(message.map(|message| Envelope::new(action, &message)))
    }

    /// Sends the updates for a change; without a change, all updates. An update is left out if the socket
    /// has no room for it: the next one follows in five seconds.
    pub(super) fn send_updates(&mut self, change: Option<Changed>) {
        for subscription in &self.subscriptions.0 {
            let wanted = match (change, subscription.topic) {
                (None, _) => true,
                (Some(Changed::Connector(changed)), Topic::Connector(id)) => changed == id,
                (Some(Changed::Ticket(changed)), Topic::Ticket(id) | Topic::Connection(id)) => changed == id,
                (Some(Changed::Control(_)), Topic::Ticket(id)) => {
                    self.send_control(change, id);
                    false
                }
                (Some(_), _) => false,
            };
            if !wanted {
                continue;
            }
            match self.update(subscription.action, subscription.topic) {
                Ok(Some(update)) => {
                    self.outbox.offer(Message::text(update.to_text()));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "cannot read an update");
                }
            }
        }
    }

    /// Forwards a ping that a client sent on a ticket's channel.
    fn send_control(&self, change: Option<Changed>, ticket_id: i64) {
        let Some(Changed::Control(channel)) = change else { return };

        let ticket = self.app.store.view().and_then(|view| view.ticket(ticket_id));
        if let Ok(Some(ticket)) = ticket
            && ticket.chat_id == channel
        {
            let message = json!({"channel_id": channel, "ticket_id": ticket.id});
            if self.dialect == Dialect::Documented {
                // the documents speak of a ping, and print no message
                self.outbox.offer(Message::Ping(Default::default()));
                return;
            }
            self.outbox.offer(Message::text(Envelope::new("ping", &message).to_text()));
        }
    }
}
