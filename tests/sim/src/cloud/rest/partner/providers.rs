//! The reasons to cancel, and the providers to which tickets can be outsourced.

use axum::Json;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::bodies::{List, PageQuery};
use crate::cloud::catalogue::Named;
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
    Ok(Json(List::page(reasons.collect(), call.query, call.query)))
}

pub(super) async fn providers(
    call: Call<Nothing, PageQuery, Nothing>,
) -> Result<Json<List<Named<Uuid>, PageQuery>>, ApiError> {
    let providers = call.app.catalogue.outsource_providers.clone();
    Ok(Json(List::page(providers, call.query, call.query)))
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ProviderId {
    #[serde(rename = "provider-id")]
    id: Uuid,
}

pub(super) async fn provider(
    call: Call<ProviderId, Nothing, Nothing>,
) -> Result<Json<Named<Uuid>>, ApiError> {
    let mut providers = call.app.catalogue.outsource_providers.iter();
    let found = providers.find(|provider| provider.id == call.path.id);
    Ok(Json(found.ok_or_else(|| ApiError::not_found("provider"))?.clone()))
}
