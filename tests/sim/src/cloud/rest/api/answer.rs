//! The forms of a successful answer.

use axum::http::header::LOCATION;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse as _, Response};
use schemars::{JsonSchema, SchemaGenerator};
use serde::Serialize;
use serde_json::{Value, json};

/// A successful answer, with the status of the operation.
pub(crate) trait Answer: Send + 'static {
    /// The schema of the JSON body; `None` for an answer without a body.
    fn schema(generator: &mut SchemaGenerator) -> Option<Value>;
    /// The response.
    fn respond(self, status: StatusCode) -> Response;
    /// The headers that the documents name.
    fn headers() -> &'static [&'static str] {
        &[]
    }
}

impl<T: Serialize + JsonSchema + Send + 'static> Answer for axum::Json<T> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Value> {
        Some(generator.subschema_for::<T>().to_value())
    }

    fn respond(self, status: StatusCode) -> Response {
        (status, self).into_response()
    }
}

/// The JSON value null.
pub(crate) struct Null;

impl Answer for Null {
    fn schema(_: &mut SchemaGenerator) -> Option<Value> {
        Some(json!({"type": "null"}))
    }

    fn respond(self, status: StatusCode) -> Response {
        (status, axum::Json(Value::Null)).into_response()
    }
}

/// No body.
pub(crate) struct Removed;

impl Answer for Removed {
    fn schema(_: &mut SchemaGenerator) -> Option<Value> {
        None
    }

    fn respond(self, status: StatusCode) -> Response {
        status.into_response()
    }
}

/// The path of the resource that the request has led to.
pub(crate) struct SeeOther(pub(crate) String);

impl Answer for SeeOther {
    fn schema(_: &mut SchemaGenerator) -> Option<Value> {
        None
    }

    fn respond(self, status: StatusCode) -> Response {
        (status, [(LOCATION, self.0)]).into_response()
    }

    fn headers() -> &'static [&'static str] {
        &["Location"]
    }
}

/// An answer with a header of the sandbox's own.
pub(crate) struct WithHeader<A>(pub(crate) A, pub(crate) HeaderName, pub(crate) String);

impl<A: Answer> Answer for WithHeader<A> {
    fn schema(generator: &mut SchemaGenerator) -> Option<Value> {
        A::schema(generator)
    }

    fn respond(self, status: StatusCode) -> Response {
        let mut response = self.0.respond(status);
        if let Ok(value) = HeaderValue::from_str(&self.2) {
            response.headers_mut().insert(self.1, value);
        }
        response
    }
}
