//! Login with a pincode or a one-time password.

use std::sync::atomic::Ordering;

use uuid::Uuid;

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

/// A connector, as a login names it.
pub(super) enum Named {
    Uuid(Uuid),
    Number(i64),
}

/// Logs a connector in.
pub(super) async fn by_pincode(app: &App, named: Named, pincode: String) -> Result<TokenResponse, ApiError> {
    app.pincode_logins.fetch_add(1, Ordering::Relaxed);
    let signer = app.signer.clone();
    let stored = app.store.change(move |change| {
        let connector = match named {
            Named::Uuid(uuid) => change.by_uuid(uuid)?,
            Named::Number(number) => change.connector(number)?,
        };
        login(change, &signer, connector, &pincode)
    });
    stored.await?
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
        Guarded::Right(()) => {
            Ok(Ok(TokenResponse::issue(change, signer, &Subject::connector(&connector), Uuid::new_v4())?))
        }
        Guarded::Wrong => {
            tracing::warn!(connector_id = connector.id, "wrong pincode");
            Ok(Err(wrong()))
        }
        Guarded::Locked(seconds) => Ok(Err(locked(seconds))),
    }
}

/// Logs the owner of a one-time password in.
pub(super) async fn by_otp(app: &App, otp: &str) -> Result<TokenResponse, ApiError> {
    let hash = random::sha256(otp.as_bytes());
    let signer = app.signer.clone();
    app.store
        .change(move |change| {
            let find = || Ok(change.get::<OneTimePassword>(&hash)?.filter(|otp| !otp.used));
            match guarded(change, OTP_GUARD, find)? {
                Guarded::Right(mut otp) => {
                    otp.used = true;
                    change.put(&otp)?;
                    Ok(Ok(TokenResponse::issue(change, &signer, &otp.subject, Uuid::new_v4())?))
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
