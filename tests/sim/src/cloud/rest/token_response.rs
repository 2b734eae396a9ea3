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
    /// The token for client credentials, for the scope that the client asked for.
    pub(super) fn for_client(signer: &Signer, subject: &Subject, asked: &str) -> Self {
        let (access_token, expires_in) = signer.client_token(subject, asked, unix_seconds());
        Self { id_token: None, access_token, refresh_token: None, token_type: "Bearer", expires_in }
    }

    /// Issues tokens for `subject`, whose refresh token belongs to this family.
    pub(super) fn issue(
        change: &Change,
        signer: &Signer,
        subject: &Subject,
        family: Uuid,
    ) -> Result<Self, StoreError> {
        let now = unix_seconds();
        let refresh_token = random::token(32);
        change.put(&RefreshToken {
            hash: random::sha256(refresh_token.as_bytes()),
            subject: subject.clone(),
            family,
            rotated: false,
            expires_at: now.saturating_add(REFRESH_LIFETIME),
        })?;
        Ok(Self {
            id_token: Some(signer.id_token(subject, now)),
            access_token: signer.access_token(subject, now),
            refresh_token: Some(refresh_token),
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
