//! The REST resources, with a login and retries.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;

use super::backoff::{full_jitter, honouring};
use super::login::Authenticator;
use super::rest::{AccessToken, ActiveTicket, ConnectorRecord, ErrorChain, Rest, RestError};

/// The REST resources, with a login and retries. Each call waits for a token, logs in again after a 401
/// (once), and repeats a request that can succeed later until it succeeds. Dropping the future of a call ends
/// the call.
#[derive(Debug, Clone)]
pub struct Cloud {
    rest: Arc<Rest>,
    authenticator: Authenticator,
    rng: Arc<Mutex<Rng>>,
}

impl Cloud {
    /// Uses the tokens of `authenticator`.
    pub fn new(rest: Arc<Rest>, authenticator: Authenticator, seed: u64) -> Self {
        Self { rest, authenticator, rng: Arc::new(Mutex::new(Rng::with_seed(seed))) }
    }

    /// Fetches the cloud's record of this connector.
    pub async fn connector(&self) -> Result<ConnectorRecord, RestError> {
        self.request("the connector's record", async |rest, token| rest.connector(token).await).await
    }

    /// Fetches the ticket in progress on this connector, if there is one.
    pub async fn active_ticket(&self) -> Result<Option<ActiveTicket>, RestError> {
        self.request("the active ticket", async |rest, token| rest.active_ticket(token).await).await
    }

    /// Dismisses the call for attention in the cloud.
    pub async fn dismiss_call_for_attention(&self) -> Result<(), RestError> {
        let dismiss = async |rest: &Rest, token: &AccessToken| rest.dismiss_call_for_attention(token).await;
        self.request("dismissing the call for attention", dismiss).await
    }

    async fn request<T>(
        &self,
        what: &str,
        send: impl AsyncFn(&Rest, &AccessToken) -> Result<T, RestError>,
    ) -> Result<T, RestError> {
        let mut token = self.authenticator.token().await;
        let mut has_new_login = false;
        let mut failures = 0;
        loop {
            let error = match send(&self.rest, &token).await {
                Ok(answer) => {
                    self.authenticator.accepted(&token);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if error.needs_login() && !has_new_login {
                has_new_login = true;
                self.authenticator.unauthorized(&token);
                if error.retry_after().is_some() {
                    self.pause(what, &error, Duration::ZERO).await;
                }
                token = self.authenticator.renewed(&token).await;
            } else if error.is_transient() || asks_for_later(&error) {
                let wait = full_jitter(&mut self.rng(), failures);
                failures += 1;
                self.pause(what, &error, wait).await;
                token = self.authenticator.token().await;
            } else {
                return Err(error);
            }
        }
    }

    /// Waits this time, or as long as the answer asks for.
    async fn pause(&self, what: &str, error: &RestError, wait: Duration) {
        let wait = honouring(&mut self.rng(), error.retry_after(), wait);
        tracing::debug!("{what}: {}; trying again in {wait:.1?}", ErrorChain(error));
        tokio::time::sleep(wait).await;
    }

    fn rng(&self) -> MutexGuard<'_, Rng> {
        self.rng.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a refusal is only for now: it says when to ask again.
fn asks_for_later(error: &RestError) -> bool {
    !error.needs_login() && error.retry_after().is_some()
}
