//! The partner API's prepared tickets.

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use uuid::Uuid;

use super::extract::{Body, Caller, Id, Parameters};
use super::fields::Fields;
use super::problem::ApiError;
use super::ticket_lifecycle;
use crate::cloud::app::App;
use crate::cloud::random;
use crate::cloud::store::{Change, PreparedTicket, Read as _};
use crate::cloud::views;

const PATH: &str = "/v2/tickets/prepared-tickets";
/// Limit of an external reference.
const MAX_REFERENCE: usize = 255;
/// Limit of a description.
const MAX_DESCRIPTION: usize = 4000;
/// Limit of the prepared tickets.
const MAX_PREPARED: usize = 10_000;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(PATH, get(list).post(create))
        .route("/v2/tickets/prepared-tickets/{id}", get(one).put(replace).delete(remove))
}

/// A page of a partner's list: the query and its result.
pub(super) fn page(query: Map<String, Value>, paging: &Paging, found: &[Value]) -> Value {
    let result: Vec<&Value> = found.iter().skip(paging.offset).take(paging.limit).collect();
    json!({"query": query, "result": result, "total": found.len()})
}

/// The requested part of a list.
pub(super) struct Paging {
    offset: usize,
    limit: usize,
}

impl Paging {
    /// Parses the partner API's paging: `limit` is 0…1000, by default 25. Adds both values to `query`.
    pub(super) fn parse(fields: &mut Fields, query: &mut Map<String, Value>) -> Self {
        let offset = fields.within("offset", 0, i64::MAX).unwrap_or(0);
        let limit = fields.within("limit", 0, 1000).unwrap_or(25);
        query.insert("offset".to_owned(), json!(offset));
        query.insert("limit".to_owned(), json!(limit));
        Self {
            offset: usize::try_from(offset).unwrap_or(usize::MAX),
            limit: usize::try_from(limit).unwrap_or(0),
        }
    }
}

/// The known parameters of the query, for the answer.
pub(super) fn asked(parameters: &Parameters, known: &[&str]) -> Map<String, Value> {
    let known = parameters.0.iter().filter(|(name, _)| known.contains(&name.as_str()));
    known.map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect()
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let mut query = asked(
        &parameters,
        &[
            "created_after",
            "created_before",
            "customer_id",
            "preparer_external_reference",
            "product_id",
            "ticket_number",
            "vin",
        ],
    );
    let mut fields = parameters.fields();
    let after = fields.moment("created_after");
    let before = fields.moment("created_before");
    let customer = fields.integer("customer_id");
    let reference = fields.text("preparer_external_reference", MAX_REFERENCE);
    let product = fields.integer("product_id");
    let number = fields.integer("ticket_number");
    let vin = fields.vin("vin");
    let paging = Paging::parse(&mut fields, &mut query);
    fields.finish()?;
    let mut tickets: Vec<PreparedTicket> = app.store.view()?.all()?;
    tickets.retain(|ticket| {
        after.is_none_or(|after| ticket.created_at > after)
            && before.is_none_or(|before| ticket.created_at < before)
            && customer.is_none_or(|customer| ticket.customer_id == Some(customer))
            && (reference.is_none() || ticket.preparer_external_reference == reference)
            && product.is_none_or(|product| ticket.product_ids.contains(&product))
            && number.is_none_or(|number| ticket.ticket_number == number)
            && (vin.is_none() || ticket.vin == vin)
    });
    tickets.sort_by_key(|ticket| ticket.ticket_number);
    let found: Vec<Value> = tickets.iter().map(views::prepared_ticket).collect();
    Ok(Json(page(query, &paging, &found)))
}

/// The fields of a prepared ticket that a partner sets.
struct PreparedContents {
    customer_id: Option<i64>,
    vin: Option<connector_agent::protocol::vin::Vin>,
    product_ids: Vec<i64>,
    vehicle_model_id: Option<i64>,
    vehicle_model_variant_id: Option<i64>,
    preparer_external_reference: Option<String>,
    voucher_code: Option<String>,
    description: Option<String>,
}

impl PreparedContents {
    fn parse(body: Body) -> Result<Self, ApiError> {
        let mut fields = body.fields();
        let single = fields.id("product_id");
        let several = fields.ids("product_ids");
        if single.is_none() && several.is_none() {
            // a present but invalid field has its violation already
            if fields.value("product_id").is_none() && fields.value("product_ids").is_none() {
                fields.violation("product_id", "is required, or product_ids");
            }
        }
        let contents = Self {
            customer_id: fields.id("customer_id"),
            vin: fields.vin("vin"),
            product_ids: several.unwrap_or_else(|| single.into_iter().collect()),
            vehicle_model_id: fields.id("vehicle_model_id"),
            vehicle_model_variant_id: fields.id("vehicle_model_variant_id"),
            preparer_external_reference: fields.text("preparer_external_reference", MAX_REFERENCE),
            voucher_code: fields.voucher("voucher_code"),
            description: fields.text("description", MAX_DESCRIPTION),
        };
        fields.finish()?;
        Ok(contents)
    }

    /// Stores the fields together with the ticket's identity.
    fn store(self, change: &Change, identity: Identity) -> Result<PreparedTicket, ApiError> {
        let taken = match &self.voucher_code {
            Some(voucher) => change
                .all::<PreparedTicket>()?
                .iter()
                .any(|other| other.id != identity.id && other.voucher_code == *voucher),
            None => false,
        };
        if taken {
            return Err(ApiError::violation("voucher_code", "belongs to another prepared ticket"));
        }
        let ticket = PreparedTicket {
            id: identity.id,
            ticket_number: identity.ticket_number,
            customer_id: self.customer_id,
            vin: self.vin,
            product_ids: self.product_ids,
            vehicle_model_id: self.vehicle_model_id,
            vehicle_model_variant_id: self.vehicle_model_variant_id,
            preparer_external_reference: self.preparer_external_reference,
            voucher_code: self.voucher_code.unwrap_or(identity.voucher_code),
            description: self.description,
            preparer: identity.preparer,
            created_at: identity.created_at,
        };
        change.put(&ticket)?;
        Ok(ticket)
    }
}

/// The fields of a prepared ticket that do not change when its contents are replaced.
struct Identity {
    id: Uuid,
    ticket_number: i64,
    voucher_code: String,
    preparer: String,
    created_at: OffsetDateTime,
}

async fn create(State(app): State<App>, caller: Caller, body: Body) -> Result<Response, ApiError> {
    let preparer = caller.operator()?.id.clone();
    let contents = PreparedContents::parse(body)?;
    let ticket = app
        .store
        .change(move |change| {
            if change.all::<PreparedTicket>()?.len() >= MAX_PREPARED {
                let detail = format!("The sandbox stores at most {MAX_PREPARED} prepared tickets.");
                return Err(ApiError::conflict("full", "Full", detail));
            }
            let identity = Identity {
                id: Uuid::new_v4(),
                ticket_number: ticket_lifecycle::next_ticket_number(change)?,
                voucher_code: random::voucher(8),
                preparer,
                created_at: OffsetDateTime::now_utc(),
            };
            contents.store(change, identity)
        })
        .await?;
    let location = format!("{PATH}/{}", ticket.id);
    Ok((StatusCode::CREATED, [(LOCATION, location)], Json(views::prepared_ticket(&ticket))).into_response())
}

async fn one(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let ticket: Option<PreparedTicket> = app.store.view()?.get(id.uuid()?.as_bytes())?;
    let ticket = ticket.ok_or_else(|| ApiError::not_found("prepared ticket"))?;
    Ok(Json(views::prepared_ticket(&ticket)))
}

async fn replace(
    State(app): State<App>,
    caller: Caller,
    id: Id,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    caller.operator()?;
    let id = id.uuid()?;
    let contents = PreparedContents::parse(body)?;
    let ticket = app
        .store
        .change(move |change| {
            let old: PreparedTicket =
                change.get(id.as_bytes())?.ok_or_else(|| ApiError::not_found("prepared ticket"))?;
            let identity = Identity {
                id: old.id,
                ticket_number: old.ticket_number,
                voucher_code: old.voucher_code,
                preparer: old.preparer,
                created_at: old.created_at,
            };
            contents.store(change, identity)
        })
        .await?;
    Ok(Json(views::prepared_ticket(&ticket)))
}

async fn remove(State(app): State<App>, caller: Caller, id: Id) -> Result<StatusCode, ApiError> {
    caller.operator()?;
    let id = id.uuid()?;
    let removed = app
        .store
        .change(move |change| Ok::<_, ApiError>(change.delete::<PreparedTicket>(id.as_bytes())?))
        .await?;
    if removed { Ok(StatusCode::NO_CONTENT) } else { Err(ApiError::not_found("prepared ticket")) }
}
