//! The operator's open connection, and the agent's state about it.

use connector_hal::clock::now;

use crate::cloud::rest::ActiveTicket;
use crate::protocol::vin::Vin;
use crate::relay::connection::{CloseReason, RelayConnection};
use crate::relay::wire::ConnectionClosed;
use crate::relay::wire::request::OpenConnection;

/// The operator's connection while it is open.
pub(super) struct ActiveConnection {
    /// The connection itself: buses, channels, and the link to the operator.
    pub(super) relay: RelayConnection,
    /// The vehicle's VIN when the connection was opened, or the first VIN read since.
    vin: Option<Vin>,
    /// The VIN of the vehicle that the connection is meant for.
    wanted: Option<String>,
    /// The connection was opened for a ticket, and ends with it.
    pub(super) has_ticket: bool,
    /// How many records the operator had sent at the last call of [`ActiveConnection::take_activity`].
    records_seen: u64,
}

impl ActiveConnection {
    /// `vin` is the vehicle's VIN, if it is known. A connection for a vehicle whose VIN is not known sends no
    /// programming service until the VIN is confirmed.
    pub(super) fn new(mut relay: RelayConnection, vin: Option<Vin>, open: &OpenConnection) -> Self {
        if open.vin.is_some() {
            relay.require_vin();
            if vin.is_some() {
                relay.confirm_vin(now());
            }
        }
        Self { relay, vin, wanted: open.vin.clone(), has_ticket: open.ticket_id.is_some(), records_seen: 0 }
    }

    /// Whether the operator has sent a PDU or a frame since the last call.
    pub(super) fn take_activity(&mut self) -> bool {
        let taken = self.relay.records_taken();
        std::mem::replace(&mut self.records_seen, taken) != taken
    }

    /// Whether [`ActiveConnection::take_activity`] has reported activity.
    pub(super) fn has_been_active(&self) -> bool {
        self.records_seen > 0
    }

    /// Closes the connection if this is the VIN of another vehicle.
    pub(super) fn handle_vin(&mut self, vin: Vin) {
        let is_wanted = self.wanted.as_ref().is_none_or(|wanted| vin.is_written(wanted));
        if *self.vin.get_or_insert(vin) == vin && is_wanted {
            self.relay.confirm_vin(now());
        } else {
            self.relay.handle_other_vin(now());
            tracing::warn!("the connector is in another vehicle; closing the connection");
            self.relay.close(CloseReason::VehicleLost);
        }
    }

    /// Closes the connection unless this ticket is in progress and belongs to the connection.
    pub(super) fn handle_ticket(&mut self, ticket: Option<ActiveTicket>) {
        let own_uuid = self.relay.connection_uuid();
        let is_in_progress = ticket.is_some_and(|ticket| {
            ticket.is_in_progress() && ticket.connection_uuid.is_none_or(|uuid| uuid == own_uuid)
        });
        if !is_in_progress {
            tracing::info!("the ticket is no longer in progress; closing the connection");
            self.relay.close(CloseReason::Policy);
        }
    }

    /// Logs the end of the connection, and returns the message that reports it.
    pub(super) fn closed(&self, reason: CloseReason) -> ConnectionClosed {
        let connection_uuid = self.relay.connection_uuid();
        tracing::info!(%connection_uuid, ?reason, pdus = self.relay.pdus_relayed(), "connection closed");
        ConnectionClosed { connection_uuid, reason }
    }
}
