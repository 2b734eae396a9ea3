//! The operator's open connection, and the agent's state about it.

use connector_hal::clock::now;
use serde_json::Value;

use crate::cloud::rest::ActiveTicket;
use crate::config::TicketState;
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
    /// The ticket for which the connection was opened, and with which it ends.
    ticket_id: Option<Value>,
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
        Self { relay, vin, wanted: open.vin.clone(), ticket_id: open.ticket_id.clone(), records_seen: 0 }
    }

    /// Whether the connection was opened for a ticket.
    pub(super) fn has_ticket(&self) -> bool {
        self.ticket_id.is_some()
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

    /// Closes the connection if its ticket is no longer the active one, or has one of the states that end a connection.
    /// A state without a known meaning does not.
    pub(super) fn handle_ticket(&mut self, ticket: Option<&ActiveTicket>, ended: &[TicketState]) {
        let Some(own) = &self.ticket_id else { return };
        let why = match ticket {
            None => "the ticket is no longer active",
            Some(ticket) if self.is_of_other(ticket, own) => "another ticket is active",
            Some(ticket)
                if ticket.state.as_deref().is_some_and(|state| ended.contains(&TicketState::new(state))) =>
            {
                "the ticket has ended"
            }
            Some(_) => return,
        };
        tracing::info!("{why}; closing the connection");
        self.relay.close(CloseReason::Policy);
    }

    /// Whether the ticket belongs to another connection.
    fn is_of_other(&self, ticket: &ActiveTicket, own: &Value) -> bool {
        match ticket.connection_uuid {
            Some(uuid) => uuid != self.relay.connection_uuid(),
            None => ticket.is_other_than(own),
        }
    }

    /// Logs the end of the connection, and returns the message that reports it.
    pub(super) fn closed(&self, reason: CloseReason) -> ConnectionClosed {
        let connection_uuid = self.relay.connection_uuid();
        tracing::info!(%connection_uuid, ?reason, pdus = self.relay.pdus_relayed(), "connection closed");
        ConnectionClosed { connection_uuid, reason }
    }
}
