//! Connects to the cloud until there is a websocket.

use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use connector_hal::clock::now;
use connector_hal::future::BoxFuture;
use connector_hal::timer::{Deadline, TimerKind};

use super::connect::{CloudConnectError, Websocket, connect};
use super::reconnect::{ConnectFailure, NextConnect, Reconnect};
use super::settings::SocketSettings;
use crate::cloud::dial::Dialer;
use crate::cloud::login::Authenticator;
use crate::cloud::rest::{AccessToken, ErrorChain};

/// Waits, logs in and connects, again and again until there is a websocket.
pub(super) struct ConnectLoop {
    settings: Arc<SocketSettings>,
    dialer: Dialer,
    authenticator: Authenticator,
    policy: Reconnect,
    phase: ConnectPhase,
    timer: Deadline,
    /// The failure last logged as a warning. A repetition is logged at DEBUG only.
    last_warning: Option<String>,
}

enum ConnectPhase {
    /// Waits for the time of the next attempt.
    Waiting { until: Instant, refused: Option<AccessToken> },
    /// Waits for a token.
    LoggingIn(BoxFuture<'static, AccessToken>),
    /// Waits for the websocket.
    Opening { token: AccessToken, websocket: BoxFuture<'static, Result<Websocket, CloudConnectError>> },
}

impl ConnectLoop {
    /// The first attempt starts with the first poll.
    pub(super) fn new(
        settings: Arc<SocketSettings>,
        dialer: Dialer,
        authenticator: Authenticator,
        seed: u64,
    ) -> Self {
        Self {
            settings,
            dialer,
            authenticator,
            policy: Reconnect::new(seed),
            phase: ConnectPhase::Waiting { until: now(), refused: None },
            timer: Deadline::new(TimerKind::Runtime),
            last_warning: None,
        }
    }

    /// A websocket, as soon as there is one. `is_busy` says that an operator's connection is held.
    pub(super) fn poll_connected(&mut self, cx: &mut Context<'_>, is_busy: bool) -> Poll<Websocket> {
        loop {
            match &mut self.phase {
                ConnectPhase::Waiting { until, refused } => {
                    if *until > now() {
                        self.timer.set(Some(*until));
                        ready!(self.timer.poll_expired(cx));
                        continue;
                    }
                    let refused = refused.take();
                    self.log_in(refused);
                }
                ConnectPhase::LoggingIn(token) => {
                    let token = ready!(token.as_mut().poll(cx));
                    let websocket = connect(self.settings.clone(), self.dialer.clone(), token.clone());
                    self.phase = ConnectPhase::Opening { token, websocket: Box::pin(websocket) };
                }
                ConnectPhase::Opening { token, websocket } => {
                    let result = ready!(websocket.as_mut().poll(cx));
                    let token = token.clone();
                    match result {
                        Ok(websocket) => {
                            self.handle_connected(&token);
                            return Poll::Ready(websocket);
                        }
                        Err(error) => self.handle_connect_error(&error, token, is_busy),
                    }
                }
            }
        }
    }

    /// The websocket made last has dropped.
    pub(super) fn handle_drop(&mut self, failure: ConnectFailure, is_busy: bool) {
        self.schedule(failure, None, is_busy);
    }

    fn log_in(&mut self, refused: Option<AccessToken>) {
        let authenticator = self.authenticator.clone();
        self.phase = ConnectPhase::LoggingIn(Box::pin(async move {
            match refused {
                Some(refused) => authenticator.renewed(&refused).await,
                None => authenticator.token().await,
            }
        }));
    }

    fn handle_connected(&mut self, token: &AccessToken) {
        self.last_warning = None;
        self.policy.handle_connected(now());
        self.authenticator.accepted(token);
        self.phase = ConnectPhase::Waiting { until: now(), refused: None };
    }

    fn handle_connect_error(&mut self, error: &CloudConnectError, token: AccessToken, is_busy: bool) {
        let failure = error.failure();
        let text = ErrorChain(error).to_string();
        if !failure.is_unauthorized() && self.last_warning.as_ref() != Some(&text) {
            tracing::warn!("cannot connect to the cloud: {text}; trying again");
            self.last_warning = Some(text);
        } else {
            tracing::debug!("cannot connect to the cloud: {text}");
        }
        self.schedule(failure, Some(token), is_busy);
    }

    fn schedule(&mut self, failure: ConnectFailure, token: Option<AccessToken>, is_busy: bool) {
        let NextConnect { at, needs_login } = self.policy.handle_failure(now(), failure, is_busy);
        tracing::debug!("connecting again in {:.1?}", at.saturating_duration_since(now()));
        let refused = token.filter(|_| needs_login);
        if let Some(refused) = &refused {
            self.authenticator.unauthorized(refused);
        }
        self.phase = ConnectPhase::Waiting { until: at, refused };
    }
}
