//! Prepared tickets.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use uuid::Uuid;

use super::bodies::{List, PreparedQuery};
use crate::cloud::catalogue::{Catalogue, product_uuid};
use crate::cloud::rest::api::{Call, Moment, Nothing, Removed};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::rest::ticket_lifecycle;
use crate::cloud::store::{PreparedTicket, Read as _};

/// Limit of the prepared tickets.
const MAX_PREPARED: usize = 10_000;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PreparedTicket")]
pub(super) struct PreparedBody {
    id: Uuid,
    created_at: Moment,
    customer_id: Uuid,
    ticket_number: i64,
    vehicle_model_id: i64,
    #[schemars(regex(pattern = "^([\\s\\S]{17}|string)$"))]
    vin: Option<String>,
    #[schemars(length(min = 4, max = 8))]
    voucher_code: Option<String>,
    #[schemars(length(max = 255))]
    preparer_external_reference: String,
}

impl From<&PreparedTicket> for PreparedBody {
    fn from(ticket: &PreparedTicket) -> Self {
        Self {
            id: ticket.id,
            created_at: Moment(ticket.created_at),
            customer_id: ticket.customer_id,
            ticket_number: ticket.ticket_number,
            vehicle_model_id: ticket.vehicle_model_id,
            vin: ticket.vin.clone(),
            voucher_code: ticket.voucher_code.clone(),
            preparer_external_reference: ticket.preparer_external_reference.clone(),
        }
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PreparedInput {
    customer_id: Uuid,
    vehicle_model_id: i64,
    #[schemars(required, schema_with = "vin_schema")]
    vin: Option<String>,
    #[serde(default)]
    #[schemars(schema_with = "voucher_schema")]
    voucher_code: Option<String>,
    #[schemars(length(max = 255))]
    preparer_external_reference: String,
}

/// The content that replaces another one; the voucher is required here.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ReplacementInput {
    vehicle_model_id: i64,
    #[schemars(required, schema_with = "vin_schema")]
    vin: Option<String>,
    #[schemars(required, schema_with = "voucher_schema")]
    voucher_code: Option<String>,
    #[schemars(length(max = 255))]
    preparer_external_reference: String,
}

/// The documents print the length 17, and `string` as the example.
fn vin_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": ["string", "null"], "pattern": "^([\\s\\S]{17}|string)$"})
}

fn voucher_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": ["string", "null"], "minLength": 4, "maxLength": 8, "pattern": "^[A-Z0-9]*$"})
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct PreparedId {
    #[serde(rename = "prepared-ticket-id")]
    id: Uuid,
}

impl PreparedId {
    fn find(&self, read: &impl crate::cloud::store::Read) -> Result<PreparedTicket, ApiError> {
        let found = read.get(self.id.as_bytes())?.filter(|ticket: &PreparedTicket| !ticket.is_picked_up);
        found.ok_or_else(|| ApiError::not_found("prepared ticket"))
    }
}

pub(super) async fn list(
    call: Call<Nothing, PreparedQuery, Nothing>,
) -> Result<Json<List<PreparedBody, PreparedQuery>>, ApiError> {
    let query = call.query;
    let mut tickets: Vec<PreparedTicket> = call.app.store.view()?.all()?;
    tickets.retain(|ticket| {
        let products = || ticket.product_ids.iter().map(|id| product_uuid(*id));
        let has_vin = |wanted: &str| match &ticket.vin {
            Some(vin) => vin.eq_ignore_ascii_case(wanted),
            None => wanted.is_empty(),
        };
        !ticket.is_picked_up
            && query.created_after.is_none_or(|after| ticket.created_at > after.0)
            && query.created_before.is_none_or(|before| ticket.created_at < before.0)
            && query.customer_id.is_none_or(|customer| ticket.customer_id == customer)
            && query
                .preparer_external_reference
                .as_ref()
                .is_none_or(|wanted| ticket.preparer_external_reference == *wanted)
            && query.product_id.is_none_or(|wanted| products().any(|product| product == wanted))
            && query.ticket_number.is_none_or(|number| ticket.ticket_number == number)
            && query.vin.as_deref().is_none_or(has_vin)
    });
    tickets.sort_by_key(|ticket| ticket.ticket_number);
    let bodies = tickets.iter().map(PreparedBody::from).collect();
    Ok(Json(List::page(bodies, query.page, query)))
}

/// Refuses a model that is not there.
fn check(catalogue: &Catalogue, model: i64) -> Result<(), ApiError> {
    if catalogue.has_model(model) {
        return Ok(());
    }
    Err(ApiError::violation("vehicle_model_id", "there is no such model"))
}

pub(super) async fn create(
    call: Call<Nothing, Nothing, PreparedInput>,
) -> Result<Json<PreparedBody>, ApiError> {
    let Call { app, body, .. } = call;
    check(&app.catalogue, body.vehicle_model_id)?;
    let stored = app.store.change(move |change| {
        let all = change.all::<PreparedTicket>()?;
        if all.iter().filter(|ticket| !ticket.is_picked_up).count() >= MAX_PREPARED {
            let detail = format!("The sandbox stores at most {MAX_PREPARED} prepared tickets.");
            return Err(ApiError::conflict("full", "Full", detail));
        }
        let ticket = PreparedTicket {
            id: Uuid::new_v4(),
            ticket_number: ticket_lifecycle::next_ticket_number(change)?,
            customer_id: body.customer_id,
            vin: body.vin,
            product_ids: Vec::new(),
            vehicle_model_id: body.vehicle_model_id,
            vehicle_model_variant_id: None,
            preparer_external_reference: body.preparer_external_reference,
            voucher_code: body.voucher_code,
            is_picked_up: false,
            created_at: OffsetDateTime::now_utc(),
        };
        change.put(&ticket)?;
        Ok(ticket)
    });
    Ok(Json(PreparedBody::from(&stored.await?)))
}

pub(super) async fn one(call: Call<PreparedId, Nothing, Nothing>) -> Result<Json<PreparedBody>, ApiError> {
    let ticket = call.path.find(&call.app.store.view()?)?;
    Ok(Json(PreparedBody::from(&ticket)))
}

pub(super) async fn replace(
    call: Call<PreparedId, Nothing, ReplacementInput>,
) -> Result<Json<PreparedBody>, ApiError> {
    let Call { app, path, body, .. } = call;
    check(&app.catalogue, body.vehicle_model_id)?;
    let stored = app.store.change(move |change| {
        let mut ticket = path.find(change)?;
        ticket.vin = body.vin;
        ticket.vehicle_model_id = body.vehicle_model_id;
        ticket.vehicle_model_variant_id = None;
        ticket.voucher_code = body.voucher_code;
        ticket.preparer_external_reference = body.preparer_external_reference;
        change.put(&ticket)?;
        Ok::<_, ApiError>(ticket)
    });
    Ok(Json(PreparedBody::from(&stored.await?)))
}

pub(super) async fn remove(call: Call<PreparedId, Nothing, Nothing>) -> Result<Removed, ApiError> {
    let Call { app, path, .. } = call;
    let stored = app.store.change(move |change| {
        path.find(change)?;
        Ok::<_, ApiError>(change.delete::<PreparedTicket>(path.id.as_bytes())?)
    });
    stored.await?;
    Ok(Removed)
}
