//! Requests to a connector that have no answer yet.

use connector_agent::relay::wire::Envelope;
use tokio::sync::oneshot;
use tokio::time::Instant;
use uuid::Uuid;

use super::outbox::{LinkId, Outbox};

/// The recipient of the connector's reply.
pub(super) enum Asker {
    /// An operator, whose request was forwarded.
    Operator { outbox: Outbox, request_id: Option<String>, connection: Option<Uuid> },
    /// The cloud, which is opening a connection.
    Open(Uuid),
    /// The cloud, which is closing a connection.
    Close(Uuid),
    /// An operator that rejoined, and whose `received` was forwarded.
    Rejoin { connection: Uuid, link: LinkId },
    /// A REST handler.
    Handler(oneshot::Sender<Envelope>),
    /// The reply is ignored.
    Ignored,
}

/// A request that the connector has not answered.
pub(super) struct Asked {
    pub(super) asker: Asker,
    pub(super) action: String,
    pub(super) since: Instant,
}
