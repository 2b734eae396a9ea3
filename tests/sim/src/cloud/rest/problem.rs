//! Errors of the REST API as problem objects (RFC 9457), and conversions to them.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use connector_agent::protocol::problem::Problem;
use schemars::JsonSchema;
use serde::Serialize;

use crate::cloud::store::StoreError;
use crate::cloud::tokens::TokenError;

/// A problem object, as the description shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
pub(crate) struct ProblemBody {
    /// The kind of problem, such as `/problems/violations`.
    r#type: String,
    title: String,
    status: u16,
    detail: String,
    /// The invalid fields, if the kind is `/problems/violations`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Violation>,
}

/// An invalid field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub(crate) struct Violation {
    /// The field's name.
    pub(crate) field: String,
    /// The reason.
    pub(crate) message: String,
}

/// Limit of the violations in one answer, and in one part of a request.
pub(crate) const MAX_VIOLATIONS: usize = 50;

/// Collects the violations of a request, so that one answer names all of them, up to 50.
#[derive(Debug, Default)]
pub(crate) struct Violations(Vec<Violation>);

impl Violations {
    /// Records a violation of a field.
    pub(crate) fn add(&mut self, field: &str, message: impl Into<String>) {
        if self.0.len() < MAX_VIOLATIONS {
            self.0.push(Violation { field: field.to_owned(), message: message.into() });
        }
    }

    /// Records a violation of a field unless the condition holds.
    pub(crate) fn check(&mut self, holds: bool, field: &str, message: impl Into<String>) {
        if !holds {
            self.add(field, message);
        }
    }

    /// Returns all violations as one error.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        if self.0.is_empty() { Ok(()) } else { Err(ApiError::violations(self.0)) }
    }
}

/// An error for the client; boxed, because most results are successes.
#[derive(Debug, Clone)]
pub(crate) struct ApiError(Box<ProblemContents>);

#[derive(Debug, Clone, Serialize)]
struct ProblemContents {
    #[serde(flatten)]
    problem: Problem,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    violations: Vec<Violation>,
    #[serde(skip)]
    retry_after_seconds: Option<u64>,
}

impl ApiError {
    /// A problem of the kind `/problems/<slug>`.
    pub(crate) fn new(status: StatusCode, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Problem::new(status.as_u16(), slug, title, detail).into()
    }

    /// The contents, as the client receives them.
    pub(crate) fn contents(&self) -> impl Serialize {
        &self.0
    }

    /// 400: the request as a whole is invalid.
    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "bad-request", "Bad request", detail)
    }

    /// 400 `/problems/violations`: these fields are invalid.
    pub(crate) fn violations(violations: Vec<Violation>) -> Self {
        let fields: Vec<&str> = violations.iter().map(|violation| violation.field.as_str()).collect();
        let detail = format!("Invalid fields: {}.", fields.join(", "));
        let mut error = Self::new(StatusCode::BAD_REQUEST, "violations", "Bad request", detail);
        error.0.violations = violations;
        error
    }

    /// 400 `/problems/violations`: this field is invalid.
    pub(crate) fn violation(field: &str, message: impl Into<String>) -> Self {
        Self::violations(vec![Violation { field: field.to_owned(), message: message.into() }])
    }

    /// 401: the caller has to log in, for the first time or again.
    pub(crate) fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "unauthorized", "Unauthorized", detail)
    }

    /// 403: the caller is not permitted to do this.
    pub(crate) fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, "forbidden", "Forbidden", detail)
    }

    /// 404: the resource does not exist.
    pub(crate) fn not_found(what: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "not-found", "Not found", format!("There is no such {what}."))
    }

    /// 409: the current state does not allow this.
    pub(crate) fn conflict(slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, slug, title, detail)
    }

    /// The error of an operation whose documents know no 409: a conflict is a bad request.
    pub(crate) fn without_conflict(mut self) -> Self {
        if self.0.problem.status == StatusCode::CONFLICT.as_u16() {
            self.0.problem.status = StatusCode::BAD_REQUEST.as_u16();
        }
        self
    }

    /// Sets the action of a message that this error answers.
    pub(crate) fn answering(mut self, action: &str) -> Self {
        self.0.problem = self.0.problem.answering(action);
        self
    }

    /// 429: the request may be repeated after `retry_after_seconds`.
    pub(crate) fn too_many(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        let mut error =
            Self::new(StatusCode::TOO_MANY_REQUESTS, "too-many-requests", "Too many requests", detail);
        error.0.retry_after_seconds = Some(retry_after_seconds);
        error
    }
}

impl From<ApiError> for Problem {
    fn from(error: ApiError) -> Self {
        error.0.problem
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(Box::new(ProblemContents { problem, violations: Vec::new(), retry_after_seconds: None }))
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        tracing::error!(error = &error as &dyn std::error::Error, "internal error in a request");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "Internal error",
            "The sandbox failed to handle the request; its log has the reason.",
        )
    }
}

impl From<TokenError> for ApiError {
    fn from(error: TokenError) -> Self {
        Self::unauthorized(error.to_string())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(&self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = self.0.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
