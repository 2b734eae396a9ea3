//! The login, kept up by a task of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::auth::{Attempt, Auth, Failure, KeptTokens};
use super::keeper::Keeper;
use super::kept::{Kept, KeptLogin, KeptRejections, unix_now};
use crate::cloud::rest::{AccessToken, Tokens};
use crate::cloud::rest::{Chain, Rest, RestError};
use crate::cloud::{CloudStatus, LoginState};
use crate::config::Pincode;

/// The login's handle: gives tokens, and is told which were accepted and which refused. The login ends with its last
/// handle.
#[derive(Debug, Clone)]
pub struct Authenticator {
    tokens: watch::Receiver<Option<AccessToken>>,
    status: watch::Sender<CloudStatus>,
    reports: Arc<Reports>,
    _task: Arc<AbortOnDrop>,
}

/// What became of tokens: the highest number accepted and the highest refused, so that there is no queue to fill.
#[derive(Debug, Default)]
struct Reports {
    accepted: AtomicU64,
    unauthorized: AtomicU64,
    changed: Notify,
}

#[derive(Debug)]
struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Authenticator {
    /// Starts to log in, on the current runtime; nothing is kept across restarts.
    pub fn spawn(rest: Arc<Rest>, pincode: Pincode, seed: u64) -> Self {
        Self::resume(rest, pincode, None, seed)
    }

    /// The same, with the tokens kept from before a restart as long as they are good; what takes their place is kept.
    pub fn resume(rest: Arc<Rest>, pincode: Pincode, kept: Option<KeptLogin>, seed: u64) -> Self {
        let (publish, tokens) = watch::channel(None);
        let status = watch::Sender::new(CloudStatus::default());
        let reports = Arc::new(Reports::default());
        let driver = Driver {
            auth: Auth::new(seed),
            seed,
            keeper: Keeper::new(kept, pincode.clone()),
            rest,
            pincode,
            refresh_token: None,
            reports: reports.clone(),
            publish,
            status: status.clone(),
            state: LoginState::default(),
        };
        let task = tokio::spawn(driver.drive());
        Self { tokens, status, reports, _task: Arc::new(AbortOnDrop(task)) }
    }

    /// The current token; waits until there is one, however long that takes. Cancel-safe.
    pub async fn token(&self) -> AccessToken {
        self.token_after(0).await
    }

    /// Tells that something answered 401 to the token, and waits for another. However many do so for the same token,
    /// there is one login. Cancel-safe.
    pub async fn renewed(&self, refused: &AccessToken) -> AccessToken {
        self.unauthorized(refused);
        self.token_after(refused.generation).await
    }

    /// Tells that something answered 401 to the token.
    pub fn unauthorized(&self, refused: &AccessToken) {
        self.reports.unauthorized.fetch_max(refused.generation, Ordering::AcqRel);
        self.reports.changed.notify_one();
    }

    /// Tells that something accepted the token.
    pub fn accepted(&self, token: &AccessToken) {
        if self.reports.accepted.fetch_max(token.generation, Ordering::AcqRel) < token.generation {
            self.reports.changed.notify_one();
        }
    }

    /// How it stands with login and link, and how that changes.
    pub fn status(&self) -> watch::Receiver<CloudStatus> {
        self.status.subscribe()
    }

    /// Tells whether the link is up, for those who watch the status.
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
            // the runtime is shutting down and has ended the login's task
            None => std::future::pending().await,
        }
    }
}

/// The task: carries out what [`Auth`] decides.
struct Driver {
    auth: Auth,
    seed: u64,
    keeper: Keeper,
    rest: Arc<Rest>,
    pincode: Pincode,
    refresh_token: Option<SecretString>,
    reports: Arc<Reports>,
    publish: watch::Sender<Option<AccessToken>>,
    status: watch::Sender<CloudStatus>,
    state: LoginState,
}

impl Driver {
    async fn drive(mut self) {
        let (kept, rejections) = self.keeper.load().await;
        if let Some(kept) = kept {
            self.take_up(kept);
        }
        if let Some(rejections) = rejections {
            self.wait_on(rejections);
        }
        loop {
            while let Some(attempt) = self.auth.poll_attempt() {
                let outcome = self.attempt(attempt).await;
                self.handle_outcome(attempt, outcome);
            }
            let deadline = self.auth.poll_timeout().map(|(at, _)| tokio::time::Instant::from_std(at));
            let reports = self.reports.clone();
            tokio::select! {
                () = reports.changed.notified() => {}
                () = self.keeper.saved() => {}
                () = sleep_until(deadline) => self.auth.handle_timeout(now()),
            }
            self.auth.handle_accepted(self.reports.accepted.load(Ordering::Acquire));
            self.auth.handle_unauthorized(now(), self.reports.unauthorized.load(Ordering::Acquire));
            self.keeper.save_rejections(self.auth.rejections());
            self.show(None);
        }
    }

    /// Goes on with what was kept.
    fn take_up(&mut self, kept: Kept) {
        let remaining = kept.remaining(unix_now());
        let Tokens { access, refresh, lifetime } = kept.tokens;
        let state = KeptTokens { lifetime, remaining, can_refresh: refresh.is_some() };
        self.auth = Auth::resume(self.seed, now(), state);
        self.refresh_token = refresh;
        tracing::debug!(?remaining, "the tokens from before the restart are used");
        if let Some(generation) = self.auth.generation() {
            self.publish.send_replace(Some(AccessToken { generation, secret: Arc::new(access) }));
        }
        self.show(None);
    }

    /// Goes on waiting as before the restart: one who restarts all the time must not log in all the time.
    fn wait_on(&mut self, rejections: KeptRejections) {
        let left = rejections.wait_left(unix_now());
        self.auth.bar(now(), rejections.count, left);
        self.state = self.auth.state();
        self.status.send_modify(|status| status.login = self.state);
        tracing::warn!(
            "the cloud did not accept this connector's UUID and pincode before the restart; correct them in the \
             configuration. The same are tried again in {} s",
            left.as_secs()
        );
    }

    async fn attempt(&self, attempt: Attempt) -> Result<Tokens, RestError> {
        match (attempt, &self.refresh_token) {
            (Attempt::Refresh, Some(refresh_token)) => self.rest.refresh(refresh_token).await,
            _ => self.rest.log_in(&self.pincode).await,
        }
    }

    fn handle_outcome(&mut self, attempt: Attempt, outcome: Result<Tokens, RestError>) {
        self.take_outcome(attempt, outcome);
        self.keeper.save_rejections(self.auth.rejections());
    }

    fn take_outcome(&mut self, attempt: Attempt, outcome: Result<Tokens, RestError>) {
        match outcome {
            Ok(tokens) => {
                // a refresh may answer without another refresh token: then the old one stays (RFC 6749, 6)
                if attempt == Attempt::LogIn || tokens.refresh.is_some() {
                    self.refresh_token = tokens.refresh;
                }
                let can_refresh = self.refresh_token.is_some();
                let generation = self.auth.handle_tokens(now(), tokens.lifetime, can_refresh);
                tracing::debug!("{attempt:?}: token {generation}, good for {:?}", tokens.lifetime);
                self.keeper.save(&tokens.access, self.refresh_token.as_ref(), tokens.lifetime);
                self.publish.send_replace(Some(AccessToken { generation, secret: Arc::new(tokens.access) }));
                self.show(None);
            }
            Err(error) => {
                self.auth.handle_failure(now(), classify(&error));
                let wait = self.auth.poll_timeout().map(|(at, _)| at.saturating_duration_since(now()));
                tracing::debug!("{attempt:?}: {}; next attempt in {wait:.1?}", Chain(&error));
                self.show(Some(&error));
            }
        }
    }

    /// Publishes what has changed, and says so once.
    fn show(&mut self, error: Option<&RestError>) {
        if self.auth.generation().is_none() && self.publish.borrow().is_some() {
            self.publish.send_replace(None);
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
                Chain(error)
            ),
            (LoginState::Rejected, None) => {
                tracing::warn!(
                    "the cloud refuses the tokens that it gives; trying again after a minute, later every hour"
                );
            }
            (LoginState::Unreachable, Some(error)) => {
                tracing::warn!("no login: {}; trying again", Chain(error))
            }
            (LoginState::Unreachable | LoginState::LoggingIn, _) => tracing::debug!("logging in again"),
        }
    }
}

fn classify(error: &RestError) -> Failure {
    match error {
        RestError::Refused { status: 429, retry_after, .. } => Failure::TooMany { retry_after: *retry_after },
        // a redirection, which is not followed, tells nothing of the pincode: something between us and the cloud answers
        RestError::Refused { status: 300..=399, retry_after, .. } => {
            Failure::Unavailable { retry_after: *retry_after }
        }
        error if error.is_transient() => Failure::Unavailable { retry_after: error.retry_after() },
        _ => Failure::Rejected,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_clouds_own_refusal_is_put_down_to_the_pincode() {
        let failure = |status| classify(&RestError::Refused { status, problem: None, retry_after: None });
        for status in [400, 401, 403, 404, 422] {
            assert_eq!(failure(status), Failure::Rejected, "{status}");
        }
        for status in [301, 302, 307, 308, 408, 500, 502, 503, 504] {
            assert_eq!(failure(status), Failure::Unavailable { retry_after: None }, "{status}");
        }
        assert_eq!(failure(429), Failure::TooMany { retry_after: None });
    }
}
