//! An online connector: its own messages, and its link.

use std::collections::HashMap;

use connector_agent::relay::wire::Envelope;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::outbox::Outbox;
use super::pending::{Asked, Asker};
use super::relay::connector_offline;

/// The part of `connectorHello` that the cloud reads.
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

/// A connection that a connector has held since the link was lost.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct HeldConnection {
    pub(crate) connection_uuid: Uuid,
    pub(crate) received: u32,
}

/// The part of `connectorStatusUpdate` that the cloud reads.
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
    /// The buses of the connector's hardware.
    pub(super) buses: Vec<Value>,
    pub(super) asked: HashMap<String, Asked>,
    /// The connection that is open on this link.
    pub(super) open: Option<Uuid>,
}

impl ConnectorLink {
    /// Answers all open requests with an error, because the link is gone.
    pub(super) fn fail_asked(self) {
        for (_, asked) in self.asked {
            if let Asker::Operator { outbox, request_id, .. } = asked.asker {
                outbox.push(&Envelope::error(&connector_offline().answering(&asked.action), request_id));
            }
        }
    }
}
