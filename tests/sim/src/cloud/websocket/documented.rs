//! The documented websocket: flat requests, updates with exactly the documented fields, and events of partners.

use axum::extract::ws::Message;
use connector_agent::relay::wire::Envelope;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::broadcast::error::RecvError;

use super::peer::Peer;
use super::subscriptions::Topic;
use crate::cloud::catalogue::Catalogue;
use crate::cloud::hub::{Closing, EventKind, Hub, RelayStage};
use crate::cloud::random;
use crate::cloud::rest::state_number;
use crate::cloud::store::{Connector, Read as _, StoreError, Ticket};
use crate::cloud::views;

/// The form of requests and updates on a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// The relay's: requests and updates have their content in `message`, and updates have all fields.
    Relay,
    /// The documented one.
    Documented,
}

impl EventKind {
    /// The type of the event. The documents name `tickets.ticket.created`; `closed` was read elsewhere, and the others
    /// follow these.
    pub(super) fn event_type(self) -> &'static str {
        match self {
            Self::Created => "tickets.ticket.created",
            Self::Joined => "tickets.ticket.joined",
            Self::Outsourced => "tickets.ticket.outsourced",
            Self::Closed => "tickets.ticket.closed",
            Self::Cancelled => "tickets.ticket.cancelled",
        }
    }

    /// The kind of this type.
    pub(super) fn of(event_type: &str) -> Option<Self> {
        [Self::Created, Self::Joined, Self::Outsourced, Self::Closed, Self::Cancelled]
            .into_iter()
            .find(|kind| kind.event_type() == event_type)
    }
}

impl Dialect {
    /// The action of errors. The documents have none, so that it is marked as the sandbox's own in their dialect.
    pub(super) fn error_action(self) -> &'static str {
        match self {
            Self::Relay => "error",
            Self::Documented => "sandbox-error",
        }
    }

    /// The form of a request.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Relay => r#"{"action": …, "message": …}"#,
            Self::Documented => r#"{"action": …}"#,
        }
    }
}

/// The envelope of a flat request: the fields beside `action` become its content.
pub(super) fn flat(text: &str) -> Result<Envelope, serde_json::Error> {
    let mut fields: serde_json::Map<String, Value> = serde_json::from_str(text)?;
    let action = match fields.remove("action") {
        Some(Value::String(action)) => action,
        _ => return Err(serde::de::Error::missing_field("action")),
    };
    Ok(Envelope { action, message: Value::Object(fields), request_id: None })
}

/// A connector's update for customers. The documents cut its fields off; these are the partners'.
fn connector_update(hub: &Hub, connector: &Connector) -> Value {
    let mut update = views::partner_connector_update(hub, connector);
    if let Some(update) = update.as_object_mut() {
        update.insert("connector_id".to_owned(), json!(connector.id));
    }
    update
}

fn ticket_update(hub: &Hub, catalogue: &Catalogue, ticket: &Ticket) -> Value {
    let stage = ticket.connection_uuid.and_then(|uuid| hub.stage(uuid));
    let provider = &catalogue.service_provider;
    json!({
        "id": ticket.id,
        "ticket_id": ticket.id,
        "ticket_uuid": ticket.uuid,
        "state": state_number(ticket.state),
        "connection_id": ticket.connection_id.unwrap_or_default(),
        "connection_uuid": ticket.connection_uuid,
        "cancelled_reason": ticket.cancel_reason_id.unwrap_or_default(),
        "chat_state": i64::from(views::chat_state(ticket) == "closed"),
        "vehicle_model_id": ticket.vehicle_model_id.unwrap_or_default(),
        "is_script_composition_running": stage.is_some_and(|(stage, _)| stage == RelayStage::Open),
        "vehicle_model_variant_id": ticket.vehicle_model_variant_id.unwrap_or_default(),
        "vin": ticket.vin_or_zeros(),
        "schedule": {
            "message": provider.message,
            "until": provider.state_ends_at.clone().unwrap_or_default(),
        },
    })
}

fn connection_update(ticket: &Ticket) -> Value {
    json!({
        "connection_uuid": ticket.connection_uuid,
        "script_ui_wss_url": null,
        "script_ui_available": 0,
        "is_autonomous": ticket.confirmed_unattended_service.unwrap_or_default(),
    })
}

/// An identifier of 26 characters that sorts by time (ULID).
fn ulid(now: OffsetDateTime) -> String {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    let millis = u128::try_from(now.unix_timestamp_nanos() / 1_000_000).unwrap_or_default();
    let mut bytes = [0_u8; 16];
    random::fill(&mut bytes);
    let value = ((millis & 0xFFFF_FFFF_FFFF) << 80) | (u128::from_be_bytes(bytes) & ((1 << 80) - 1));
    let digit = |shift: u32| {
        let index = usize::try_from((value >> shift) & 31).unwrap_or_default();
        char::from(DIGITS.get(index).copied().unwrap_or(b'0'))
    };
    (0..26).rev().map(|place| digit(place * 5)).collect()
}

impl Peer {
    /// The current state of a topic, with the documented fields.
    pub(super) fn documented_update(&self, action: &str, topic: Topic) -> Result<Option<Value>, StoreError> {
        let (view, hub) = (self.app.store.view()?, &self.app.hub);
        Ok(match topic {
            Topic::Connector(id) => view.connector(id)?.map(|connector| match action {
                "subscribe-to-connector" => views::partner_connector_update(hub, &connector),
                _ => connector_update(hub, &connector),
            }),
            Topic::Ticket(id) => {
                view.ticket(id)?.map(|ticket| ticket_update(hub, &self.app.catalogue, &ticket))
            }
            Topic::Connection(id) => view.ticket(id)?.map(|ticket| connection_update(&ticket)),
            Topic::Event(_) => None,
        })
    }

    /// Reports an event to a partner that has subscribed to its type.
    fn send_event(&self, kind: EventKind, ticket_id: i64) {
        if !self.subscriptions.0.iter().any(|subscription| subscription.topic == Topic::Event(kind)) {
            return;
        }
        let ticket = match self.app.store.view().and_then(|view| view.ticket(ticket_id)) {
            Ok(Some(ticket)) => ticket,
            Ok(None) => return,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot read an event's ticket");
                return self.outbox.close(Closing::EventLost);
            }
        };
        let now = OffsetDateTime::now_utc();
        let customer = &self.app.catalogue.customer;
        let event = json!({
            "action": "event-received",
            "event_id": ulid(now),
            "event_type": kind.event_type(),
            "message": {
                "customer": {"id": customer.id, "name": customer.name},
                "ticket": {"id": ticket.uuid, "number": ticket.id, "ticket_number": ticket.id},
                "parent_ticket": null,
            },
        });
        tracing::debug!(event = kind.event_type(), at = now.format(&Rfc3339).ok(), "event");
        self.outbox.push_event(Message::text(event.to_string()));
    }

    /// Handles an event, or the loss of some because this socket lags behind.
    pub(super) fn handle_event(&self, event: Result<(EventKind, i64), RecvError>) {
        match event {
            Ok((kind, ticket)) => self.send_event(kind, ticket),
            Err(RecvError::Lagged(lost)) => {
                tracing::warn!(subject = self.subject.id, lost, "a websocket has lost events");
                self.outbox.close(Closing::EventLost);
            }
            Err(RecvError::Closed) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use tokio::sync::{Semaphore, watch};
    use tokio_util::sync::CancellationToken;
    use tokio_util::task::TaskTracker;

    use super::*;
    use crate::cloud::app::{AppState, SocketLimits};
    use crate::cloud::hub::{Changed, Outbox};
    use crate::cloud::store::{Role, Store, Subject};
    use crate::cloud::tokens::Signer;

    #[test]
    fn an_event_identifier_is_a_ulid_that_sorts_by_time() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let (first, second) = (ulid(at(1_600_000_000)), ulid(at(1_700_000_000)));
        assert!(first < second && first.len() == 26, "{first} {second}");
        assert!(first.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit()));
    }

    #[tokio::test]
    async fn a_partner_that_lags_behind_events_is_closed_instead_of_missing_some() {
        let directory = tempfile::tempdir().unwrap();
        let app = Arc::new(AppState {
            store: Store::open(&directory.path().join("state.redb")).unwrap(),
            signer: Signer::new(b"key", Duration::from_secs(60)),
            hub: Hub::new(Duration::from_secs(30)),
            catalogue: Arc::new(Catalogue::builtin()),
            socket_limits: SocketLimits::default(),
            api_url: String::new(),
            sockets: Arc::new(Semaphore::new(1)),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            pincode_logins: Arc::default(),
            hellos: watch::Sender::new(0),
        });
        let subject = Subject { id: "partner".to_owned(), role: Role::Operator, connector_id: None };
        let (outbox, writer) = Outbox::new();
        let peer = Peer::new(Arc::clone(&app), (subject, "token".into()), outbox, Dialect::Documented);
        let mut events = app.hub.events();
        for ticket in 0..2_000 {
            app.hub.changed(Changed::Event(EventKind::Created, ticket));
        }
        peer.handle_event(events.recv().await);
        let mut taken = Vec::new();
        let sink = futures_util::sink::unfold(&mut taken, |taken, message| async move {
            taken.push(message);
            Ok::<_, ()>(taken)
        });
        writer.drive_write(Box::pin(sink)).await;
        let Some(Message::Close(Some(frame))) = taken.pop() else { panic!("no close frame") };
        assert_eq!(frame.code, 4002);
    }

    #[test]
    fn a_flat_request_has_its_content_beside_the_action() {
        let envelope = flat(r#"{"action": "subscribeToTicket", "ticket_id": 32423}"#).unwrap();
        assert_eq!(
            (envelope.action.as_str(), envelope.message),
            ("subscribeToTicket", json!({"ticket_id": 32423}))
        );
        assert!(flat("[]").is_err() && flat(r#"{"ticket_id": 1}"#).is_err());
    }
}
