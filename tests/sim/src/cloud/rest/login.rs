//! Login with a pincode or a one-time password.

use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use serde::Serialize;
use uuid::Uuid;

use super::extract::Body;
use super::fields::Fields;
use super::problem::ApiError;
use crate::cloud::server::App;
use crate::cloud::store::{
    Change, Connector, OneTimePassword, PincodeGuard, Read as _, RefreshToken, StoreError, Subject,
};
use crate::cloud::tokens::{Signer, scope};
use crate::cloud::{random, unix_millis, unix_seconds};

/// Lifetime of a refresh token, in seconds: 30 days.
const REFRESH_LIFETIME: i64 = 30 * 24 * 3600;
/// The guard that all one-time passwords share; no connector has this number.
const OTP_GUARD: i64 = i64::MIN;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v2/authenticate/pincode", post(by_uuid))
        .route("/v1/authenticate/pincode", post(by_number))
        .route("/v1/authenticate/otp", post(by_otp))
        .merge(super::oauth::routes())
}

/// The response to a login.
#[derive(Serialize)]
pub(super) struct Tokens {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id_token: Option<String>,
    pub(super) access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
    token_type: &'static str,
    expires_in: i64,
    scope: &'static str,
}

impl Tokens {
    /// Issues tokens for `subject`, with a refresh token if there is a family for it.
    pub(super) fn issue(
        change: &Change,
        signer: &Signer,
        subject: &Subject,
        family: Option<Uuid>,
    ) -> Result<Self, StoreError> {
        let now = unix_seconds();
        let mut refresh_token = None;
        if let Some(family) = family {
            let token = random::token(32);
            change.put(&RefreshToken {
                hash: random::sha256(token.as_bytes()),
                subject: subject.clone(),
                family,
                rotated: false,
                expires_at: now.saturating_add(REFRESH_LIFETIME),
            })?;
            refresh_token = Some(token);
        }
        Ok(Self {
            id_token: family.map(|_| signer.id_token(subject, now)),
            access_token: signer.access_token(subject, now),
            refresh_token,
            token_type: "Bearer",
            expires_in: signer.lifetime_seconds(),
            scope: scope(subject.role),
        })
    }
}

impl IntoResponse for Tokens {
    fn into_response(self) -> Response {
        ([(CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}

async fn by_uuid(State(app): State<App>, body: Body) -> Result<Tokens, ApiError> {
    let mut fields = body.fields();
    let uuid = fields.needed("connector_uuid", Fields::uuid);
    let pincode = fields.needed("pincode", Fields::pincode);
    fields.finish()?;
    let (uuid, pincode) = (uuid.unwrap_or_default(), pincode.unwrap_or_default());
    app.pincode_logins.fetch_add(1, Ordering::Relaxed);
    let signer = app.signer.clone();
    app.store.change(move |change| login(change, &signer, change.by_uuid(uuid)?, &pincode)).await?
}

async fn by_number(State(app): State<App>, body: Body) -> Result<Tokens, ApiError> {
    let mut fields = body.fields();
    let id = fields.needed("connector_id", Fields::integer);
    let pincode = fields.needed("pincode", Fields::pincode);
    fields.finish()?;
    let (id, pincode) = (id.unwrap_or_default(), pincode.unwrap_or_default());
    app.pincode_logins.fetch_add(1, Ordering::Relaxed);
    let signer = app.signer.clone();
    app.store.change(move |change| login(change, &signer, change.connector(id)?, &pincode)).await?
}

/// The outer result fails the transaction; the inner one is the answer. A counted failure has to be
/// committed.
fn login(
    change: &Change,
    signer: &Signer,
    connector: Option<Connector>,
    pincode: &str,
) -> Result<Result<Tokens, ApiError>, StoreError> {
    // a connector that does not exist gets the same answer, so that existence is not revealed
    let wrong = || ApiError::unauthorized("The connector or its pincode is wrong.");
    let Some(connector) = connector else { return Ok(Err(wrong())) };
    match guarded(change, connector.id, || Ok(random::same(pincode, &connector.pincode).then_some(())))? {
        Guarded::Right(()) => {
            Ok(Ok(Tokens::issue(change, signer, &Subject::connector(&connector), Some(Uuid::new_v4()))?))
        }
        Guarded::Wrong => {
            tracing::warn!(connector_id = connector.id, "wrong pincode");
            Ok(Err(wrong()))
        }
        Guarded::Locked(seconds) => Ok(Err(locked(seconds))),
    }
}

async fn by_otp(State(app): State<App>, body: Body) -> Result<Tokens, ApiError> {
    let mut fields = body.fields();
    let otp = fields.needed("otp", Fields::pincode);
    fields.finish()?;
    let hash = random::sha256(otp.unwrap_or_default().as_bytes());
    let signer = app.signer.clone();
    app.store
        .change(move |change| {
            let find = || Ok(change.get::<OneTimePassword>(&hash)?.filter(|otp| !otp.used));
            match guarded(change, OTP_GUARD, find)? {
                Guarded::Right(mut otp) => {
                    otp.used = true;
                    change.put(&otp)?;
                    Ok(Ok(Tokens::issue(change, &signer, &otp.subject, Some(Uuid::new_v4()))?))
                }
                Guarded::Wrong => Ok::<_, StoreError>(Err(ApiError::unauthorized(
                    "The one-time password is wrong or used.",
                ))),
                Guarded::Locked(seconds) => Ok(Err(locked(seconds))),
            }
        })
        .await?
}

fn locked(seconds: u64) -> ApiError {
    ApiError::too_many(format!("Too many wrong attempts. The next one counts in {seconds} s."), seconds)
}

/// The result of an attempt.
enum Guarded<T> {
    Right(T),
    Wrong,
    /// Not checked; seconds until the next attempt is.
    Locked(u64),
}

/// Checks a secret, unless there were too many wrong ones.
fn guarded<T>(
    change: &Change,
    guard: i64,
    attempt: impl FnOnce() -> Result<Option<T>, StoreError>,
) -> Result<Guarded<T>, StoreError> {
    let key = crate::cloud::store::number_key(guard);
    let mut guard: PincodeGuard = change.get(&key)?.unwrap_or_else(|| PincodeGuard::new(guard));
    let now = unix_millis();
    if let Some(seconds) = guard.locked_for(now) {
        return Ok(Guarded::Locked(seconds));
    }
    match attempt()? {
        Some(found) => {
            change.delete::<PincodeGuard>(&key)?;
            Ok(Guarded::Right(found))
        }
        None => {
            guard.note_failure(now);
            change.put(&guard)?;
            Ok(Guarded::Wrong)
        }
    }
}
