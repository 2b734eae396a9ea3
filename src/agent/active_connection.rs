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
            Some(ticket) if ticket.is_other_than(own) => "another ticket is active",
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

    /// Logs the end of the connection, and returns the message that reports it.
    pub(super) fn closed(&self, reason: CloseReason) -> ConnectionClosed {
        let connection_uuid = self.relay.connection_uuid();
        tracing::info!(%connection_uuid, ?reason, pdus = self.relay.pdus_relayed(), "connection closed");
        ConnectionClosed { connection_uuid, reason }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::{Duration, Instant};

    use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
    use connector_hal::can::{CanBus, CanFrame, CanId};
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::policy::SharedPolicy;
    use crate::relay::connection::RelaySettings;
    use crate::relay::limits::RelayLimits;
    use crate::relay::link::{Link, Role};
    use crate::relay::wire::Envelope;
    use crate::relay::wire::codec::{Payload, Tag};
    use crate::relay::wire::request::Request;
    use crate::vehicle::hardware::Hardware;

    const UUID: Uuid = Uuid::from_u128(7);

    fn ask(connection: &mut ActiveConnection, action: &str, mut message: Value) {
        message["connection_uuid"] = json!(UUID);
        let request = Request::parse(&Envelope::new(action, &message)).unwrap();
        connection.relay.handle_request(now(), request, None);
    }

    /// Drives the connection and its link for this time.
    async fn run(connection: &mut ActiveConnection, operator: &mut Link, time: Duration) {
        let end = now() + time;
        while now() < end {
            while let Some(message) = operator.poll_message(now()) {
                connection.relay.handle_message(now(), &message);
            }
            while let Some(message) = connection.relay.poll_message(now()) {
                operator.handle_message(now(), &message).unwrap();
            }
            let due = connection.relay.poll_timeout(now()).map_or(end, |due| due.clamp(now(), end));
            tokio::select! {
                () = poll_fn(|cx| connection.relay.poll_drive(cx)) => {}
                () = tokio::time::sleep_until(due.into()) => connection.relay.handle_timeout(now()),
            }
        }
    }

    /// A connection with a raw channel, and the operator's end of its link.
    async fn with_raw_channel(bus: &VirtualBus) -> (ActiveConnection, Link) {
        let settings = RelaySettings {
            connection_uuid: UUID,
            hold: Duration::from_secs(30),
            limits: RelayLimits::default(),
            hardware: Hardware::on_bus(bus),
            policy: SharedPolicy::default(),
        };
        let open = serde_json::from_value(json!({"connection_uuid": UUID})).unwrap();
        let mut connection = ActiveConnection::new(RelayConnection::new(settings, now()), None, &open);
        let mut operator = Link::new(Role::Operator, Tag::from(UUID), now());
        let can = json!({"pin_plus": 6, "pin_min": 14, "can_protocol": "isotp", "can_bit_rate": 500_000});
        ask(&mut connection, "configureBuses", json!({"buses": [{"bus_name": "HS", "can_bus": can}]}));
        run(&mut connection, &mut operator, Duration::from_secs(1)).await;
        let raw = json!({"bus_name": "HS", "request_id": 0x100});
        ask(&mut connection, "openChannel", json!({"channel": 1, "raw_channel": raw}));
        run(&mut connection, &mut operator, Duration::from_millis(100)).await;
        (connection, operator)
    }

    #[tokio::test(start_paused = true)]
    async fn frames_of_the_operator_are_activity_and_those_of_the_vehicle_are_not() {
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let mut node = bus.attach("node");
        let (mut connection, mut operator) = with_raw_channel(&bus).await;
        assert!(!connection.take_activity() && !connection.has_been_active());
        let frame = CanFrame::new(CanId::standard(0x100).unwrap(), &[1]).unwrap();
        for _ in 0..5 {
            poll_fn(|cx| node.poll_send(cx, &frame)).await.unwrap();
            run(&mut connection, &mut operator, Duration::from_millis(100)).await;
        }
        assert!(!connection.take_activity(), "a vehicle that sends keeps no connection open");
        let sent: Instant = now();
        operator.push(sent, sent, 1, Payload::Frame(frame)).unwrap();
        run(&mut connection, &mut operator, Duration::from_secs(1)).await;
        assert!(connection.take_activity() && connection.has_been_active());
        assert!(!connection.take_activity(), "reported once");
    }
}
