//! The settings of a connection, and its report on a bus.

use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use crate::policy::SharedPolicy;
use crate::relay::limits::RelayLimits;
use crate::vehicle::hardware::Hardware;

/// The settings of a connection.
#[derive(Debug, Clone)]
pub struct RelaySettings {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
    /// How long the connection is held while the link is down.
    pub hold: Duration,
    /// The limits of the connection.
    pub limits: RelayLimits,
    /// The buses of this connector.
    pub hardware: Hardware,
    /// What may be sent to the vehicle.
    pub policy: SharedPolicy,
}

/// A bus in `connectorStatusUpdate`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BusReport {
    /// The name that the operator gave the bus.
    pub bus_name: String,
    /// `active`, `passive` or `off`.
    pub state: &'static str,
    /// The share of time in which the bus was busy, from 0 to 1.
    pub load: f32,
}
