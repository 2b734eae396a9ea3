//! The operator's access token, from the client-credentials grant (RFC 6749, 4.4).

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::OperatorError;
use super::http::{answer, problem};

/// How long before its expiry a token is renewed: longer than any request takes, so that no request uses an
/// expired token.
const MARGIN: Duration = Duration::from_secs(60);

/// The client id and secret of the client-credentials grant.
#[derive(Clone)]
pub struct Credentials {
    /// The client id.
    pub client_id: String,
    /// The client secret.
    pub client_secret: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Credentials").field("client_id", &self.client_id).finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Option<u64>,
}

struct Token {
    text: String,
    renew_at: Option<Instant>,
}

/// Requests access tokens, and keeps the current one until shortly before its expiry.
pub(super) struct Tokens {
    http: reqwest::Client,
    url: String,
    credentials: Credentials,
    token: Mutex<Option<Token>>,
}

impl Tokens {
    pub(super) fn new(http: reqwest::Client, url: String, credentials: Credentials) -> Self {
        Self { http, url, credentials, token: Mutex::new(None) }
    }

    /// A valid token: the kept one, or a new one from the cloud.
    pub(super) async fn get(&self) -> Result<String, OperatorError> {
        let mut token = self.token.lock().await;
        if let Some(token) = token.as_ref()
            && token.renew_at.is_none_or(|at| Instant::now() < at)
        {
            return Ok(token.text.clone());
        }
        let fresh = self.fetch().await?;
        Ok(token.insert(fresh).text.clone())
    }

    /// Discards a token that the cloud refused, so that the next [`Tokens::get`] requests another one.
    pub(super) async fn discard(&self, refused: &str) {
        self.token.lock().await.take_if(|token| token.text == refused);
    }

    async fn fetch(&self) -> Result<Token, OperatorError> {
        const WHAT: &str = "the login";
        let Credentials { client_id, client_secret } = &self.credentials;
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", client_id.as_str()),
            ("client_secret", client_secret.as_str()),
        ];
        let http_error = |source| OperatorError::Http { what: WHAT, source };
        let response = self.http.post(&self.url).form(&form).send().await.map_err(http_error)?;
        if !response.status().is_success() {
            return Err(OperatorError::Login(problem(response).await));
        }
        let token: TokenAnswer = answer(WHAT, response).await?;
        let renew_at = token.expires_in.map(|seconds| {
            let lifetime = Duration::from_secs(seconds.min(365 * 24 * 3600));
            Instant::now() + lifetime.saturating_sub(MARGIN.min(lifetime / 2))
        });
        Ok(Token { text: token.access_token, renew_at })
    }
}
