//! Logins, and the forgotten password.

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cloud::rest::api::{Call, LenientText, Nothing, WithHeader};
use crate::cloud::rest::login::{self, Named};
use crate::cloud::rest::optional::Optional;
use crate::cloud::rest::problem::{ApiError, Violation};
use crate::cloud::rest::token_response::TokenResponse;

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Tokens")]
pub(super) struct TokensBody {
    id_token: String,
    access_token: String,
    refresh_token: String,
}

type Answer = WithHeader<Json<TokensBody>>;

fn tokens(response: TokenResponse) -> Answer {
    let body = TokensBody {
        id_token: response.id_token.unwrap_or_default(),
        access_token: response.access_token,
        refresh_token: response.refresh_token.unwrap_or_default(),
    };
    WithHeader(Json(body), CACHE_CONTROL, "no-store".to_owned())
}

/// The two parts of a login, or the violations of both.
fn both<T>(name: (&str, Option<T>), pincode: Option<LenientText>) -> Result<(T, String), ApiError> {
    let missing =
        |field: &str| Violation { field: field.to_owned(), message: "must be given, in its form".to_owned() };
    match (name, pincode) {
        ((_, Some(name)), Some(pincode)) => Ok((name, pincode.0)),
        ((field, None), None) => Err(ApiError::violations(vec![missing(field), missing("pincode")])),
        ((field, None), Some(_)) => Err(ApiError::violations(vec![missing(field)])),
        ((_, Some(_)), None) => Err(ApiError::violations(vec![missing("pincode")])),
    }
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ByUuid {
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(max = 64))]
    connector_uuid: Optional<String>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    pincode: Optional<LenientText>,
}

pub(super) async fn by_uuid(call: Call<Nothing, Nothing, ByUuid>) -> Result<Answer, ApiError> {
    let uuid = call.body.connector_uuid.0.as_deref().and_then(|text| text.parse().ok());
    let (uuid, pincode) = both(("connector_uuid", uuid), call.body.pincode.0)?;
    login::by_pincode(&call.app, Named::Uuid(uuid), pincode).await.map(tokens)
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ById {
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    connector_id: Optional<LenientText>,
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    pincode: Optional<LenientText>,
}

pub(super) async fn by_id(call: Call<Nothing, Nothing, ById>) -> Result<Answer, ApiError> {
    let id = call.body.connector_id.0.and_then(|text| text.0.parse().ok());
    let (id, pincode) = both(("connector_id", id), call.body.pincode.0)?;
    login::by_pincode(&call.app, Named::Number(id), pincode).await.map(tokens)
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ByOtp {
    #[serde(default, skip_serializing_if = "Optional::is_none")]
    #[schemars(length(min = 1, max = 64))]
    otp: Optional<String>,
}

pub(super) async fn by_otp(call: Call<Nothing, Nothing, ByOtp>) -> Result<Answer, ApiError> {
    let otp = call.body.otp.0.ok_or_else(|| ApiError::violation("otp", "is required"))?;
    login::by_otp(&call.app, &otp).await.map(tokens)
}

#[derive(Deserialize, JsonSchema)]
pub(super) struct ForgottenInput {
    #[schemars(length(max = 255))]
    #[expect(dead_code, reason = "the sandbox sends no mail, and does not reveal which addresses it knows")]
    email_address: String,
}

#[derive(Serialize, JsonSchema)]
pub(super) struct Forgotten {
    method: String,
}

pub(super) async fn forgotten_password(
    call: Call<Nothing, Nothing, ForgottenInput>,
) -> Result<Json<Forgotten>, ApiError> {
    tracing::info!("a password was forgotten; the sandbox sends no mail");
    drop(call);
    Ok(Json(Forgotten { method: "SESSION".to_owned() }))
}
