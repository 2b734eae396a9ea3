//! The collections of pending, outsourced, closed and cancelled tickets.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bodies::{List, PendingBody, TicketsQuery, operator_uuid, ticket_in_state, voucher};
use crate::cloud::catalogue::Catalogue;
use crate::cloud::rest::api::{Call, Moment, Nothing};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Ticket, TicketState};

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OutsourcedTicket")]
pub(super) struct OutsourcedBody {
    #[serde(flatten)]
    common: PendingBody,
    outsource_provider_id: Option<Uuid>,
    outsource_ticket_id: Option<Uuid>,
    reclaimable: bool,
    voucher_code: Option<String>,
}

impl OutsourcedBody {
    fn of(catalogue: &Catalogue, ticket: &Ticket) -> Self {
        let uuid = |field: &str| ticket.outsourced_to.as_ref()?.get(field)?.as_str()?.parse().ok();
        Self {
            common: PendingBody::of(catalogue, ticket),
            outsource_provider_id: uuid("provider_id"),
            outsource_ticket_id: uuid("outsource_ticket_id"),
            // no operator of the other provider works in a sandbox
            reclaimable: true,
            voucher_code: voucher(ticket),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ClosedTicket")]
pub(super) struct ClosedBody {
    #[serde(flatten)]
    common: PendingBody,
    finished_at: Moment,
    externally_processed: bool,
    external_reference: String,
    operator_id: Option<Uuid>,
    vehicle_battery_voltage: String,
}

impl ClosedBody {
    fn of(catalogue: &Catalogue, ticket: &Ticket) -> Self {
        Self {
            common: PendingBody::of(catalogue, ticket),
            finished_at: Moment(ticket.closed_at.unwrap_or(ticket.created_at)),
            externally_processed: false,
            external_reference: String::new(),
            operator_id: ticket.operator_id.as_ref().map(|id| operator_uuid(Some(id))),
            vehicle_battery_voltage: "12v".to_owned(),
        }
    }
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CancelledTicket")]
pub(super) struct CancelledBody {
    #[serde(flatten)]
    common: ClosedBody,
    cancel_reason_id: i32,
}

impl CancelledBody {
    fn of(catalogue: &Catalogue, ticket: &Ticket) -> Self {
        Self {
            common: ClosedBody::of(catalogue, ticket),
            cancel_reason_id: ticket.cancel_reason_id.unwrap_or(1),
        }
    }
}

/// The list of a collection, and a ticket in it.
macro_rules! collection {
    ($state:ident, $id:ident, $parameter:literal, $list:ident, $one:ident, $body:ident, $what:literal) => {
        #[derive(Deserialize, JsonSchema)]
        pub(super) struct $id {
            #[serde(rename = $parameter)]
            id: Uuid,
        }

        pub(super) async fn $list(
            call: Call<Nothing, TicketsQuery, Nothing>,
        ) -> Result<Json<List<$body, TicketsQuery>>, ApiError> {
            List::in_state(&call.app, call.query, TicketState::$state, $body::of).map(Json)
        }

        pub(super) async fn $one(call: Call<$id, Nothing, Nothing>) -> Result<Json<$body>, ApiError> {
            let view = call.app.store.view()?;
            let ticket = ticket_in_state(&view, call.path.id, TicketState::$state, $what)?;
            Ok(Json($body::of(&call.app.catalogue, &ticket)))
        }
    };
}

collection!(Pending, PendingId, "pending-ticket-id", list_pending, pending, PendingBody, "pending ticket");
collection!(
    Outsourced,
    OutsourcedId,
    "outsourced-ticket-id",
    list_outsourced,
    outsourced,
    OutsourcedBody,
    "outsourced ticket"
);
collection!(Closed, ClosedId, "closed-ticket-id", list_closed, closed, ClosedBody, "closed ticket");
collection!(
    Cancelled,
    CancelledId,
    "cancelled-ticket-id",
    list_cancelled,
    cancelled,
    CancelledBody,
    "cancelled ticket"
);
