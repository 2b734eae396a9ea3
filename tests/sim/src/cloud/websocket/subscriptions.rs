//! The subscriptions of a socket, and the actions that begin and end them.

use crate::cloud::hub::{EventKind, Watcher};
use crate::cloud::store::Role;

/// The topic of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Topic {
    /// A connector, by its number.
    Connector(i64),
    /// A ticket, by its number.
    Ticket(i64),
    /// A ticket's connection.
    Connection(i64),
    /// What happens to tickets.
    Event(EventKind),
}

/// A subscription. Updates use the spelling of the action with which it was made.
pub(super) struct Subscription {
    pub(super) action: &'static str,
    pub(super) topic: Topic,
    /// Makes the connector report more often, for as long as the subscription lasts.
    pub(super) _watcher: Option<Watcher>,
}

/// The subscriptions of a socket.
#[derive(Default)]
pub(super) struct Subscriptions(pub(super) Vec<Subscription>);

/// The actions that begin a subscription, with those that end it. The documents spell the ends in two ways.
pub(super) const ACTIONS: [(&str, &str); 5] = [
    ("subscribeToConnector", "unsubscribeFromConnector"),
    (PARTNER_CONNECTOR, "unsubscribe-from-connector"),
    (PARTNER_EVENT, "unsubscribe-from-event"),
    ("subscribeToTicket", "unsubscribeToTicket"),
    ("subscribeToConnection", "unsubscribeToConnection"),
];
const PARTNER_CONNECTOR: &str = "subscribe-to-connector";
const PARTNER_EVENT: &str = "subscribe-to-event";

impl Subscriptions {
    /// Whether there are no subscriptions.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this action begins or ends a subscription.
    pub(super) fn knows(action: &str) -> bool {
        ACTIONS.iter().any(|(begin, end)| *begin == action || *end == action)
    }

    /// Whether the documents have this action, which begins or ends a subscription, for the role.
    pub(super) fn knows_of(action: &str, role: Role) -> bool {
        let of_partners = [PARTNER_CONNECTOR, PARTNER_EVENT];
        ACTIONS.iter().any(|(begin, end)| {
            (*begin == action || *end == action) && of_partners.contains(begin) == (role == Role::Operator)
        })
    }
}
