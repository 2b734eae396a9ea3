//! The REST resources with a login.

use std::sync::{Arc, Mutex, PoisonError};

use fastrand::Rng;

use super::backoff::{full_jitter, honouring};
use super::login::Authenticator;
use super::rest::{AccessToken, ActiveTicket, Chain, ConnectorRecord, Rest, RestError};

/// The REST resources with a login: they wait for a token, log in again after a 401 (once), and try again what can
/// succeed later, until it does. Dropping a call's future ends it.
#[derive(Debug, Clone)]
pub struct Cloud {
    rest: Arc<Rest>,
    authenticator: Authenticator,
    rng: Arc<Mutex<Rng>>,
}

impl Cloud {
    /// With the tokens of this authenticator.
    pub fn new(rest: Arc<Rest>, authenticator: Authenticator, seed: u64) -> Self {
        Self { rest, authenticator, rng: Arc::new(Mutex::new(Rng::with_seed(seed))) }
    }

    /// What the cloud knows of this connector.
    pub async fn connector(&self) -> Result<ConnectorRecord, RestError> {
        self.ask("the connector's record", async |rest, token| rest.connector(token).await).await
    }

    /// The ticket in progress on this connector, if there is one.
    pub async fn active_ticket(&self) -> Result<Option<ActiveTicket>, RestError> {
        self.ask("the active ticket", async |rest, token| rest.active_ticket(token).await).await
    }

    /// Tells the cloud that the call for attention is over.
    pub async fn dismiss_call_for_attention(&self) -> Result<(), RestError> {
        let dismiss = async |rest: &Rest, token: &AccessToken| rest.dismiss_call_for_attention(token).await;
        self.ask("dismissing the call for attention", dismiss).await
    }

    async fn ask<T>(
        &self,
        what: &str,
        request: impl AsyncFn(&Rest, &AccessToken) -> Result<T, RestError>,
    ) -> Result<T, RestError> {
        let mut token = self.authenticator.token().await;
        let mut has_new_login = false;
        let mut failures = 0;
        loop {
            let error = match request(&self.rest, &token).await {
                Ok(answer) => {
                    self.authenticator.accepted(&token);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            if error.needs_login() && !has_new_login {
                has_new_login = true;
                token = self.authenticator.renewed(&token).await;
            } else if error.is_transient() {
                let wait = {
                    let mut rng = self.rng.lock().unwrap_or_else(PoisonError::into_inner);
                    honouring(error.retry_after(), full_jitter(&mut rng, failures))
                };
                failures += 1;
                tracing::debug!("{what}: {}; trying again in {wait:.1?}", Chain(&error));
                tokio::time::sleep(wait).await;
                token = self.authenticator.token().await;
            } else {
                return Err(error);
            }
        }
    }
}
