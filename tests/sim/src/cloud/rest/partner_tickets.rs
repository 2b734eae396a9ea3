//! The partner API's tickets: joining pending ones, and ending those in progress.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value};

use super::extract::{Body, Caller, Id, Parameters};
use super::fields::Fields;
use super::partner_prepared_tickets::{Paging, asked, page};
use super::problem::ApiError;
use super::ticket_lifecycle::{self, End};
use crate::cloud::app::App;
use crate::cloud::hub::Changed;
use crate::cloud::store::{Read, Ticket, TicketState, View};
use crate::cloud::views;

const IN_PROGRESS: &str = "/v2/tickets/in-progress-tickets";
/// Limit of a reference.
const MAX_REFERENCE: usize = 255;
/// Limit of a reason.
const MAX_REASON: usize = 1000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v2/tickets/pending-tickets", get(list_pending))
        .route("/v2/tickets/pending-tickets/{id}", get(one_pending).patch(join))
        .route(IN_PROGRESS, get(list_in_progress))
        .route("/v2/tickets/in-progress-tickets/{id}", get(one_in_progress).put(replace).patch(transition))
        .route("/v2/tickets/{id}", get(one))
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
            && (vin.is_none() || ticket.vin == vin)
    });
    let found: Vec<Value> =
        tickets.iter().map(|ticket| partner_view(&view, ticket)).collect::<Result<_, _>>()?;
    Ok(Json(page(query, &paging, &found)))
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

async fn one_in_progress(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let view = app.store.view()?;
    let ticket = in_state(&view, &id, TicketState::InProgress, "ticket in progress")?;
    Ok(Json(partner_view(&view, &ticket)?))
}

/// A ticket in any state, to which the transitions of a ticket in progress redirect.
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

async fn transition(
    State(app): State<App>,
    caller: Caller,
    id: Id,
    body: Body,
) -> Result<Response, ApiError> {
    caller.operator()?;
    let (mut fields, kind) = transition_fields(body, &["complete", "cancel", "outsource"])?;
    let reason = fields.text("reason", MAX_REASON);
    let partner = fields.name_or_number("partner_id");
    fields.finish()?;
    let end = match kind.as_str() {
        "complete" => End::Complete,
        "cancel" => End::Cancel(reason),
        _ => End::Outsource(partner),
    };
    let ticket = app
        .store
        .change(move |change| {
            let ticket = existing(change, &id)?;
            ticket_lifecycle::end(change, ticket, &[TicketState::InProgress], end)
        })
        .await?;
    tracing::info!(ticket = ticket.id, state = ?ticket.state, "ticket ended");
    ticket_lifecycle::update_relay(&app, &ticket);
    Ok(see_other(format!("/v2/tickets/{}", ticket.uuid)))
}

/// Replaces the fields that the operator may correct: an absent field stays, null clears it.
async fn replace(
    State(app): State<App>,
    caller: Caller,
    id: Id,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let mut fields = body.fields();
    let vin = if_present(&mut fields, "vin", Fields::vin);
    let model = if_present(&mut fields, "vehicle_model_id", Fields::id);
    let variant = if_present(&mut fields, "vehicle_model_variant_id", Fields::id);
    let products = fields.ids("product_ids");
    let reference = if_present(&mut fields, "reference", |fields, field| fields.text(field, MAX_REFERENCE));
    let external = if_present(&mut fields, "preparer_external_reference", |fields, field| {
        fields.text(field, MAX_REFERENCE)
    });
    fields.finish()?;
    let (ticket, view) = app
        .store
        .change(move |change| {
            let mut ticket = in_state(change, &id, TicketState::InProgress, "ticket in progress")?;
            ticket.vin = vin.unwrap_or(ticket.vin);
            ticket.vehicle_model_id = model.unwrap_or(ticket.vehicle_model_id);
            ticket.vehicle_model_variant_id = variant.unwrap_or(ticket.vehicle_model_variant_id);
            ticket.product_ids = products.unwrap_or(ticket.product_ids);
            ticket.reference = reference.unwrap_or(ticket.reference);
            ticket.preparer_external_reference = external.unwrap_or(ticket.preparer_external_reference);
            change.put(&ticket)?;
            let view = partner_view(change, &ticket)?;
            Ok::<_, ApiError>((ticket, view))
        })
        .await?;
    app.hub.changed(Changed::Ticket(ticket.id));
    Ok(Json(view))
}

/// The field's value if the field is present; null is present.
fn if_present<T>(
    fields: &mut Fields,
    field: &str,
    get: impl FnOnce(&mut Fields, &str) -> Option<T>,
) -> Option<Option<T>> {
    fields.has(field).then(|| get(fields, field))
}
