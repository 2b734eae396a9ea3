//! Login with a pincode or a one-time password.

use std::sync::atomic::Ordering;

use axum::Router;
use axum::extract::State;
use axum::routing::post;
use uuid::Uuid;

use super::extract::Body;
use super::fields::Fields;
use super::problem::ApiError;
use super::token_response::TokenResponse;
use crate::cloud::app::App;
use crate::cloud::store::{
    Change, Connector, OneTimePassword, PincodeGuard, Read as _, StoreError, Subject, number_key,
};
use crate::cloud::tokens::Signer;
use crate::cloud::{clock, random};

/// The guard that all one-time passwords share; no connector has this number.
const OTP_GUARD: i64 = i64::MIN;

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/v2/authenticate/pincode", post(by_uuid))
        .route("/v1/authenticate/pincode", post(by_number))
        .route("/v1/authenticate/otp", post(by_otp))
}

async fn by_uuid(State(app): State<App>, body: Body) -> Result<TokenResponse, ApiError> {
    let mut fields = body.fields();
    let uuid = fields.needed("connector_uuid", Fields::uuid);
    let pincode = fields.needed("pincode", Fields::pincode);
    fields.finish()?;
    let (uuid, pincode) = (uuid.unwrap_or_default(), pincode.unwrap_or_default());
    app.pincode_logins.fetch_add(1, Ordering::Relaxed);
    let signer = app.signer.clone();
    app.store.change(move |change| login(change, &signer, change.by_uuid(uuid)?, &pincode)).await?
}

async fn by_number(State(app): State<App>, body: Body) -> Result<TokenResponse, ApiError> {
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
) -> Result<Result<TokenResponse, ApiError>, StoreError> {
    // a connector that does not exist gets the same answer, so that existence is not revealed
    let wrong = || ApiError::unauthorized("The connector or its pincode is wrong.");
    let Some(connector) = connector else { return Ok(Err(wrong())) };
    match guarded(change, connector.id, || Ok(random::same(pincode, &connector.pincode).then_some(())))? {
        Guarded::Right(()) => Ok(Ok(TokenResponse::issue(
            change,
            signer,
            &Subject::connector(&connector),
            Some(Uuid::new_v4()),
        )?)),
        Guarded::Wrong => {
            tracing::warn!(connector_id = connector.id, "wrong pincode");
            Ok(Err(wrong()))
        }
        Guarded::Locked(seconds) => Ok(Err(locked(seconds))),
    }
}

async fn by_otp(State(app): State<App>, body: Body) -> Result<TokenResponse, ApiError> {
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
                    Ok(Ok(TokenResponse::issue(change, &signer, &otp.subject, Some(Uuid::new_v4()))?))
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
    let key = number_key(guard);
    let mut guard: PincodeGuard = change.get(&key)?.unwrap_or_else(|| PincodeGuard::new(guard));
    let now = clock::unix_millis();
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
