//! The search for a vehicle by VIN.

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;

use super::extract::{Caller, Parameters};
use super::fields::Fields;
use super::problem::ApiError;
use crate::cloud::app::App;

pub(super) fn routes() -> Router<App> {
    Router::new().route("/v1/vehicles/search", get(search))
}

async fn search(State(app): State<App>, _: Caller, parameters: Parameters) -> Result<Json<Value>, ApiError> {
    let mut fields = parameters.fields();
    let vin = fields.needed("vin", Fields::vin);
    fields.finish()?;
    let found = vin.and_then(|vin| app.catalogue.find(vin));
    found.map(Json).ok_or_else(|| ApiError::not_found("vehicle"))
}
