//! Answers for browsers, whose pages come from other origins (CORS).

use axum::extract::Request;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW,
};
use axum::http::{HeaderValue, Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

/// The headers of requests that pages may send.
const REQUEST_HEADERS: &str = "authorization, content-type, x-api-key";
/// The headers of answers that pages may read, beside those that every page may read.
const ANSWER_HEADERS: &str =
    "allow, location, retry-after, www-authenticate, sandbox-upload-url, sandbox-download-url";
/// How long a browser keeps the answer to OPTIONS, in seconds: an hour, so that it asks rarely.
const MAX_AGE: &str = "3600";

/// The answer to OPTIONS: any origin may call with these methods.
pub(super) fn preflight(allowed: &HeaderValue) -> Response {
    let mut response = StatusCode::OK.into_response();
    let headers = response.headers_mut();
    headers.insert(ALLOW, allowed.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, allowed.clone());
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(REQUEST_HEADERS));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static(MAX_AGE));
    response
}

/// Allows pages of every origin to read an answer, also an error.
pub(super) fn allow(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(ANSWER_HEADERS));
    response
}

/// Answers OPTIONS for every resource, and allows pages to read every answer.
pub(super) async fn layer(request: Request, next: Next) -> Response {
    let is_options = request.method() == Method::OPTIONS;
    let mut response = next.run(request).await;
    if response.status() == StatusCode::METHOD_NOT_ALLOWED
        && let Some(allowed) = with_options(&response)
    {
        if is_options {
            response = preflight(&allowed);
        } else {
            response.headers_mut().insert(ALLOW, allowed);
        }
    }
    allow(response)
}

/// The methods of a resource, which the refusal of another method names, and OPTIONS.
fn with_options(refusal: &Response) -> Option<HeaderValue> {
    let methods = refusal.headers().get(ALLOW)?.to_str().ok()?;
    if methods.split(',').any(|method| method.trim() == "OPTIONS") {
        return HeaderValue::from_str(methods).ok();
    }
    HeaderValue::from_str(&format!("{methods},OPTIONS")).ok()
}
