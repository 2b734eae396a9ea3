//! The websockets: the relay's, for connectors and operators, and the documented one for portals and partners. The token
//! determines the permissions.

mod connector;
mod documented;
mod operator;
mod peer;
mod portal;
mod subscriptions;

use std::sync::Arc;

use axum::extract::ws::WebSocketUpgrade;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{FromRequestParts, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::Response;

use documented::Dialect;

use super::app::App;
use super::clock::unix_seconds;
use super::rest::{ApiError, Parameters, bearer};
use super::store::Subject;

/// The subprotocol of the relay.
const SUBPROTOCOL: &str = "connector-relay.v1";
/// Limit of a message, in bytes: the largest ISO-TP PDU that is configured in practice, and its envelope.
const MAX_MESSAGE: usize = 2 * 1024 * 1024;

/// The subject that opens the socket, and its access token.
pub(crate) struct Opener(Subject, Arc<str>);

impl FromRequestParts<App> for Opener {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let Parameters(query) = Parameters::from_request_parts(parts, app).await?;
        let token = bearer(parts)
            .or_else(|| query.get("access_token").map(String::as_str))
            .ok_or_else(|| ApiError::unauthorized("The websocket needs an access token."))?;
        Ok(Self(app.signer.verify(token, unix_seconds())?, token.into()))
    }
}

/// `GET /sandbox/ws`: connectors, operators, and portals in the relay's form.
pub(crate) async fn upgrade_relay(
    State(app): State<App>,
    opener: Opener,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map(|upgrade| upgrade.protocols([SUBPROTOCOL]));
    accept(app, opener, upgrade, Dialect::Relay)
}

/// `GET /wssprd`: the documented websocket.
pub(crate) async fn upgrade_portal(
    State(app): State<App>,
    opener: Opener,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, ApiError> {
    accept(app, opener, upgrade, Dialect::Documented)
}

fn accept(
    app: App,
    Opener(subject, token): Opener,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
    dialect: Dialect,
) -> Result<Response, ApiError> {
    let upgrade = upgrade.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    let Ok(place) = Arc::clone(&app.sockets).try_acquire_owned() else {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "overloaded",
            "Overloaded",
            "The sandbox has reached its limit of websockets.",
        ));
    };
    Ok(upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).on_upgrade(move |socket| {
        let tasks = app.tasks.clone();
        tasks.track_future(async move {
            peer::drive(app, subject, token, socket, dialect).await;
            drop(place);
        })
    }))
}
