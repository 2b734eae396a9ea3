//! The token endpoint of OAuth 2 (RFC 6749): refresh, and the client-credentials grant.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::extract;
use super::problem::ApiError;
use super::token_response::TokenResponse;
use crate::cloud::app::App;
use crate::cloud::clock::unix_seconds;
use crate::cloud::random;
use crate::cloud::store::{Account, Change, Connector, Read as _, RefreshToken, StoreError, Subject};
use crate::cloud::tokens::{Signer, scope};

pub(super) fn routes() -> Router<App> {
    Router::new().route("/oauth2/token", post(token))
}

/// An error of section 5.2.
#[derive(Debug)]
struct OauthError {
    error: &'static str,
    description: &'static str,
    /// Whether to answer 401 with a challenge, because the client used the Authorization header.
    challenge: bool,
}

impl OauthError {
    fn new(error: &'static str, description: &'static str) -> Self {
        Self { error, description, challenge: false }
    }

    fn invalid_grant() -> Self {
        Self::new("invalid_grant", "The refresh token is unknown, used or expired: log in again.")
    }
}

impl IntoResponse for OauthError {
    fn into_response(self) -> Response {
        let status =
            if self.error == "invalid_client" { StatusCode::UNAUTHORIZED } else { StatusCode::BAD_REQUEST };
        let body = json!({"error": self.error, "error_description": self.description});
        let mut response = (status, [(CACHE_CONTROL, "no-store")], Json(body)).into_response();
        if self.challenge {
            let challenge = HeaderValue::from_static("Basic realm=\"sandbox\"");
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        response
    }
}

type OauthResult = Result<TokenResponse, OauthError>;

async fn token(State(app): State<App>, headers: HeaderMap, request: Request) -> Result<Response, ApiError> {
    let form = match form(request, &app).await? {
        Ok(form) => form,
        Err(error) => return Ok(error.into_response()),
    };
    let (client, in_header) = match basic(&headers) {
        Some(client) => (Some(client), true),
        None => (form.get("client_id").cloned().zip(form.get("client_secret").cloned()), false),
    };
    let signer = app.signer.clone();
    let tokens = app.store.change(move |change| grant(change, &signer, &form, client)).await?;
    Ok(match tokens {
        Ok(tokens) => tokens.into_response(),
        Err(error) => {
            OauthError { challenge: in_header && error.error == "invalid_client", ..error }.into_response()
        }
    })
}

/// The form's fields; a field must not be repeated (RFC 6749 section 3.2).
async fn form(request: Request, app: &App) -> Result<Result<BTreeMap<String, String>, OauthError>, ApiError> {
    let is_form = request
        .headers()
        .get(axum::http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| {
            value.trim().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded")
        });
    if !is_form {
        let description = "The request must be application/x-www-form-urlencoded.";
        return Ok(Err(OauthError::new("invalid_request", description)));
    }
    let bytes = extract::bytes(request, app).await?;
    let mut form = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(&bytes) {
        if form.insert(name.into_owned(), value.into_owned()).is_some() {
            return Ok(Err(OauthError::new("invalid_request", "A field is repeated.")));
        }
    }
    Ok(Ok(form))
}

/// The client's id and secret from a Basic header, both form-encoded inside (RFC 6749 section 2.3.1).
fn basic(headers: &HeaderMap) -> Option<(String, String)> {
    let (scheme, encoded) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    let (id, secret) = decoded.split_once(':')?;
    Some((form_decoded(id), form_decoded(secret)))
}

fn form_decoded(text: &str) -> String {
    // parse it as a name without a value; an encoded "=" stays part of it
    form_urlencoded::parse(text.as_bytes()).next().map(|(name, _)| name.into_owned()).unwrap_or_default()
}

/// The outer result fails the transaction; the inner one is the answer.
fn grant(
    change: &Change,
    signer: &Signer,
    form: &BTreeMap<String, String>,
    client: Option<(String, String)>,
) -> Result<OauthResult, StoreError> {
    let account = match client {
        Some((id, secret)) => {
            let account = change.get::<Account>(id.as_bytes())?;
            match account.filter(|account| random::same(&account.client_secret, &secret)) {
                Some(account) => Some(account),
                None => {
                    return Ok(Err(OauthError::new("invalid_client", "The client or its secret is wrong.")));
                }
            }
        }
        None => None,
    };
    match form.get("grant_type").map(String::as_str) {
        Some("client_credentials") => {
            let Some(account) = account else {
                return Ok(Err(OauthError::new("invalid_client", "Client id and secret are missing.")));
            };
            let subject = Subject::account(&account);
            let granted = scope(subject.role);
            let asked: Vec<&str> = form.get("scope").map_or("", String::as_str).split_whitespace().collect();
            if asked.iter().any(|asked| !granted.split(' ').any(|has| has == *asked)) {
                return Ok(Err(OauthError::new("invalid_scope", "The client does not have this scope.")));
            }
            let known: Vec<&str> = granted.split(' ').filter(|has| asked.contains(has)).collect();
            Ok(Ok(TokenResponse::for_client(signer, &subject, &known.join(" "))))
        }
        Some("refresh_token") => match form.get("refresh_token") {
            Some(token) => refresh(change, signer, token),
            None => Ok(Err(OauthError::new("invalid_request", "refresh_token is missing."))),
        },
        Some(_) => Ok(Err(OauthError::new(
            "unsupported_grant_type",
            "The grants are refresh_token and client_credentials.",
        ))),
        None => Ok(Err(OauthError::new("invalid_request", "grant_type is missing."))),
    }
}

/// Refreshes a login. A refresh token is valid once; a second use revokes its whole family, because it was
/// copied.
fn refresh(change: &Change, signer: &Signer, token: &str) -> Result<OauthResult, StoreError> {
    let Some(mut known) = change.get::<RefreshToken>(&random::sha256(token.as_bytes()))? else {
        return Ok(Err(OauthError::invalid_grant()));
    };
    if known.rotated {
        tracing::warn!(subject = known.subject.id, "a refresh token was used twice: its login is revoked");
        for other in change.all::<RefreshToken>()?.iter().filter(|other| other.family == known.family) {
            change.delete::<RefreshToken>(&other.hash)?;
        }
        return Ok(Err(OauthError::invalid_grant()));
    }
    let still_there = match known.subject.connector_id {
        Some(id) => change.connector(id)?.map(|connector: Connector| connector.uuid.to_string()),
        None => change.get::<Account>(known.subject.id.as_bytes())?.map(|account| account.client_id),
    };
    if known.expires_at <= unix_seconds() || still_there.as_ref() != Some(&known.subject.id) {
        change.delete::<RefreshToken>(&known.hash)?;
        return Ok(Err(OauthError::invalid_grant()));
    }
    known.rotated = true;
    change.put(&known)?;
    Ok(Ok(TokenResponse::issue(change, signer, &known.subject, known.family)?))
}
