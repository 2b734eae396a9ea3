//! The REST APIs: the customers', the partners', and the sandbox's own, with errors as problem objects.

mod api;
mod cors;
mod customer;
mod extract;
mod fields;
mod login;
mod oauth;
mod own;
mod partner;
mod pincode_guard;
mod problem;
mod ticket_lifecycle;
mod token_response;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};

use super::app::App;
use api::{Description, Operation};

pub(in crate::cloud) use customer::bodies::{NO_VIN, state_number};
pub(crate) use extract::{Parameters, bearer};
pub(crate) use problem::ApiError;

const CUSTOMER_TEXT: &str = "The documented customer API. x-path-is says where a path comes from.";
const PARTNER_TEXT: &str = "The documented partner API. x-path-is says where a path comes from.";
/// Limit of a request's body, in bytes.
const MAX_BODY: usize = 256 * 1024;

/// All routes: the REST APIs and their descriptions, and the websockets.
pub(crate) fn router(app: App, relay: MethodRouter<App>, portal: MethodRouter<App>) -> Router {
    let (customer, partner) = (customer::operations(), partner::operations());
    let describe = |operations: &[Operation], title, text| {
        let description = Description { title, text, server: app.api_url.clone() };
        Json(api::describe(operations, &description))
    };
    let customer_description = describe(&customer, "Customer API of the sandbox", CUSTOMER_TEXT);
    let partner_description = describe(&partner, "Partner API of the sandbox", PARTNER_TEXT);
    let routes = Router::new()
        .route("/sandbox/ws", relay)
        .route("/wssprd", portal)
        .route("/sandbox/openapi/customer.json", get(async || customer_description))
        .route("/sandbox/openapi/partner.json", get(async || partner_description))
        .merge(oauth::routes())
        .merge(api::routes(customer))
        .merge(api::routes(partner))
        .merge(own::routes())
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
        .layer(axum::middleware::from_fn(read_body))
        .with_state(app);
    // around the whole router, because it names the methods of a resource after the layers of its routes
    Router::new().fallback_service(routes).layer(axum::middleware::from_fn(cors::layer))
}

/// Reads the body before anything answers, but for the upload of a file. Hyper closes a connection whose body was not
/// read, and a client that is about to send its next request there would lose it.
async fn read_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    if parts.uri.path().starts_with(own::UPLOADS) {
        return next.run(Request::from_parts(parts, body)).await;
    }
    match axum::body::to_bytes(body, MAX_BODY).await {
        Ok(bytes) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Err(_) => {
            let detail = format!("The body is longer than {MAX_BODY} bytes, or it broke off.");
            ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "Unusable body", detail).into_response()
        }
    }
}

/// 408: the request, or its body, took too long.
pub(crate) fn timed_out() -> Response {
    let detail = "The request was not complete in time.";
    cors::allow(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Timeout", detail).into_response())
}
