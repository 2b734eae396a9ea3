//! The customer's connectors.

use axum::Json;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::bodies::{ConnectorBody, Page, Paging, TicketBody};
use crate::cloud::hub::Changed;
use crate::cloud::rest::api::{Call, Nothing, Removed};
use crate::cloud::rest::problem::ApiError;
use crate::cloud::store::{Connector, Read, StoreError, Subject, Ticket, TicketState};

#[derive(Deserialize, JsonSchema)]
pub(super) struct ById {
    #[serde(rename = "connectorId")]
    connector_id: i64,
}

/// The documents have the number as text; the UUID is the sandbox's addition.
#[derive(Deserialize, JsonSchema)]
pub(super) struct ByText {
    #[serde(rename = "connectorId")]
    #[schemars(length(min = 1, max = 40), pattern("^([0-9]{1,18}|[0-9a-fA-F-]{36})$"), with = "String")]
    connector_id: IdText,
}

/// A number or a UUID.
#[derive(Deserialize)]
#[serde(untagged)]
enum IdText {
    Number(i64),
    Text(String),
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ByUuid {
    #[serde(rename = "connectorUUID")]
    connector_uuid: Uuid,
}

/// The connector, if it exists and the caller may see it.
pub(in crate::cloud::rest) fn seen(
    caller: &Subject,
    connector: Option<Connector>,
) -> Result<Connector, ApiError> {
    let connector = connector.ok_or_else(|| ApiError::not_found("connector"))?;
    if caller.sees(connector.id) {
        Ok(connector)
    } else {
        Err(ApiError::forbidden("The token belongs to another connector."))
    }
}

pub(super) async fn list(
    call: Call<Nothing, Paging, Nothing>,
) -> Result<Json<Page<ConnectorBody>>, ApiError> {
    let mut connectors: Vec<Connector> = call.app.store.view()?.all()?;
    connectors.retain(|connector| call.subject.sees(connector.id));
    let body = |connector| ConnectorBody::of(&call.app.hub, &call.app.catalogue, connector);
    Ok(Json(call.query.page(connectors.iter().map(body).collect())))
}

pub(super) async fn by_id(call: Call<ById, Nothing, Nothing>) -> Result<Json<ConnectorBody>, ApiError> {
    let connector = seen(&call.subject, call.app.store.view()?.connector(call.path.connector_id)?)?;
    Ok(Json(ConnectorBody::of(&call.app.hub, &call.app.catalogue, &connector)))
}

pub(super) async fn by_uuid(call: Call<ByUuid, Nothing, Nothing>) -> Result<Json<ConnectorBody>, ApiError> {
    let connector = seen(&call.subject, call.app.store.view()?.by_uuid(call.path.connector_uuid)?)?;
    Ok(Json(ConnectorBody::of(&call.app.hub, &call.app.catalogue, &connector)))
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

pub(super) async fn active_ticket(
    call: Call<ByText, Nothing, Nothing>,
) -> Result<Json<TicketBody>, ApiError> {
    let view = call.app.store.view()?;
    let found = match &call.path.connector_id {
        IdText::Number(number) => view.connector(*number)?,
        IdText::Text(text) => match (text.parse(), text.parse()) {
            (Ok(number), _) => view.connector(number)?,
            (_, Ok(uuid)) => view.by_uuid(uuid)?,
            _ => return Err(ApiError::violation("connectorId", "must be a number or a UUID")),
        },
    };
    let connector = seen(&call.subject, found)?;
    match active(&view, connector.id)? {
        Some(ticket) => Ok(Json(TicketBody::from(&ticket))),
        None => Err(ApiError::new(
            StatusCode::NOT_FOUND,
            "no-active-ticket",
            "No active ticket",
            "The connector has no ticket that is pending or in progress.",
        )),
    }
}

pub(super) async fn dismiss_call_for_attention(
    call: Call<ByUuid, Nothing, Nothing>,
) -> Result<Removed, ApiError> {
    let (app, uuid) = (&call.app, call.path.connector_uuid);
    let connector = seen(&call.subject, app.store.view()?.by_uuid(uuid)?)?;
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
    Ok(Removed)
}
