//! The resources of connectors.

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

use super::extract::{Caller, Id, Parameters};
use super::problem::ApiError;
use crate::cloud::app::App;
use crate::cloud::hub::{Changed, problem_of};
use crate::cloud::store::{Connector, Read, StoreError, Ticket, TicketState};
use crate::cloud::views;

/// Limit of a page.
const MAX_LIMIT: i64 = 200;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v1/connectors", get(list))
        .route("/v1/connectors/{id}", get(by_number))
        .route("/v1/connectors/uuid/{uuid}", get(by_uuid))
        .route("/v2/connectors/{uuid}", get(by_uuid))
        .route("/v1/connectors/{id}/active-ticket", get(active_ticket))
        .route("/v2/connectors/{uuid}/actions/dismiss-call-for-attention", post(dismiss_call_for_attention))
        .route("/v1/connectors/uuid/{uuid}/identify-vehicle", post(identify_vehicle))
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
) -> Result<Json<Value>, ApiError> {
    let mut fields = parameters.fields();
    let offset = fields.within("offset", 0, i64::MAX).unwrap_or(0);
    let limit = fields.within("limit", 1, MAX_LIMIT).unwrap_or(MAX_LIMIT);
    fields.finish()?;
    let mut connectors: Vec<Connector> = app.store.view()?.all()?;
    connectors.retain(|connector| caller.sees(connector.id));
    Ok(Json(page(&connectors, offset, limit, |connector| views::connector(&app.hub, connector))))
}

/// A page of a list, in the customers' form.
pub(super) fn page<T>(all: &[T], offset: i64, limit: i64, view: impl Fn(&T) -> Value) -> Value {
    let (skip, take) = (usize::try_from(offset).unwrap_or(usize::MAX), usize::try_from(limit).unwrap_or(0));
    let result: Vec<Value> = all.iter().skip(skip).take(take).map(view).collect();
    json!({"result": result, "total": all.len(), "offset": offset, "limit": limit})
}

async fn by_number(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let connector = seen(&caller, app.store.view()?.connector(id.number()?)?)?;
    Ok(Json(views::connector(&app.hub, &connector)))
}

async fn by_uuid(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let connector = seen(&caller, app.store.view()?.by_uuid(id.uuid()?)?)?;
    Ok(Json(views::connector(&app.hub, &connector)))
}

/// The connector, if it exists and the caller may see it.
fn seen(caller: &Caller, connector: Option<Connector>) -> Result<Connector, ApiError> {
    let connector = connector.ok_or_else(|| ApiError::not_found("connector"))?;
    if caller.sees(connector.id) {
        Ok(connector)
    } else {
        Err(ApiError::forbidden("The token belongs to another connector."))
    }
}

/// The ticket that occupies a connector: the one in progress, otherwise the pending one.
pub(super) fn active(read: &impl Read, connector_id: i64) -> Result<Option<Ticket>, StoreError> {
    let mut tickets = read.all::<Ticket>()?;
    tickets.retain(|ticket| ticket.connector_id == connector_id && ticket.is_active());
    let in_progress = tickets.iter().position(|ticket| ticket.state == TicketState::InProgress);
    Ok(match in_progress {
        Some(index) => Some(tickets.swap_remove(index)),
        None => tickets.pop(),
    })
}

async fn active_ticket(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let view = app.store.view()?;
    let connector = match id.number() {
        Ok(number) => view.connector(number)?,
        Err(_) => view.by_uuid(id.uuid()?)?,
    };
    let connector = seen(&caller, connector)?;
    match active(&view, connector.id)? {
        Some(ticket) => Ok(Json(views::ticket(&ticket))),
        None => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no-active-ticket",
            "No active ticket",
            "The connector has no ticket that is pending or in progress.",
        )),
    }
}

async fn dismiss_call_for_attention(
    State(app): State<App>,
    caller: Caller,
    id: Id,
) -> Result<StatusCode, ApiError> {
    let uuid = id.uuid()?;
    let connector = seen(&caller, app.store.view()?.by_uuid(uuid)?)?;
    // notify the connector first: the dismissal is stored only for an offline connector
    let is_notified = app.hub.notify(connector.id, "dismissCallForAttention", json!({}));
    app.store
        .change(move |change| {
            if let Some(mut connector) = change.by_uuid::<Connector>(uuid)? {
                connector.dismissal_owed = connector.call_for_attention && !is_notified;
                connector.call_for_attention = false;
                change.put(&connector)?;
            }
            Ok::<_, StoreError>(())
        })
        .await?;
    app.hub.changed(Changed::Connector(connector.id));
    Ok(StatusCode::NO_CONTENT)
}

async fn identify_vehicle(State(app): State<App>, caller: Caller, id: Id) -> Result<Json<Value>, ApiError> {
    let connector = seen(&caller, app.store.view()?.by_uuid(id.uuid()?)?)?;
    let reply = app.hub.ask(connector.id, "identifyVehicle", json!({})).await?;
    if reply.action == "vehicleIdentified" {
        return Ok(Json(reply.message));
    }
    Err(problem_of(reply.message).into())
}
