//! The parts of a request that handlers take: caller, body, query, and ids in the path.

use std::collections::BTreeMap;

use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::fields::Fields;
use super::problem::ApiError;
use crate::cloud::app::App;
use crate::cloud::clock::unix_seconds;
use crate::cloud::store::{Read, Role, Subject, Ticket};

/// The subject of the request's access token.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) Subject);

impl Caller {
    /// The caller, if it is an operator.
    pub(crate) fn operator(&self) -> Result<&Subject, ApiError> {
        match self.0.role {
            Role::Operator => Ok(&self.0),
            Role::Connector | Role::Customer => Err(ApiError::forbidden(
                "Only operators may do this: log in with the client-credentials grant.",
            )),
        }
    }

    /// The caller, if it is a customer, or a connector on its own behalf.
    pub(crate) fn customer(&self) -> Result<&Subject, ApiError> {
        match self.0.role {
            Role::Customer | Role::Connector => Ok(&self.0),
            Role::Operator => Err(ApiError::forbidden("Only customers and connectors may do this.")),
        }
    }

    /// Whether the caller may see this connector.
    pub(crate) fn sees(&self, connector_id: i64) -> bool {
        self.0.sees(connector_id)
    }
}

impl Subject {
    /// Whether the subject may see this connector: a connector sees only itself.
    pub(crate) fn sees(&self, connector_id: i64) -> bool {
        self.connector_id.is_none_or(|own| own == connector_id)
    }
}

/// The token of an `Authorization: Bearer` header.
pub(crate) fn bearer(parts: &Parts) -> Option<&str> {
    let (scheme, token) = parts.headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

impl FromRequestParts<App> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        let token =
            bearer(parts).ok_or_else(|| ApiError::unauthorized("The request has no bearer token."))?;
        Ok(Self(app.signer.verify(token, unix_seconds())?))
    }
}

/// A JSON object as the body.
pub(crate) struct Body(pub(crate) Map<String, Value>);

impl Body {
    /// The body's fields, for validation.
    pub(crate) fn fields(self) -> Fields {
        Fields::of(self.0)
    }
}

impl FromRequest<App> for Body {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Result<Self, ApiError> {
        let bytes = bytes(request, app).await?;
        match serde_json::from_slice(&bytes) {
            Ok(Value::Object(body)) => Ok(Self(body)),
            Ok(_) => Err(ApiError::bad_request("The body must be a JSON object.")),
            Err(error) => Err(ApiError::bad_request(format!("The body is not JSON: {error}."))),
        }
    }
}

/// The body's bytes, up to the route's limit.
pub(crate) async fn bytes(request: Request, app: &App) -> Result<Bytes, ApiError> {
    Bytes::from_request(request, app).await.map_err(|rejection| {
        ApiError::new(rejection.status(), "body", "Unusable body", rejection.body_text())
    })
}

/// The query's parameters; of a repeated one, the last.
pub(crate) struct Parameters(pub(crate) BTreeMap<String, String>);

impl Parameters {
    /// The parameters as fields, for validation.
    pub(crate) fn fields(&self) -> Fields {
        Fields::of_query(&self.0)
    }
}

impl FromRequestParts<App> for Parameters {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

/// The first id in the path, as text.
pub(crate) struct Id(pub(crate) String);

impl FromRequestParts<App> for Id {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, ApiError> {
        match Path::<Vec<(String, String)>>::from_request_parts(parts, app).await {
            Ok(Path(segments)) => segments
                .into_iter()
                .next()
                .map(|(_, id)| Self(id))
                .ok_or_else(|| ApiError::bad_request("The path has no id.")),
            Err(rejection) => Err(ApiError::bad_request(rejection.body_text())),
        }
    }
}

impl Id {
    /// The id as a UUID.
    pub(crate) fn uuid(&self) -> Result<Uuid, ApiError> {
        self.0.parse().map_err(|_| ApiError::violation("id", "must be a UUID"))
    }

    /// The ticket with this UUID or number.
    pub(crate) fn ticket(&self, read: &impl Read) -> Result<Option<Ticket>, ApiError> {
        if let Ok(number) = self.0.parse() {
            return Ok(read.ticket(number)?);
        }
        Ok(read.by_uuid(self.uuid()?)?)
    }
}
