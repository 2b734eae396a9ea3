//! The tokens that a login returns.

use axum::Json;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use uuid::Uuid;

use crate::cloud::clock::unix_seconds;
use crate::cloud::random;
use crate::cloud::store::{Change, RefreshToken, StoreError, Subject};
use crate::cloud::tokens::Signer;

/// Lifetime of a refresh token, in seconds: 30 days.
const REFRESH_LIFETIME: i64 = 30 * 24 * 3600;
/// The response to a login.
#[derive(Serialize)]
pub(super) struct TokenResponse {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id_token: Option<String>,
    pub(super) access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) refresh_token: Option<String>,
    token_type: &'static str,
    expires_in: i64,
}

impl TokenResponse {
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
        })
    }
}

impl IntoResponse for TokenResponse {
    fn into_response(self) -> Response {
        ([(CACHE_CONTROL, "no-store")], Json(self)).into_response()
    }
}
