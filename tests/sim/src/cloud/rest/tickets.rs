//! The customers' tickets.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use connector_agent::protocol::vin::Vin;
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::connectors::page;
use super::extract::{Body, Caller, Id, Parameters};
use super::fields::Fields;
use super::problem::ApiError;
use super::ticket_lifecycle::{self, End};
use crate::cloud::app::App;
use crate::cloud::store::{Account, Change, PreparedTicket, Read as _, Role, Subject, Ticket, TicketState};
use crate::cloud::views;

/// Limit of a page.
const MAX_LIMIT: i64 = 200;
/// Limit of a reference.
const MAX_REFERENCE: usize = 255;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/tickets", get(list).post(create))
        .route("/v1/tickets/{id}", get(one).patch(transition))
        .route("/v1/prepared-tickets", get(prepared))
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
            ticket_lifecycle::end(change, ticket, &from, End::Cancel(reason))
        })
        .await?;
    ticket_lifecycle::update_relay(&app, &ticket);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, format!("/v1/tickets/{}", ticket.id))]).into_response())
}

/// The fields of a new ticket.
#[derive(Debug)]
struct NewTicket {
    vin: Option<Vin>,
    vehicle_model_id: Option<i64>,
    vehicle_model_variant_id: Option<i64>,
    connector_id: i64,
    product_ids: Vec<i64>,
    metadata: Map<String, Value>,
    prepared_ticket_id: Option<Uuid>,
    reference: Option<String>,
    voucher: Option<String>,
    confirmed_unattended_service: Option<bool>,
}

impl NewTicket {
    fn parse(body: Body) -> Result<Self, ApiError> {
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
        let ticket = Self {
            vin: fields.vin("vin"),
            vehicle_model_id: fields.id("vehicle_model_id"),
            vehicle_model_variant_id: fields.id("vehicle_model_variant_id"),
            connector_id: connector_id.unwrap_or_default(),
            product_ids: product_ids.unwrap_or_default(),
            metadata,
            prepared_ticket_id: fields.uuid("prepared_ticket_id"),
            reference: fields.text("reference", MAX_REFERENCE),
            voucher: fields.voucher("voucher"),
            confirmed_unattended_service: fields.boolean("confirmed_unattended_service"),
        };
        fields.finish()?;
        Ok(ticket)
    }

    /// The prepared ticket that the new ticket continues, by its id or voucher.
    fn prepared(&self, change: &Change, caller: &Subject) -> Result<Option<PreparedTicket>, ApiError> {
        let (field, prepared) = match (self.prepared_ticket_id, &self.voucher) {
            (Some(id), _) => ("prepared_ticket_id", change.get::<PreparedTicket>(id.as_bytes())?),
            (None, Some(voucher)) => {
                let all = change.all::<PreparedTicket>()?;
                ("voucher", all.into_iter().find(|prepared| prepared.voucher_code == *voucher))
            }
            (None, None) => return Ok(None),
        };
        let prepared =
            prepared.ok_or_else(|| ApiError::violation(field, "there is no such prepared ticket"))?;
        if self.voucher.as_ref().is_some_and(|voucher| *voucher != prepared.voucher_code) {
            return Err(ApiError::violation("voucher", "does not belong to the prepared ticket"));
        }
        if prepared.vin.is_some() && self.vin.is_some() && prepared.vin != self.vin {
            return Err(ApiError::violation("vin", "differs from the prepared ticket's"));
        }
        if caller.role == Role::Customer && prepared.customer_id.is_some() {
            let own = change.get::<Account>(caller.id.as_bytes())?.and_then(|account| account.customer_id);
            if own != prepared.customer_id {
                return Err(ApiError::violation(field, "is prepared for another customer"));
            }
        }
        Ok(Some(prepared))
    }

    fn create(self, change: &Change, caller: &Subject) -> Result<Ticket, ApiError> {
        let Some(connector) = change.connector(self.connector_id)? else {
            return Err(ApiError::violation("connector_id", "there is no such connector"));
        };
        if !caller.sees(connector.id) {
            return Err(ApiError::forbidden("The token belongs to another connector."));
        }
        let is_pending =
            |ticket: &Ticket| ticket.connector_id == connector.id && ticket.state == TicketState::Pending;
        if let Some(pending) = change.all::<Ticket>()?.iter().find(|ticket| is_pending(ticket)) {
            return Err(ApiError::new(
                StatusCode::BAD_REQUEST,
                "pending-ticket",
                "The connector has a pending ticket",
                format!("Ticket {} is pending on the connector.", pending.id),
            ));
        }
        let prepared = self.prepared(change, caller)?;
        let (id, uuid) = match &prepared {
            // the prepared ticket becomes the new ticket
            Some(prepared) => {
                change.delete::<PreparedTicket>(prepared.id.as_bytes())?;
                (prepared.ticket_number, prepared.id)
            }
            None => (ticket_lifecycle::next_ticket_number(change)?, Uuid::new_v4()),
        };
        let ticket = Ticket {
            id,
            uuid,
            state: TicketState::Pending,
            vin: self.vin.or(prepared.as_ref().and_then(|prepared| prepared.vin)),
            vehicle_model_id: self.vehicle_model_id,
            vehicle_model_variant_id: self.vehicle_model_variant_id,
            product_ids: self.product_ids,
            connector_id: connector.id,
            chat_id: Uuid::new_v4(),
            metadata: self.metadata,
            reference: self.reference,
            voucher: self.voucher,
            prepared_ticket_id: prepared.as_ref().map(|prepared| prepared.id),
            preparer_external_reference: prepared.and_then(|prepared| prepared.preparer_external_reference),
            confirmed_unattended_service: self.confirmed_unattended_service,
            customer: caller.id.clone(),
            operator: None,
            operator_id: None,
            connection_id: None,
            connection_uuid: None,
            cancelled_reason: None,
            outsourced_to: None,
            created_at: OffsetDateTime::now_utc(),
            joined_at: None,
            closed_at: None,
        };
        change.put(&ticket)?;
        change.index(ticket.uuid, ticket.id)?;
        Ok(ticket)
    }
}

async fn create(State(app): State<App>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    let subject = caller.customer()?.clone();
    let new = NewTicket::parse(body)?;
    let ticket = app.store.change(move |change| new.create(change, &subject)).await?;
    tracing::info!(ticket = ticket.id, connector_id = ticket.connector_id, "ticket pending");
    ticket_lifecycle::update_relay(&app, &ticket);
    let location = format!("/v1/tickets/{}", ticket.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(views::ticket(&ticket))).into_response())
}

async fn prepared(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let subject = caller.customer()?;
    let mut fields = parameters.fields();
    let vin = fields.needed("vin", Fields::vin);
    let offset = fields.within("offset", 0, i64::MAX).unwrap_or(0);
    let limit = fields.within("limit", 1, MAX_LIMIT).unwrap_or(MAX_LIMIT);
    fields.finish()?;
    let view = app.store.view()?;
    let own = view.get::<Account>(subject.id.as_bytes())?.and_then(|account| account.customer_id);
    let mut tickets: Vec<PreparedTicket> = view.all()?;
    tickets.retain(|ticket| {
        // a connector's token does not name its customer, so the VIN has to suffice
        let is_own = own.is_none() || ticket.customer_id.is_none() || ticket.customer_id == own;
        ticket.vin == vin && is_own
    });
    tickets.sort_by_key(|ticket| ticket.ticket_number);
    Ok(Json(page(&tickets, offset, limit, views::prepared_ticket)))
}
