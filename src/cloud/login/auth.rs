//! When to log in, when to refresh, and how long to wait after a failure: a pure state machine.
//!
//! After every `handle_*`, call [`Auth::poll_attempt`]. Carry out the attempt it returns, and report the
//! outcome with [`Auth::handle_tokens`] or [`Auth::handle_failure`]. Call [`Auth::handle_timeout`] at the
//! time that [`Auth::poll_timeout`] returns. There is never more than one attempt in progress.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cloud::backoff::{LAST_REJECTION, after_rejections, full_jitter, honouring};
use crate::cloud::status::LoginState;

/// A request for tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginAttempt {
    /// With UUID and pincode.
    LogIn,
    /// With the refresh token (RFC 6749, 6).
    Refresh,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginFailure {
    /// The cloud does not accept the credentials.
    Rejected {
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
    /// Too many attempts (429).
    TooMany {
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
    /// The cloud cannot be reached, or cannot answer now.
    Unavailable {
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
}

/// Tokens stored before a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StoredTokens {
    /// The access token's whole lifetime.
    pub(crate) lifetime: Duration,
    /// The apparent rest of the lifetime; `None` if the token is not worth trying.
    pub(crate) remaining: Option<Duration>,
    /// Whether there is a refresh token.
    pub(crate) can_refresh: bool,
}

/// The timers of [`Auth::poll_timeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LoginTimer {
    /// Refresh the token before it expires.
    Refresh,
    /// Repeat a failed attempt.
    Retry,
}

/// The state of the login.
#[derive(Debug)]
pub(crate) struct Auth {
    rng: Rng,
    phase: LoginPhase,
    /// Counts the tokens obtained; 0 before the first.
    generation: u64,
    has_token: bool,
    can_refresh: bool,
    /// The token was stored before the restart, and nothing has accepted it yet.
    is_stored: bool,
    /// The token was obtained because the previous one was refused, and nothing has accepted it yet.
    is_suspect: bool,
    /// How many logins, or tokens from logins, were rejected in a row.
    rejections: u32,
    /// How many attempts in a row had no answer.
    failures: u32,
    /// No login before this time, because the logins before the restart were rejected.
    no_login_before: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LoginPhase {
    Due(LoginAttempt),
    InProgress(LoginAttempt),
    Waiting { until: Instant, then: LoginAttempt },
    Holding { refresh_at: Instant },
}

/// The least time between two refreshes, even of short-lived tokens. The value is a compromise: a cloud must
/// not be flooded, and a token that lives for seconds must be replaced in time.
const MIN_REFRESH: Duration = Duration::from_secs(2);
/// Longer lifetimes count as this: 30 days, so that arithmetic with them cannot overflow, and a revoked login
/// is noticed in time.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

impl Auth {
    /// Not logged in; a login is due.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            phase: LoginPhase::Due(LoginAttempt::LogIn),
            generation: 0,
            has_token: false,
            can_refresh: false,
            is_stored: false,
            is_suspect: false,
            rejections: 0,
            failures: 0,
            no_login_before: None,
        }
    }

    /// With tokens stored before a restart. Uses the access token, as number 1, if it seems valid; otherwise
    /// the refresh token; otherwise a login is due.
    pub(crate) fn resume(seed: u64, now: Instant, stored: StoredTokens) -> Self {
        let mut auth = Self { can_refresh: stored.can_refresh, ..Self::new(seed) };
        if let Some(remaining) = stored.remaining {
            let used = stored.lifetime.saturating_sub(remaining);
            let wait = auth.refresh_after(stored.lifetime).saturating_sub(used).max(MIN_REFRESH);
            auth.generation = 1;
            auth.has_token = true;
            auth.is_stored = true;
            auth.phase = LoginPhase::Holding { refresh_at: now + wait };
        } else if stored.can_refresh {
            auth.phase = LoginPhase::Due(LoginAttempt::Refresh);
        }
        auth
    }

    /// Forbids a login for `left`: before the restart, `rejections` logins in a row were rejected.
    pub(crate) fn delay_login(&mut self, now: Instant, rejections: u32, left: Duration) {
        self.rejections = rejections;
        self.no_login_before = Some(now + left.min(LAST_REJECTION));
        if self.phase == LoginPhase::Due(LoginAttempt::LogIn) {
            self.phase = self.next_login(now);
        }
    }

    /// How many logins, or tokens from them, were rejected in a row.
    pub(crate) fn rejections(&self) -> u32 {
        self.rejections
    }

    /// The number of the current token; `None` while no token is worth trying.
    pub(crate) fn generation(&self) -> Option<u64> {
        self.has_token.then_some(self.generation)
    }

    /// The state of the login, for the status.
    pub(crate) fn state(&self) -> LoginState {
        if self.rejections > 0 {
            LoginState::Rejected
        } else if self.has_token {
            LoginState::LoggedIn
        } else if self.failures > 0 {
            LoginState::Unreachable
        } else {
            LoginState::LoggingIn
        }
    }

    /// The attempt succeeded with tokens of this lifetime. Returns the new token's number.
    pub(crate) fn handle_tokens(&mut self, now: Instant, lifetime: Duration, can_refresh: bool) -> u64 {
        self.generation += 1;
        self.has_token = true;
        self.can_refresh = can_refresh;
        self.is_stored = false;
        self.failures = 0;
        if !self.is_suspect {
            self.rejections = 0;
        }
        let wait = self.refresh_after(lifetime).max(MIN_REFRESH);
        self.phase = LoginPhase::Holding { refresh_at: now + wait };
        self.generation
    }

    fn refresh_after(&mut self, lifetime: Duration) -> Duration {
        // a random share, so that many connectors do not refresh simultaneously
        let share = 0.75 + 0.15 * self.rng.f64();
        lifetime.min(MAX_LIFETIME).mul_f64(share)
    }

    /// The attempt failed.
    pub(crate) fn handle_failure(&mut self, now: Instant, failure: LoginFailure) {
        let LoginPhase::InProgress(attempt) = self.phase else { return };
        let (wait, then) = match (failure, attempt) {
            (LoginFailure::Rejected { retry_after }, LoginAttempt::Refresh) => {
                self.can_refresh = false;
                if retry_after.is_some() {
                    let asked = now + honouring(&mut self.rng, retry_after, Duration::ZERO);
                    self.no_login_before = self.no_login_before.max(Some(asked));
                }
                self.phase = self.next_login(now);
                return;
            }
            (LoginFailure::Rejected { retry_after }, LoginAttempt::LogIn) => {
                let wait = self.count_rejection();
                (honouring(&mut self.rng, retry_after, wait), LoginAttempt::LogIn)
            }
            (LoginFailure::TooMany { retry_after }, _) => {
                self.failures = self.failures.saturating_add(1);
                let default = after_rejections(self.failures);
                let jitter = full_jitter(&mut self.rng, self.failures - 1);
                let rng = &mut self.rng;
                (retry_after.map_or(default, |_| honouring(rng, retry_after, jitter)), attempt)
            }
            (LoginFailure::Unavailable { retry_after }, _) => {
                let wait = full_jitter(&mut self.rng, self.failures);
                self.failures = self.failures.saturating_add(1);
                (honouring(&mut self.rng, retry_after, wait), attempt)
            }
        };
        self.phase = LoginPhase::Waiting { until: now + wait, then };
    }

    /// A request with the token of this number was answered with 401. Only the first such report for a token
    /// causes a login. If the token from that login is refused too, the next login waits as after a wrong
    /// pincode. A token stored before a restart is refreshed first, because the device's clock may have been
    /// wrong about its age.
    pub(crate) fn handle_unauthorized(&mut self, now: Instant, generation: u64) {
        if !self.has_token || generation != self.generation {
            return;
        }
        self.has_token = false;
        match self.phase {
            LoginPhase::Holding { .. } if self.is_stored && self.can_refresh => {
                self.phase = LoginPhase::Due(LoginAttempt::Refresh)
            }
            LoginPhase::Holding { .. } if self.is_suspect => {
                let until = now + self.count_rejection();
                self.phase = LoginPhase::Waiting { until, then: LoginAttempt::LogIn };
            }
            LoginPhase::Holding { .. } => {
                self.is_suspect = true;
                self.phase = self.next_login(now);
            }
            // another token is already on its way
            LoginPhase::Due(_) | LoginPhase::InProgress(_) | LoginPhase::Waiting { .. } => {}
        }
    }

    /// The cloud accepted the token of this number. Logins rejected since the token was issued still count.
    pub(crate) fn handle_accepted(&mut self, generation: u64) {
        if self.has_token && generation == self.generation {
            self.is_stored = false;
            if std::mem::take(&mut self.is_suspect) {
                self.rejections = 0;
            }
        }
    }

    /// Handles the expiry of [`Auth::poll_timeout`].
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            LoginPhase::Waiting { until, then } if until <= now => self.phase = LoginPhase::Due(then),
            LoginPhase::Holding { refresh_at } if refresh_at <= now => {
                self.phase = if self.can_refresh {
                    LoginPhase::Due(LoginAttempt::Refresh)
                } else {
                    self.next_login(now)
                };
            }
            _ => {}
        }
    }

    /// The attempt to make now. Each attempt is returned once.
    pub(crate) fn poll_attempt(&mut self) -> Option<LoginAttempt> {
        let LoginPhase::Due(attempt) = self.phase else { return None };
        self.phase = LoginPhase::InProgress(attempt);
        Some(attempt)
    }

    /// When to call [`Auth::handle_timeout`], and for which timer.
    pub(crate) fn poll_timeout(&self) -> Option<(Instant, LoginTimer)> {
        match self.phase {
            LoginPhase::Waiting { until, .. } => Some((until, LoginTimer::Retry)),
            LoginPhase::Holding { refresh_at } => Some((refresh_at, LoginTimer::Refresh)),
            LoginPhase::Due(_) | LoginPhase::InProgress(_) => None,
        }
    }

    fn next_login(&self, now: Instant) -> LoginPhase {
        match self.no_login_before {
            Some(until) if until > now => LoginPhase::Waiting { until, then: LoginAttempt::LogIn },
            _ => LoginPhase::Due(LoginAttempt::LogIn),
        }
    }

    fn count_rejection(&mut self) -> Duration {
        self.rejections = self.rejections.saturating_add(1);
        after_rejections(self.rejections)
    }
}

#[cfg(test)]
#[path = "auth_tests.rs"]
mod tests;
