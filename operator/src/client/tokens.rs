//! The operator's access token, by the client-credentials grant (RFC 6749, 4.4).

use std::time::Duration;

use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::error::OperatorError;
use super::rest::{Credentials, answer, problem};

/// A token is renewed this long before it expires.
const MARGIN: Duration = Duration::from_secs(60);

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

/// Gets tokens, and keeps the last one for as long as it is good.
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

    /// A token that is good for now.
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

    /// This token was refused: the next [`Tokens::get`] asks for another one.
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
