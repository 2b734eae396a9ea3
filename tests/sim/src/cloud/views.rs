//! Records in the form that clients receive.

use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::hub::{Hub, RelayStage};
use super::store::{Connector, Ticket, TicketState};

/// A connector, for REST clients and operators.
pub(crate) fn connector(hub: &Hub, connector: &Connector) -> Value {
    json!({
        "id": connector.id,
        "uuid": connector.uuid,
        "is_online": hub.is_online(connector.id),
        "has_wifi": connector.has_wifi,
        "software_version": connector.software_version,
        "hardware_version": connector.hardware_version,
        "supports_doip": connector.supports_doip,
        "vehicle_path_string": connector.vehicle_path_string,
        "vin_number": connector.vin_number,
        "product_description": connector.product_description,
        "hardware_type": connector.hardware_type,
        "agent_version": connector.agent_version,
        "call_for_attention": connector.call_for_attention,
    })
}

/// A connector's update for customers.
pub(crate) fn connector_update(hub: &Hub, connector: &Connector) -> Value {
    let status = hub.status(connector.id).unwrap_or_default();
    json!({
        "connector_id": connector.id,
        "connector_uuid": connector.uuid,
        "is_online": hub.is_online(connector.id),
        "voltage": status.voltage,
        "vin_number": connector.vin_number,
        "round_trip_time": status.round_trip_time,
        "ignition": status.ignition,
        "buses": status.buses,
        "connection_uuid": status.connection_uuid,
        "call_for_attention": connector.call_for_attention,
    })
}

/// A connector's update for partners.
pub(crate) fn partner_connector_update(hub: &Hub, connector: &Connector) -> Value {
    let status = hub.status(connector.id).unwrap_or_default();
    json!({
        "connector_id": connector.uuid,
        "voltage": status.voltage,
        "vin_number": connector.vin_number,
        "round_trip_time": status.round_trip_time,
    })
}

/// A ticket, for customers.
pub(crate) fn ticket(ticket: &Ticket) -> Value {
    json!({
        "id": ticket.id,
        "uuid": ticket.uuid,
        "state": ticket.state,
        "vin": ticket.vin,
        "vinNumber": ticket.vin,
        "vehicle_model_id": ticket.vehicle_model_id,
        "vehicle_model_variant_id": ticket.vehicle_model_variant_id,
        "product_ids": ticket.product_ids,
        "chat_id": ticket.chat_id,
        "connector_id": ticket.connector_id,
        "metadata": ticket.metadata,
        "reference": ticket.reference,
        "voucher": ticket.voucher,
        "prepared_ticket_id": ticket.prepared_ticket_id,
        "confirmed_unattended_service": ticket.confirmed_unattended_service,
        "connection_id": ticket.connection_id,
        "connection_uuid": ticket.connection_uuid,
        "cancelled_reason": ticket.cancelled_reason,
        "created_at": moment(ticket.created_at),
    })
}

/// A ticket, for partners: its id is the UUID there.
pub(crate) fn partner_ticket(ticket: &Ticket, connector: Option<&Connector>) -> Value {
    json!({
        "id": ticket.uuid,
        "ticket_number": ticket.id,
        "state": ticket.state,
        "vin": ticket.vin,
        "vehicle_model_id": ticket.vehicle_model_id,
        "vehicle_model_variant_id": ticket.vehicle_model_variant_id,
        "product_ids": ticket.product_ids,
        "connector_id": ticket.connector_id,
        "connector_uuid": connector.map(|connector| connector.uuid),
        "chat_id": ticket.chat_id,
        "metadata": ticket.metadata,
        "reference": ticket.reference,
        "voucher_code": ticket.voucher,
        "preparer_external_reference": ticket.preparer_external_reference,
        "operator_id": ticket.operator_id,
        "connection_id": ticket.connection_id,
        "connection_uuid": ticket.connection_uuid,
        "cancelled_reason": ticket.cancelled_reason,
        "outsourced_to": ticket.outsourced_to,
        "created_at": moment(ticket.created_at),
        "joined_at": ticket.joined_at.and_then(moment),
        "closed_at": ticket.closed_at.and_then(moment),
    })
}

/// A ticket's update over the websocket.
pub(crate) fn ticket_update(hub: &Hub, ticket: &Ticket) -> Value {
    let open = ticket.connection_uuid.and_then(|uuid| hub.stage(uuid));
    let is_open = open.is_some_and(|(stage, _)| stage == RelayStage::Open);
    json!({
        "id": ticket.id,
        "ticket_id": ticket.id,
        "ticket_uuid": ticket.uuid,
        "state": ticket.state,
        "connection_id": ticket.connection_id,
        "connection_uuid": ticket.connection_uuid,
        "cancelled_reason": ticket.cancelled_reason,
        "chat_state": chat_state(ticket),
        "vehicle_model_id": ticket.vehicle_model_id,
        "vehicle_model_variant_id": ticket.vehicle_model_variant_id,
        "is_script_composition_running": is_open,
        "vin": ticket.vin,
        "schedule": null,
    })
}

/// A connection's update over the websocket.
pub(crate) fn connection_update(hub: &Hub, ticket: &Ticket, connector: Option<&Connector>) -> Value {
    let (stage, vin) = ticket.connection_uuid.and_then(|uuid| hub.stage(uuid)).unzip();
    json!({
        "connection_id": ticket.connection_id,
        "connection_uuid": ticket.connection_uuid,
        "ticket_id": ticket.id,
        "ticket_uuid": ticket.uuid,
        "state": stage.map_or("closed", RelayStage::name),
        "vin_number": vin.flatten(),
        "connector": connector.map(|connector| connector_update(hub, connector)),
    })
}

/// The state of the ticket's messenger channel.
pub(crate) fn chat_state(ticket: &Ticket) -> &'static str {
    match ticket.state {
        TicketState::Pending | TicketState::InProgress | TicketState::Outsourced => "open",
        TicketState::Closed | TicketState::Cancelled => "closed",
    }
}

fn moment(moment: OffsetDateTime) -> Option<String> {
    moment.format(&Rfc3339).ok()
}
