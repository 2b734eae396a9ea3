//! The REST APIs: the customers', the partners', and the sandbox's own, with errors as problem objects.

mod api;
mod cors;
mod customer;
mod extract;
mod fields;
mod login;
mod oauth;
mod optional;
mod own;
mod partner;
mod pincode_guard;
mod problem;
mod ticket_lifecycle;
mod token_response;

use axum::body::Body;
use axum::extract::{DefaultBodyLimit, Request};
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodRouter, get};
use axum::{Json, Router};
use futures_util::StreamExt as _;

use super::app::App;
use api::{Description, Operation};

pub(in crate::cloud) use customer::bodies::state_number;
pub(crate) use extract::{Parameters, bearer};
pub(crate) use problem::ApiError;

const CUSTOMER_TEXT: &str = "The documented customer API. x-path-is says where a path comes from.";
const PARTNER_TEXT: &str = "The documented partner API. x-path-is says where a path comes from.";
/// Limit of a request's body, in bytes.
const MAX_BODY: usize = 256 * 1024;
/// Limit of what is read beyond the limit of a body, and discarded, in bytes: a client that sends more loses its
/// connection.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;

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

/// Reads the body before anything answers. Hyper closes a connection whose body was not read, and a client that is still
/// sending, or is about to send its next request there, would lose the answer.
async fn read_body(request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let limit = if parts.uri.path().starts_with(own::UPLOADS) { own::MAX_UPLOAD } else { MAX_BODY };
    let mut chunks = body.into_data_stream();
    let (mut bytes, mut length) = (Vec::new(), 0_usize);
    let mut is_whole = true;
    while let Some(chunk) = chunks.next().await {
        let Ok(chunk) = chunk else {
            is_whole = false;
            break;
        };
        length = length.saturating_add(chunk.len());
        if length <= limit {
            bytes.extend_from_slice(&chunk);
        } else if length > limit + MAX_DISCARDED {
            is_whole = false;
            break;
        }
    }
    if is_whole && length <= limit {
        return next.run(Request::from_parts(parts, Body::from(bytes))).await;
    }
    let detail = format!("The body is longer than {limit} bytes, or it broke off.");
    let mut response =
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "body", "Unusable body", detail).into_response();
    if !is_whole {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// 408: the request, or its body, took too long.
pub(crate) fn timed_out() -> Response {
    let detail = "The request was not complete in time.";
    cors::allow(ApiError::new(StatusCode::REQUEST_TIMEOUT, "timeout", "Timeout", detail).into_response())
}
