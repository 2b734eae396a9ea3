//! The REST API: the resources of the vendor's documents that the sandbox has, with errors as problem
//! objects.

mod connectors;
mod extract;
mod fields;
mod login;
mod messenger;
mod oauth;
mod partner_prepared_tickets;
mod partner_tickets;
mod pincode_guard;
mod problem;
mod ticket_lifecycle;
mod tickets;
mod token_response;
mod vehicles;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use axum::routing::MethodRouter;

use super::app::App;

pub(crate) use extract::{Parameters, bearer};
pub(crate) use problem::ApiError;

/// Limit of a request's body, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// All routes: the REST API, and `websocket` at `/ws`.
pub(crate) fn router(app: App, websocket: MethodRouter<App>) -> Router {
    Router::new()
        .route("/ws", websocket)
        .merge(login::routes())
        .merge(oauth::routes())
        .merge(connectors::routes())
        .merge(vehicles::routes())
        .merge(tickets::routes())
        .merge(partner_prepared_tickets::routes())
        .merge(partner_tickets::routes())
        .merge(messenger::routes())
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .fallback(|| async { ApiError::not_found("resource") })
        .method_not_allowed_fallback(|| async {
            ApiError::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                "Method not allowed",
                "The resource has no such method.",
            )
        })
        .with_state(app)
}

/// 408: the request, or its body, took too long.
pub(crate) fn timed_out() -> Response {
    let detail = "The request was not complete in time.";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Timeout", detail).into_response()
}
