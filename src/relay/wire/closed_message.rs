//! `connectionClosed`: a connection has ended (relay protocol, section 3).

use serde::Serialize;
use uuid::Uuid;

use super::Envelope;

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// The operator or the cloud closed the connection.
    Closed,
    /// The link was down for longer than the connection is held.
    LinkLost,
    /// Another vehicle is at the connector.
    VehicleLost,
    /// The ticket is no longer in progress, or the connector goes to sleep.
    Policy,
    /// The PDUs to keep for the other side exceeded the limit.
    Overflow,
    /// The agent ends.
    Shutdown,
}

/// The content of `connectionClosed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) struct ConnectionClosed {
    /// The connection that ended.
    pub connection_uuid: Uuid,
    /// Why the connection ended.
    pub reason: CloseReason,
}

impl ConnectionClosed {
    /// The text message.
    pub(crate) fn envelope(&self) -> Envelope {
        Envelope::new("connectionClosed", self)
    }
}
