//! The reasons to cancel, and the providers to which tickets can be outsourced.

use axum::Json;
use schemars::JsonSchema;
use serde::Serialize;
use uuid::Uuid;

use super::bodies::{List, PageQuery};
use crate::cloud::rest::api::{Call, Nothing};
use crate::cloud::rest::problem::ApiError;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "CancelReason")]
pub(super) struct ReasonBody {
    id: i32,
    allows_ticket_reopening: bool,
    customer_fault: bool,
    manually_applicable: bool,
    name: String,
}

pub(super) async fn cancel_reasons(
    call: Call<Nothing, PageQuery, Nothing>,
) -> Result<Json<List<ReasonBody, PageQuery>>, ApiError> {
    let reasons = call.app.catalogue.cancel_reasons.iter().map(|reason| ReasonBody {
        id: reason.id,
        allows_ticket_reopening: false,
        customer_fault: false,
        manually_applicable: true,
        name: reason.name.clone(),
    });
    let (limit, offset) = (call.query.limit, call.query.offset);
    Ok(Json(List::page(reasons.collect(), call.query, limit, offset)))
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OutsourceProvider")]
pub(super) struct ProviderBody {
    id: Uuid,
    name: String,
}

pub(super) async fn providers(
    call: Call<Nothing, PageQuery, Nothing>,
) -> Result<Json<List<ProviderBody, PageQuery>>, ApiError> {
    let providers = call.app.catalogue.outsource_providers.iter();
    let bodies =
        providers.map(|provider| ProviderBody { id: provider.id, name: provider.name.clone() }).collect();
    let (limit, offset) = (call.query.limit, call.query.offset);
    Ok(Json(List::page(bodies, call.query, limit, offset)))
}
