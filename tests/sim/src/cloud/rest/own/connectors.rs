//! Connectors, with everything that the sandbox knows of them.

use axum::extract::State;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use crate::cloud::app::App;
use crate::cloud::hub::problem_of;
use crate::cloud::rest::customer::connectors::seen;
use crate::cloud::rest::extract::{Caller, Id};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::Read as _;
use crate::cloud::views;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/sandbox/v1/connectors/uuid/{uuid}", get(by_uuid))
        .route("/sandbox/v1/connectors/uuid/{uuid}/identify-vehicle", post(identify_vehicle))
}

async fn by_uuid(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let connector = seen(&caller.0, app.store.view()?.by_uuid(id.uuid()?)?)?;
    Ok(Json(views::connector(&app.hub, &connector)))
}

async fn identify_vehicle(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let connector = seen(&caller.0, app.store.view()?.by_uuid(id.uuid()?)?)?;
    let reply = app.hub.ask(connector.id, "identifyVehicle", json!({})).await?;
    if reply.action == "vehicleIdentified" {
        return Ok(Json(reply.message));
    }
    Err(problem_of(reply.message).into())
}
