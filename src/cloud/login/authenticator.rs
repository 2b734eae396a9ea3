//! The handle of the login task: keeps the connector logged in.

use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::login_task::LoginTask;
use super::store::LoginStore;
use super::token_reports::TokenReports;
use crate::cloud::rest::{AccessToken, Rest};
use crate::cloud::status::CloudStatus;
use crate::config::Pincode;

/// A handle of the login task: hands out tokens, and passes on which tokens were accepted and which refused.
/// The task ends with its last handle.
#[derive(Debug, Clone)]
pub struct Authenticator {
    tokens: watch::Receiver<Option<AccessToken>>,
    status: watch::Sender<CloudStatus>,
    reports: Arc<TokenReports>,
    _task: Arc<AbortOnDrop>,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Authenticator {
    /// Starts logging in, on the current runtime, without storing the login.
    pub fn spawn(rest: Arc<Rest>, pincode: Pincode, seed: u64) -> Self {
        Self::resume(rest, pincode, None, seed)
    }

    /// Starts logging in, on the current runtime, with the tokens in `store` if they are valid. New tokens
    /// are saved there.
    pub fn resume(rest: Arc<Rest>, pincode: Pincode, store: Option<LoginStore>, seed: u64) -> Self {
        let (publisher, tokens) = watch::channel(None);
        let status = watch::Sender::new(CloudStatus::default());
        let reports = Arc::new(TokenReports::default());
        let task = LoginTask::new(rest, pincode, store, seed, reports.clone(), publisher, status.clone());
        let task = tokio::spawn(task.run());
        Self { tokens, status, reports, _task: Arc::new(AbortOnDrop(task)) }
    }

    /// Waits until there is a token, however long that takes, and returns it. Cancel-safe.
    pub async fn token(&self) -> AccessToken {
        self.token_after(0).await
    }

    /// Reports that a request with the token was answered with 401, and waits for another token. Several
    /// reports about the same token cause one login. Cancel-safe.
    pub async fn renewed(&self, refused: &AccessToken) -> AccessToken {
        self.unauthorized(refused);
        self.token_after(refused.generation).await
    }

    /// Reports that a request with the token was answered with 401.
    pub(crate) fn unauthorized(&self, refused: &AccessToken) {
        self.reports.add_unauthorized(refused.generation);
    }

    /// Reports that the cloud accepted the token.
    pub(crate) fn accepted(&self, token: &AccessToken) {
        self.reports.add_accepted(token.generation);
    }

    /// The state of login and websocket, and its changes.
    pub fn status(&self) -> watch::Receiver<CloudStatus> {
        self.status.subscribe()
    }

    /// Publishes in the status whether the websocket is up.
    pub(crate) fn set_online(&self, is_online: bool) {
        self.status
            .send_if_modified(|status| std::mem::replace(&mut status.is_online, is_online) != is_online);
    }

    async fn token_after(&self, generation: u64) -> AccessToken {
        let mut tokens = self.tokens.clone();
        let is_newer =
            |token: &Option<AccessToken>| token.as_ref().is_some_and(|token| token.generation > generation);
        let token = tokens.wait_for(is_newer).await.ok().and_then(|token| token.clone());
        match token {
            Some(token) => token,
            // the runtime is shutting down and has ended the login task
            None => std::future::pending().await,
        }
    }
}
