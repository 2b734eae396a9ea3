//! Tickets for partners in the sandbox's form, and what the documents do not print: joining a ticket, and adding a
//! product to a prepared one.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Map, Value};

use super::paging::{Paging, asked, partner_page};
use crate::cloud::app::App;
use crate::cloud::rest::extract::{Body, Caller, Id, Parameters};
use crate::cloud::rest::fields::Fields;
use crate::cloud::rest::problem::ApiError;
use crate::cloud::rest::ticket_lifecycle;
use crate::cloud::store::{PreparedTicket, Read, Ticket, TicketState, View};
use crate::cloud::views;

const IN_PROGRESS: &str = "/v2/tickets/in-progress-tickets";
/// Limit of the products of a prepared ticket.
const MAX_PRODUCTS: usize = 100;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/sandbox/v2/tickets/pending-tickets", get(list_pending))
        .route("/sandbox/v2/tickets/pending-tickets/{id}", get(one_pending).patch(join))
        .route("/sandbox/v2/tickets/in-progress-tickets", get(list_in_progress))
        .route("/sandbox/v2/tickets/{id}", get(one))
        .route("/sandbox/v2/tickets/prepared-tickets/{id}/product-lines", post(add_product))
}

fn partner_view(read: &impl Read, ticket: &Ticket) -> Result<Value, ApiError> {
    Ok(views::partner_ticket(ticket, read.connector(ticket.connector_id)?.as_ref()))
}

fn list(
    app: &App,
    caller: &Caller,
    parameters: &Parameters,
    state: TicketState,
) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let known = ["created_after", "created_before", "connector_id", "product_id", "ticket_number", "vin"];
    let mut query = asked(parameters, &known);
    let mut fields = parameters.fields();
    let after = fields.moment("created_after");
    let before = fields.moment("created_before");
    let connector = fields.integer("connector_id");
    let product = fields.integer("product_id");
    let number = fields.integer("ticket_number");
    let vin = fields.vin("vin");
    let paging = Paging::parse(&mut fields, &mut query);
    fields.finish()?;
    let view = app.store.view()?;
    let mut tickets: Vec<Ticket> = view.all()?;
    tickets.retain(|ticket| {
        ticket.state == state
            && after.is_none_or(|after| ticket.created_at > after)
            && before.is_none_or(|before| ticket.created_at < before)
            && connector.is_none_or(|connector| ticket.connector_id == connector)
            && product.is_none_or(|product| ticket.product_ids.contains(&product))
            && number.is_none_or(|number| ticket.id == number)
            && vin.is_none_or(|vin| ticket.has_vin(vin.as_str()))
    });
    let found: Vec<Value> =
        tickets.iter().map(|ticket| partner_view(&view, ticket)).collect::<Result<_, _>>()?;
    Ok(Json(partner_page(query, &paging, &found)))
}

/// The ticket, if it is in this state.
fn in_state(read: &impl Read, id: &Id, state: TicketState, what: &str) -> Result<Ticket, ApiError> {
    id.ticket(read)?.filter(|ticket| ticket.state == state).ok_or_else(|| ApiError::not_found(what))
}

fn existing(read: &impl Read, id: &Id) -> Result<Ticket, ApiError> {
    id.ticket(read)?.ok_or_else(|| ApiError::not_found("ticket"))
}

async fn list_pending(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    list(&app, &caller, &parameters, TicketState::Pending)
}

async fn list_in_progress(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    list(&app, &caller, &parameters, TicketState::InProgress)
}

async fn one_pending(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let view: View = app.store.view()?;
    let ticket = in_state(&view, &id, TicketState::Pending, "pending ticket")?;
    Ok(Json(partner_view(&view, &ticket)?))
}

/// A ticket in any state.
async fn one(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let view = app.store.view()?;
    let ticket = existing(&view, &id)?;
    Ok(Json(partner_view(&view, &ticket)?))
}

/// The fields of `{"transition":{"type":…, …}}`, and the type.
fn transition_fields(body: Body, known: &[&str]) -> Result<(Fields, String), ApiError> {
    let mut fields = body.fields();
    let transition: Map<String, Value> = fields.needed("transition", Fields::object).unwrap_or_default();
    fields.finish()?;
    let mut fields = Fields::of(transition);
    let kind = fields.needed("type", |fields, field| fields.name(field, 32)).unwrap_or_default();
    if !kind.is_empty() && !known.contains(&kind.as_str()) {
        fields.violation("type", format!("must be one of: {}", known.join(", ")));
    }
    Ok((fields, kind))
}

fn see_other(location: String) -> Response {
    (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response()
}

async fn join(State(app): State<App>, caller: Caller, id: Id, body: Body) -> Result<Response, ApiError> {
    let operator = caller.operator()?.id.clone();
    let (mut fields, _) = transition_fields(body, &["join"])?;
    let operator_id = fields.needed("operator_id", Fields::name_or_number);
    fields.finish()?;
    let ticket = app
        .store
        .change(move |change| {
            let ticket = existing(change, &id)?;
            ticket_lifecycle::join(change, ticket, &operator, operator_id.unwrap_or_default())
        })
        .await?;
    tracing::info!(ticket = ticket.id, connector_id = ticket.connector_id, "ticket in progress");
    ticket_lifecycle::update_relay(&app, &ticket);
    Ok(see_other(format!("{IN_PROGRESS}/{}", ticket.uuid)))
}

/// Adds a product to a prepared ticket; the documents do not print the operation that does so.
async fn add_product(
    State(app): State<App>,
    caller: Caller,
    id: Id,
    body: Body,
) -> Result<StatusCode, ApiError> {
    caller.operator()?;
    let id = id.uuid()?;
    let mut fields = body.fields();
    let product = fields.needed("product_id", Fields::uuid);
    fields.finish()?;
    let known = product.and_then(|product| app.catalogue.product_by_uuid(product)).map(|product| product.id);
    let product = known.ok_or_else(|| ApiError::violation("product_id", "there is no such product"))?;
    let stored = app.store.change(move |change| {
        let ticket = change.get(id.as_bytes())?.filter(|ticket: &PreparedTicket| !ticket.is_picked_up);
        let mut ticket = ticket.ok_or_else(|| ApiError::not_found("prepared ticket"))?;
        if ticket.product_ids.len() >= MAX_PRODUCTS {
            let detail = format!("A prepared ticket has at most {MAX_PRODUCTS} products.");
            return Err(ApiError::conflict("full", "Full", detail));
        }
        ticket.product_ids.push(product);
        Ok(change.put(&ticket)?)
    });
    stored.await?;
    Ok(StatusCode::NO_CONTENT)
}
