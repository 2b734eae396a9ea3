//! One operation of an API: a row of its table, with the handler.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use axum::Router;
use axum::extract::{FromRequestParts as _, RawPathParams, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, MethodRouter, on, options};
use schemars::{JsonSchema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::answer::Answer;
use super::input::Check;
use crate::cloud::app::App;
use crate::cloud::clock::unix_seconds;
use crate::cloud::rest::problem::{ApiError, Violation};
use crate::cloud::rest::{cors, extract};
use crate::cloud::store::{Role, Subject};

/// Where the path of an operation comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mark {
    /// Printed in the documents.
    Printed,
    /// Read in a published page of the documents, or in notes about one.
    Read,
    /// Inferred.
    Assumed,
}

impl Mark {
    /// The mark in the OpenAPI description.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Printed => "printed",
            Self::Read => "read",
            Self::Assumed => "assumed",
        }
    }
}

/// Who may call an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Everybody.
    Public,
    /// Everybody with a token.
    Token,
    /// Customers, and connectors on behalf of theirs.
    Customer,
    /// Operators, as partners.
    Partner,
}

/// A request that has passed all checks.
pub(crate) struct Call<P, Q, B> {
    pub(crate) app: App,
    /// The owner of the token; for a public operation, nobody.
    pub(crate) subject: Subject,
    pub(crate) path: P,
    pub(crate) query: Q,
    pub(crate) body: B,
}

/// A row of the table, without its handler.
pub(crate) struct Row {
    method: Method,
    path: &'static str,
    mark: Mark,
    access: Access,
    status: StatusCode,
    summary: &'static str,
}

/// An operation.
pub(crate) struct Operation {
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) mark: Mark,
    pub(super) access: Access,
    pub(super) status: StatusCode,
    pub(super) summary: &'static str,
    pub(super) checks: Arc<Checks>,
    pub(super) answer: fn(&mut SchemaGenerator) -> Option<Value>,
    pub(super) headers: &'static [&'static str],
    route: MethodRouter<App>,
}

/// The checks of the parts of a request.
pub(super) struct Checks {
    pub(super) path: Option<Check>,
    pub(super) query: Option<Check>,
    pub(super) body: Option<Check>,
}

/// A row of a table: method, path, its mark, who may call it, the status of success, and a summary.
pub(crate) fn row(
    method: Method,
    path: &'static str,
    mark: Mark,
    access: Access,
    status: u16,
    summary: &'static str,
) -> Row {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::OK);
    Row { method, path, mark, access, status, summary }
}

impl Row {
    /// The operation with this handler.
    pub(crate) fn to<P, Q, B, A, F>(
        self,
        handler: impl Fn(Call<P, Q, B>) -> F + Clone + Send + Sync + 'static,
    ) -> Operation
    where
        P: DeserializeOwned + JsonSchema + Send + 'static,
        Q: DeserializeOwned + JsonSchema + Send + 'static,
        B: DeserializeOwned + JsonSchema + Send + 'static,
        A: Answer,
        F: Future<Output = Result<A, ApiError>> + Send + 'static,
    {
        let checks =
            Arc::new(Checks { path: Check::of::<P>(), query: Check::of::<Q>(), body: Check::of::<B>() });
        let (shared, access, status) = (Arc::clone(&checks), self.access, self.status);
        let filter = MethodFilter::try_from(self.method.clone()).unwrap_or(MethodFilter::GET);
        let route = on(filter, move |State(app): State<App>, request: Request| {
            let (checks, handler) = (Arc::clone(&shared), handler.clone());
            async move {
                match checks.call(app, access, request).await {
                    Ok(call) => match handler(call).await {
                        Ok(answer) => answer.respond(status),
                        Err(error) if access == Access::Partner => error.into_response(),
                        Err(error) => error.without_conflict().into_response(),
                    },
                    Err(error) => error.into_response(),
                }
            }
        });
        Operation {
            method: self.method,
            path: self.path,
            mark: self.mark,
            access,
            status,
            summary: self.summary,
            checks,
            answer: A::schema,
            headers: A::headers(),
            route,
        }
    }
}

impl Checks {
    async fn call<P, Q, B>(
        &self,
        app: App,
        access: Access,
        request: Request,
    ) -> Result<Call<P, Q, B>, ApiError>
    where
        P: DeserializeOwned,
        Q: DeserializeOwned,
        B: DeserializeOwned,
    {
        let (mut parts, body) = request.into_parts();
        let subject = caller(&app, access, &parts)?;
        let segments = RawPathParams::from_request_parts(&mut parts, &()).await;
        let segments = segments.map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
        let segments = segments.iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pairs = form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes()).into_owned();
        let mut violations = Vec::new();
        let path = part(self.path.as_ref(), |check| check.typed(segments), &mut violations);
        let query = part(self.query.as_ref(), |check| check.typed(pairs), &mut violations);
        let body = match &self.body {
            Some(check) => {
                let bytes = extract::bytes(Request::from_parts(parts, body), &app).await?;
                match serde_json::from_slice(&bytes) {
                    Ok(value) => part(Some(check), |_| value, &mut violations),
                    Err(error) if violations.is_empty() => {
                        return Err(ApiError::bad_request(format!("The body is not JSON: {error}.")));
                    }
                    Err(error) => {
                        let message = format!("is not JSON: {error}");
                        violations.push(Violation { field: "body".to_owned(), message });
                        Value::Null
                    }
                }
            }
            None => part(None, |_| Value::Null, &mut violations),
        };
        if !violations.is_empty() {
            return Err(ApiError::violations(violations));
        }
        Ok(Call { app, subject, path: read(path)?, query: read(query)?, body: read(body)? })
    }
}

/// The value of a part that the operation has, with its violations; the others are empty objects.
fn part(
    check: Option<&Check>,
    value: impl FnOnce(&Check) -> Value,
    violations: &mut Vec<Violation>,
) -> Value {
    let Some(check) = check else { return Value::Object(Default::default()) };
    let value = value(check);
    violations.extend(check.violations(&value));
    value
}

/// A checked part as its type.
fn read<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::violation("request", error.to_string()))
}

/// The owner of the token, if the operation permits it.
fn caller(app: &App, access: Access, parts: &axum::http::request::Parts) -> Result<Subject, ApiError> {
    if access == Access::Public {
        return Ok(Subject { id: String::new(), role: Role::Connector, connector_id: None });
    }
    let token =
        extract::bearer(parts).ok_or_else(|| ApiError::unauthorized("The request has no bearer token."))?;
    let subject = app.signer.verify(token, unix_seconds())?;
    match (access, subject.role) {
        (Access::Customer, Role::Operator) => {
            Err(ApiError::forbidden("Only customers and connectors may do this."))
        }
        (Access::Partner, Role::Customer | Role::Connector) => {
            Err(ApiError::forbidden("Only operators may do this: log in with the client-credentials grant."))
        }
        _ => Ok(subject),
    }
}

/// The routes of a table, with OPTIONS for every path (CORS).
pub(crate) fn routes(operations: Vec<Operation>) -> Router<App> {
    let mut methods: BTreeMap<&'static str, Vec<Method>> = BTreeMap::new();
    let mut router = Router::new();
    for operation in operations {
        methods.entry(operation.path).or_default().push(operation.method);
        router = router.route(operation.path, operation.route);
    }
    for (path, mut methods) in methods {
        methods.push(Method::OPTIONS);
        let names: Vec<&str> = methods.iter().map(Method::as_str).collect();
        let allowed = HeaderValue::from_str(&names.join(", ")).unwrap_or(HeaderValue::from_static("OPTIONS"));
        let answer = move |uri: Uri| std::future::ready(preflight(path, &uri, &allowed));
        router = router.route(path, options(answer));
    }
    router
}

/// The path whose OPTIONS has a required parameter, as the documents say.
pub(super) const ATTACHMENTS: &str = "/v1/channel-attachments";

fn preflight(path: &str, uri: &Uri, allowed: &HeaderValue) -> Response {
    let mut query = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes());
    if path == ATTACHMENTS && !query.any(|(name, _)| name == "channel_id") {
        return ApiError::violation("channel_id", "is required").into_response();
    }
    cors::preflight(allowed)
}
