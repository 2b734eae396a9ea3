//! The customers' tickets in the sandbox's form: also for vehicles without a VIN, with all fields, and with notes.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::paging::page;
use crate::cloud::app::App;
use crate::cloud::rest::extract::{Body, Caller, Id, Parameters};
use crate::cloud::rest::fields::Fields;
use crate::cloud::rest::problem::{ApiError, Violations};
use crate::cloud::rest::ticket_lifecycle::{self, End, NewTicket};
use crate::cloud::store::{Note, Read as _, Ticket, TicketState};
use crate::cloud::views;

/// Limit of a page.
const MAX_LIMIT: i64 = 200;
/// Limit of a reference.
const MAX_REFERENCE: usize = 255;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/sandbox/v1/tickets", get(list).post(create))
        .route("/sandbox/v1/tickets/{id}", get(one).patch(transition))
        .route("/sandbox/v1/tickets/{id}/notes", post(add_note))
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.customer()?;
    let mut fields = parameters.fields();
    let offset = fields.within("offset", 0, i64::MAX).unwrap_or(0);
    let limit = fields.within("limit", 1, MAX_LIMIT).unwrap_or(MAX_LIMIT);
    fields.finish()?;
    let mut tickets: Vec<Ticket> = app.store.view()?.all()?;
    tickets.retain(|ticket| caller.sees(ticket.connector_id));
    Ok(Json(page(&tickets, offset, limit, views::ticket)))
}

/// The ticket, if it exists and the caller may see it.
fn seen(caller: &Caller, ticket: Option<Ticket>) -> Result<Ticket, ApiError> {
    let ticket = ticket.ok_or_else(|| ApiError::not_found("ticket"))?;
    if caller.sees(ticket.connector_id) {
        Ok(ticket)
    } else {
        Err(ApiError::forbidden("The ticket is on another connector."))
    }
}

async fn one(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    caller.customer()?;
    let ticket = seen(&caller, id.ticket(&app.store.view()?)?)?;
    Ok(Json(views::ticket(&ticket)))
}

/// The customers' only transition: `{"transition":{"type":"cancel","reason"?}}`.
async fn transition(
    State(app): State<App>,
    caller: Caller,
    id: Id,
    body: Body,
) -> Result<Response, ApiError> {
    caller.customer()?;
    let mut fields = body.fields();
    let transition = fields.needed("transition", Fields::object).unwrap_or_default();
    fields.finish()?;
    let mut fields = Fields::of(transition);
    let kind = fields.needed("type", |fields, field| fields.name(field, 32));
    let reason = fields.text("reason", MAX_REFERENCE);
    if kind.as_deref().is_some_and(|kind| kind != "cancel") {
        fields.violation("type", "must be cancel");
    }
    fields.finish()?;
    let ticket = app
        .store
        .change(move |change| {
            let ticket = seen(&caller, id.ticket(change)?)?;
            let from = [TicketState::Pending, TicketState::InProgress];
            ticket_lifecycle::end(change, ticket, &from, End::Cancel(reason, None))
        })
        .await?;
    ticket_lifecycle::update_relay(&app, &ticket);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, format!("/sandbox/v1/tickets/{}", ticket.id))]).into_response())
}

/// Limit of a note.
const MAX_NOTE: usize = 10_000;
/// Limit of the notes of one ticket.
const MAX_NOTES: usize = 100;

/// Adds a note, as the operators do.
async fn add_note(State(app): State<App>, caller: Caller, id: Id, body: Body) -> Result<Response, ApiError> {
    caller.operator()?;
    let mut fields = body.fields();
    let value = fields.needed("value", |fields, field| fields.name(field, MAX_NOTE));
    fields.finish()?;
    let stored = app.store.change(move |change| {
        let ticket = id.ticket(change)?.ok_or_else(|| ApiError::not_found("ticket"))?;
        let all: Vec<Note> = change.all()?;
        if all.iter().filter(|note| note.ticket_id == ticket.id).count() >= MAX_NOTES {
            let detail = format!("A ticket has at most {MAX_NOTES} notes.");
            return Err(ApiError::conflict("full", "Full", detail));
        }
        let now = OffsetDateTime::now_utc();
        let value = value.unwrap_or_default();
        let note = Note { id: Uuid::new_v4(), ticket_id: ticket.id, value, created_at: now, updated_at: now };
        change.put(&note)?;
        Ok(note)
    });
    let note = stored.await?;
    Ok((StatusCode::CREATED, Json(json!({"id": note.id, "ticket_id": note.ticket_id}))).into_response())
}

fn parse(body: Body) -> Result<NewTicket, ApiError> {
    let mut fields = body.fields();
    for field in ["vin", "vehicle_model_id"] {
        fields.require(field);
    }
    let connector_id = fields.needed("connector_id", Fields::id);
    let product_ids = fields.needed("product_ids", Fields::ids);
    let metadata = fields.object("metadata").unwrap_or_default();
    if metadata.get("vin_is_found_by_reader").is_some_and(|found| !found.is_boolean()) {
        fields.violation("metadata.vin_is_found_by_reader", "must be true or false");
    }
    let ticket = NewTicket {
        vin: fields.vin("vin").map(|vin| vin.to_string()),
        vehicle_model_id: fields.id("vehicle_model_id"),
        vehicle_model_variant_id: fields.id("vehicle_model_variant_id"),
        connector_id: connector_id.unwrap_or_default(),
        product_ids: product_ids.unwrap_or_default(),
        product_prerequisites: Vec::new(),
        metadata,
        prepared_ticket_id: fields.uuid("prepared_ticket_id"),
        reference: fields.text("reference", MAX_REFERENCE),
        voucher: fields.voucher("voucher"),
        confirmed_unattended_service: fields.boolean("confirmed_unattended_service"),
    };
    fields.finish()?;
    Ok(ticket)
}

async fn create(State(app): State<App>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    let subject = caller.customer()?.clone();
    let new = parse(body)?;
    let catalogue = app.catalogue.clone();
    let ticket = app
        .store
        .change(move |change| new.create(change, &subject, &catalogue, Violations::default()))
        .await?;
    tracing::info!(ticket = ticket.id, connector_id = ticket.connector_id, "ticket pending");
    ticket_lifecycle::update_relay(&app, &ticket);
    let location = format!("/sandbox/v1/tickets/{}", ticket.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(views::ticket(&ticket))).into_response())
}
