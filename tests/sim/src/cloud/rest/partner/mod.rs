//! The partner API: the table of its operations, and a file for each kind of resource.

mod bodies;
mod ended_tickets;
mod in_progress;
mod prepared;
mod providers;
mod published;

use axum::http::Method;

use super::api::Access::Partner;
use super::api::Mark::{Assumed, Printed, Read};
use super::api::{Operation, row};

const GET: Method = Method::GET;
const POST: Method = Method::POST;
const PUT: Method = Method::PUT;
const PATCH: Method = Method::PATCH;
const DELETE: Method = Method::DELETE;

/// The operations of the partner API. `Assumed` marks paths that the documents do not print.
#[rustfmt::skip]
pub(super) fn operations() -> Vec<Operation> {
    vec![
        row(GET, "/v2/tickets/prepared-tickets", Printed, Partner, 200, "The prepared tickets.").to(prepared::list),
        row(POST, "/v2/tickets/prepared-tickets", Printed, Partner, 201, "Prepares a ticket.").to(prepared::create),
        row(GET, "/v2/tickets/prepared-tickets/{prepared-ticket-id}", Printed, Partner, 200, "A prepared ticket.").to(prepared::one),
        row(PUT, "/v2/tickets/prepared-tickets/{prepared-ticket-id}", Printed, Partner, 200, "Changes a prepared ticket.").to(prepared::replace),
        row(DELETE, "/v2/tickets/prepared-tickets/{prepared-ticket-id}", Printed, Partner, 204, "Removes a prepared ticket.").to(prepared::remove),
        row(GET, "/v2/tickets/in-progress-tickets", Printed, Partner, 200, "The tickets in progress.").to(in_progress::list),
        row(GET, "/v2/tickets/in-progress-tickets/{in-progress-ticket-id}", Printed, Partner, 200, "A ticket in progress.").to(in_progress::one),
        row(PUT, "/v2/tickets/in-progress-tickets/{in-progress-ticket-id}", Printed, Partner, 200, "Assigns another operator.").to(in_progress::reassign),
        row(PATCH, "/v2/tickets/in-progress-tickets/{in-progress-ticket-id}", Printed, Partner, 303, "Outsources, completes or cancels a ticket.").to(in_progress::transition),
        row(GET, "/v2/tickets/pending-tickets", Assumed, Partner, 200, "The pending tickets.").to(ended_tickets::list_pending),
        row(GET, "/v2/tickets/pending-tickets/{pending-ticket-id}", Assumed, Partner, 200, "A pending ticket.").to(ended_tickets::pending),
        row(GET, "/v2/tickets/outsourced-tickets", Assumed, Partner, 200, "The outsourced tickets.").to(ended_tickets::list_outsourced),
        row(GET, "/v2/tickets/outsourced-tickets/{outsourced-ticket-id}", Printed, Partner, 200, "An outsourced ticket.").to(ended_tickets::outsourced),
        row(GET, "/v2/tickets/closed-tickets", Assumed, Partner, 200, "The closed tickets.").to(ended_tickets::list_closed),
        row(GET, "/v2/tickets/closed-tickets/{closed-ticket-id}", Assumed, Partner, 200, "A closed ticket.").to(ended_tickets::closed),
        row(GET, "/v2/tickets/cancelled-tickets", Assumed, Partner, 200, "The cancelled tickets.").to(ended_tickets::list_cancelled),
        row(GET, "/v2/tickets/cancelled-tickets/{cancelled-ticket-id}", Assumed, Partner, 200, "A cancelled ticket.").to(ended_tickets::cancelled),
        row(GET, "/v2/tickets/cancel-reasons", Assumed, Partner, 200, "The reasons to cancel.").to(providers::cancel_reasons),
        row(GET, "/v2/providers/providers", Read, Partner, 200, "The providers to which tickets can be outsourced.").to(providers::providers),
        row(GET, "/v2/providers/providers/{provider-id}", Assumed, Partner, 200, "A provider.").to(providers::provider),
        row(GET, "/v2/tickets/service-center", Read, Partner, 200, "The state of the service center.").to(published::service_center),
        row(GET, "/v2/customers/connectors", Assumed, Partner, 200, "The customers' connectors.").to(published::connectors),
        row(GET, "/v2/vehicles/model-groups", Read, Partner, 200, "The model groups, also of one make.").to(published::model_groups),
        row(GET, "/v2/vehicles/model-groups/{model-group-id}", Assumed, Partner, 200, "One model group.").to(published::model_group),
        row(GET, "/v2/vehicles/models", Assumed, Partner, 200, "The models, also of one make or group.").to(published::models),
    ]
}
