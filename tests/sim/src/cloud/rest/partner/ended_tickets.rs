//! The collections of pending, outsourced, closed and cancelled tickets.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::bodies::{List, TicketsQuery, operator_uuid, voucher};
use crate::cloud::catalogue::Catalogue;
use crate::cloud::rest::api::{Call, Moment, Nothing};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Read as _, Ticket, TicketState};

/// The fields that all collections have.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PendingTicket")]
pub(super) struct PendingBody {
    id: Uuid,
    created_at: Moment,
    customer_id: Uuid,
    ticket_number: i64,
    vehicle_model_id: i64,
    vin: String,
    connection_id: Option<Uuid>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OutsourcedTicket")]
pub(super) struct OutsourcedBody {
    id: Uuid,
    created_at: Moment,
    customer_id: Uuid,
    ticket_number: i64,
    vehicle_model_id: i64,
    vin: String,
    connection_id: Option<Uuid>,
    outsource_provider_id: Option<Uuid>,
    outsource_ticket_id: Option<Uuid>,
    reclaimable: bool,
    voucher_code: Option<String>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClosedTicket")]
pub(super) struct ClosedBody {
    id: Uuid,
    created_at: Moment,
    customer_id: Uuid,
    ticket_number: i64,
    vehicle_model_id: i64,
    vin: String,
    connection_id: Option<Uuid>,
    finished_at: Moment,
    externally_processed: bool,
    external_reference: String,
    operator_id: Option<Uuid>,
    vehicle_battery_voltage: String,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CancelledTicket")]
pub(super) struct CancelledBody {
    id: Uuid,
    created_at: Moment,
    customer_id: Uuid,
    ticket_number: i64,
    vehicle_model_id: i64,
    vin: String,
    connection_id: Option<Uuid>,
    finished_at: Moment,
    externally_processed: bool,
    external_reference: String,
    operator_id: Option<Uuid>,
    vehicle_battery_voltage: String,
    cancel_reason_id: i32,
}

fn pending_body(catalogue: &Catalogue, ticket: &Ticket) -> PendingBody {
    PendingBody {
        id: ticket.uuid,
        created_at: Moment(ticket.created_at),
        customer_id: catalogue.customer.id,
        ticket_number: ticket.id,
        vehicle_model_id: ticket.vehicle_model_id.unwrap_or_default(),
        vin: ticket.vin_or_zeros(),
        connection_id: ticket.connection_uuid,
    }
}

fn outsourced_body(catalogue: &Catalogue, ticket: &Ticket) -> OutsourcedBody {
    let PendingBody { id, created_at, customer_id, ticket_number, vehicle_model_id, vin, connection_id } =
        pending_body(catalogue, ticket);
    let uuid = |field: &str| {
        ticket.outsourced_to.as_ref()?.get(field).and_then(Value::as_str).and_then(|text| text.parse().ok())
    };
    OutsourcedBody {
        id,
        created_at,
        customer_id,
        ticket_number,
        vehicle_model_id,
        vin,
        connection_id,
        outsource_provider_id: uuid("provider_id"),
        outsource_ticket_id: uuid("outsource_ticket_id"),
        // nobody works at the other provider of a sandbox
        reclaimable: true,
        voucher_code: voucher(ticket),
    }
}

fn closed_body(catalogue: &Catalogue, ticket: &Ticket) -> ClosedBody {
    let PendingBody { id, created_at, customer_id, ticket_number, vehicle_model_id, vin, connection_id } =
        pending_body(catalogue, ticket);
    ClosedBody {
        id,
        created_at,
        customer_id,
        ticket_number,
        vehicle_model_id,
        vin,
        connection_id,
        finished_at: Moment(ticket.closed_at.unwrap_or(ticket.created_at)),
        externally_processed: false,
        external_reference: String::new(),
        operator_id: ticket.operator_id.as_ref().map(|id| operator_uuid(Some(id))),
        vehicle_battery_voltage: "12v".to_owned(),
    }
}

fn cancelled_body(catalogue: &Catalogue, ticket: &Ticket) -> CancelledBody {
    let closed = closed_body(catalogue, ticket);
    CancelledBody {
        id: closed.id,
        created_at: closed.created_at,
        customer_id: closed.customer_id,
        ticket_number: closed.ticket_number,
        vehicle_model_id: closed.vehicle_model_id,
        vin: closed.vin,
        connection_id: closed.connection_id,
        finished_at: closed.finished_at,
        externally_processed: closed.externally_processed,
        external_reference: closed.external_reference,
        operator_id: closed.operator_id,
        vehicle_battery_voltage: closed.vehicle_battery_voltage,
        cancel_reason_id: ticket.cancel_reason_id.unwrap_or(1),
    }
}

macro_rules! collection {
    ($id:ident, $parameter:literal, $list:ident, $one:ident, $body:ident, $of:ident, $state:ident, $what:literal) => {
        #[derive(Deserialize, JsonSchema)]
        pub(super) struct $id {
            #[serde(rename = $parameter)]
            id: Uuid,
        }

        pub(super) async fn $list(
            call: Call<Nothing, TicketsQuery, Nothing>,
        ) -> Result<Json<List<$body, TicketsQuery>>, ApiError> {
            let query = call.query;
            let mut tickets: Vec<Ticket> = call.app.store.view()?.all()?;
            tickets.retain(|ticket| {
                ticket.state == TicketState::$state
                    && query.ticket_number.is_none_or(|number| ticket.id == number)
            });
            let bodies = tickets.iter().map(|ticket| $of(&call.app.catalogue, ticket)).collect();
            let (limit, offset) = (query.limit, query.offset);
            Ok(Json(List::page(bodies, query, limit, offset)))
        }

        pub(super) async fn $one(call: Call<$id, Nothing, Nothing>) -> Result<Json<$body>, ApiError> {
            let found = call.app.store.view()?.by_uuid::<Ticket>(call.path.id)?;
            let found = found.filter(|ticket| ticket.state == TicketState::$state);
            let ticket = found.ok_or_else(|| ApiError::not_found($what))?;
            Ok(Json($of(&call.app.catalogue, &ticket)))
        }
    };
}

collection!(
    PendingId,
    "pending-ticket-id",
    list_pending,
    pending,
    PendingBody,
    pending_body,
    Pending,
    "pending ticket"
);
collection!(
    OutsourcedId,
    "outsourced-ticket-id",
    list_outsourced,
    outsourced,
    OutsourcedBody,
    outsourced_body,
    Outsourced,
    "outsourced ticket"
);
collection!(
    ClosedId,
    "closed-ticket-id",
    list_closed,
    closed,
    ClosedBody,
    closed_body,
    Closed,
    "closed ticket"
);
collection!(
    CancelledId,
    "cancelled-ticket-id",
    list_cancelled,
    cancelled,
    CancelledBody,
    cancelled_body,
    Cancelled,
    "cancelled ticket"
);
