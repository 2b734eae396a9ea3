//! The login task: carries out what [`Auth`] decides.

use std::sync::Arc;

use connector_hal::clock::{now, sleep_until};
use secrecy::SecretString;
use tokio::sync::watch;

use super::auth::{Auth, LoginAttempt, LoginFailure, StoredTokens};
use super::store::{LoginStore, StoredLogin, StoredRejections};
use super::store_task::StoreTask;
use super::token_reports::TokenReports;
use crate::cloud::rest::{AccessToken, ErrorChain, Rest, RestError, Tokens};
use crate::cloud::state_file::unix_now;
use crate::cloud::status::{CloudStatus, LoginState};
use crate::config::{Pincode, secrets};

/// The login task.
pub(super) struct LoginTask {
    auth: Auth,
    seed: u64,
    store: StoreTask,
    rest: Arc<Rest>,
    pincode: Pincode,
    refresh_token: Option<SecretString>,
    reports: Arc<TokenReports>,
    publisher: watch::Sender<Option<AccessToken>>,
    status: watch::Sender<CloudStatus>,
    state: LoginState,
}

impl LoginTask {
    pub(super) fn new(
        rest: Arc<Rest>,
        pincode: Pincode,
        store: Option<LoginStore>,
        seed: u64,
        reports: Arc<TokenReports>,
        publisher: watch::Sender<Option<AccessToken>>,
        status: watch::Sender<CloudStatus>,
    ) -> Self {
        Self {
            auth: Auth::new(seed),
            seed,
            store: StoreTask::new(store),
            rest,
            pincode,
            refresh_token: None,
            reports,
            publisher,
            status,
            state: LoginState::default(),
        }
    }

    /// Logs in and refreshes tokens until the task is aborted.
    pub(super) async fn run(mut self) {
        self.resume().await;
        loop {
            self.process_attempts().await;
            self.wait().await;
            self.process_reports();
        }
    }

    /// Continues with the login and the rejections from before the restart.
    async fn resume(&mut self) {
        let (login, rejections) = self.store.load().await;
        if let Some(login) = login {
            self.resume_tokens(login);
        }
        if let Some(rejections) = rejections {
            self.resume_rejections(rejections);
        }
    }

    /// Carries out the attempts that are due.
    async fn process_attempts(&mut self) {
        while let Some(attempt) = self.auth.poll_attempt() {
            let outcome = self.attempt(attempt).await;
            self.handle_outcome(attempt, outcome);
        }
    }

    /// Waits for a report about a token, the end of a save, or the next deadline.
    async fn wait(&mut self) {
        let deadline = self.auth.poll_timeout().map(|(at, _)| at);
        tokio::select! {
            () = self.reports.changed() => {}
            () = self.store.saved() => {}
            () = sleep_until(deadline) => self.auth.handle_timeout(now()),
        }
    }

    /// Passes on which tokens were accepted and which refused.
    fn process_reports(&mut self) {
        self.auth.handle_accepted(self.reports.accepted());
        self.auth.handle_unauthorized(now(), self.reports.unauthorized());
        self.store.save_rejections(self.auth.rejections());
        self.publish_state(None);
    }

    /// Continues with the stored tokens.
    fn resume_tokens(&mut self, login: StoredLogin) {
        let remaining = login.remaining(unix_now());
        remember(&login.tokens);
        let Tokens { access, refresh, lifetime, id: _ } = login.tokens;
        let tokens = StoredTokens { lifetime, remaining, can_refresh: refresh.is_some() };
        self.auth = Auth::resume(self.seed, now(), tokens);
        self.refresh_token = refresh;
        tracing::debug!(?remaining, "using the stored tokens");
        if let Some(generation) = self.auth.generation() {
            self.publisher.send_replace(Some(AccessToken { generation, secret: Arc::new(access) }));
        }
        self.publish_state(None);
    }

    /// Continues the wait from before the restart: an agent that restarts again and again must not log in
    /// each time.
    fn resume_rejections(&mut self, rejections: StoredRejections) {
        let left = rejections.wait_left(unix_now());
        self.auth.delay_login(now(), rejections.count, left);
        self.state = self.auth.state();
        self.status.send_modify(|status| status.login = self.state);
        tracing::warn!(
            "the cloud did not accept this connector's UUID and pincode before the restart; correct them in the \
             configuration. Trying the same ones again in {} s",
            left.as_secs()
        );
    }

    async fn attempt(&self, attempt: LoginAttempt) -> Result<Tokens, RestError> {
        match (attempt, &self.refresh_token) {
            (LoginAttempt::Refresh, Some(refresh_token)) => self.rest.refresh(refresh_token).await,
            _ => self.rest.log_in(&self.pincode).await,
        }
    }

    fn handle_outcome(&mut self, attempt: LoginAttempt, outcome: Result<Tokens, RestError>) {
        match outcome {
            Ok(tokens) => self.handle_tokens(attempt, tokens),
            Err(error) => {
                self.auth.handle_failure(now(), classify(&error));
                let wait = self.auth.poll_timeout().map(|(at, _)| at.saturating_duration_since(now()));
                tracing::debug!("{attempt:?}: {}; next attempt in {wait:.1?}", ErrorChain(&error));
                self.publish_state(Some(&error));
            }
        }
        self.store.save_rejections(self.auth.rejections());
    }

    fn handle_tokens(&mut self, attempt: LoginAttempt, tokens: Tokens) {
        remember(&tokens);
        // the answer to a refresh may lack a refresh token: then the old one stays valid (RFC 6749, 6)
        if attempt == LoginAttempt::LogIn || tokens.refresh.is_some() {
            self.refresh_token = tokens.refresh;
        }
        let can_refresh = self.refresh_token.is_some();
        let generation = self.auth.handle_tokens(now(), tokens.lifetime, can_refresh);
        tracing::debug!("{attempt:?}: token {generation}, valid for {:?}", tokens.lifetime);
        self.store.save(&tokens.access, self.refresh_token.as_ref(), tokens.lifetime);
        self.publisher.send_replace(Some(AccessToken { generation, secret: Arc::new(tokens.access) }));
        self.publish_state(None);
    }

    /// Publishes the login's state if it has changed, and logs the change once.
    fn publish_state(&mut self, error: Option<&RestError>) {
        if self.auth.generation().is_none() && self.publisher.borrow().is_some() {
            self.publisher.send_replace(None);
        }
        let state = self.auth.state();
        if state == self.state {
            return;
        }
        self.state = state;
        self.status.send_modify(|status| status.login = state);
        match (state, error) {
            (LoginState::LoggedIn, _) => tracing::info!("logged in"),
            (LoginState::Rejected, Some(error)) => tracing::warn!(
                "the cloud does not accept this connector's UUID and pincode: {}; correct them in the configuration. \
                 Trying again after a minute, later every hour",
                ErrorChain(error)
            ),
            (LoginState::Rejected, None) => {
                tracing::warn!(
                    "the cloud refuses the tokens that it issued; trying again after a minute, later every hour"
                );
            }
            (LoginState::Unreachable, Some(error)) => {
                tracing::warn!("cannot log in: {}; trying again", ErrorChain(error))
            }
            (LoginState::Unreachable | LoginState::LoggingIn, _) => tracing::debug!("logging in again"),
        }
    }
}

/// Keeps the tokens out of the log, also where a text of the cloud quotes them.
fn remember(tokens: &Tokens) {
    [Some(&tokens.access), tokens.refresh.as_ref(), tokens.id.as_ref()]
        .into_iter()
        .flatten()
        .for_each(secrets::remember_token);
}

fn classify(error: &RestError) -> LoginFailure {
    match error {
        RestError::Refused { status: 429, retry_after, .. } => {
            LoginFailure::TooMany { retry_after: *retry_after }
        }
        // A redirection, which the client does not follow, or a change of the protocol says nothing about the
        // pincode: it comes from something between the connector and the cloud.
        RestError::Refused { status: ..=399, retry_after, .. } => {
            LoginFailure::Unavailable { retry_after: *retry_after }
        }
        error if error.is_transient() => LoginFailure::Unavailable { retry_after: error.retry_after() },
        error => LoginFailure::Rejected { retry_after: error.retry_after() },
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_a_refusal_by_the_cloud_itself_is_blamed_on_the_pincode() {
        let retry_after = Some(Duration::from_secs(7));
        let failure = |status| classify(&RestError::Refused { status, problem: None, retry_after });
        for status in [400, 401, 403, 404, 422] {
            assert_eq!(failure(status), LoginFailure::Rejected { retry_after }, "{status}");
        }
        for status in [101, 301, 302, 307, 308, 408, 500, 502, 503, 504] {
            assert_eq!(failure(status), LoginFailure::Unavailable { retry_after }, "{status}");
        }
        assert_eq!(failure(429), LoginFailure::TooMany { retry_after });
    }
}
