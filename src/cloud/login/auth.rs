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
    Rejected,
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
            (LoginFailure::Rejected, LoginAttempt::Refresh) => {
                self.can_refresh = false;
                self.phase = self.next_login(now);
                return;
            }
            (LoginFailure::Rejected, LoginAttempt::LogIn) => (self.count_rejection(), LoginAttempt::LogIn),
            (LoginFailure::TooMany { retry_after }, _) => {
                self.failures = self.failures.saturating_add(1);
                let default = after_rejections(self.failures);
                let jitter = full_jitter(&mut self.rng, self.failures - 1);
                (retry_after.map_or(default, |_| honouring(retry_after, jitter)), attempt)
            }
            (LoginFailure::Unavailable { retry_after }, _) => {
                let wait = full_jitter(&mut self.rng, self.failures);
                self.failures = self.failures.saturating_add(1);
                (honouring(retry_after, wait), attempt)
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
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_token_is_refreshed_ahead_of_its_expiry() {
        for seed in 0..100 {
            let start = Instant::now();
            let mut auth = logged_in(start, seed);
            let (at, timer) = auth.poll_timeout().unwrap();
            assert_eq!(timer, LoginTimer::Refresh);
            assert!(at >= start + HOUR * 3 / 4 && at <= start + HOUR * 9 / 10, "{:?}", at - start);
            auth.handle_timeout(at - Duration::from_millis(1));
            assert_eq!(auth.poll_attempt(), None, "not before");
            auth.handle_timeout(at);
            assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
            assert_eq!(auth.generation(), Some(1), "the old token stays valid meanwhile");
        }
    }

    #[test]
    fn a_token_that_lives_a_few_seconds_is_refreshed_ahead_of_its_expiry_too() {
        let (start, lifetime) = (Instant::now(), Duration::from_secs(4));
        let mut auth = Auth::new(1);
        auth.poll_attempt().unwrap();
        auth.handle_tokens(start, lifetime, true);
        let (at, timer) = auth.poll_timeout().unwrap();
        assert!(timer == LoginTimer::Refresh && at < start + lifetime, "{:?}", at - start);
    }

    #[test]
    fn a_refused_refresh_falls_back_to_the_pincode_immediately() {
        let start = Instant::now();
        let mut auth = logged_in(start, 1);
        let now = fire(&mut auth);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        auth.handle_failure(now, LoginFailure::Rejected);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        assert_eq!(auth.state(), LoginState::LoggedIn, "the state does not change");
    }

    #[test]
    fn without_a_refresh_token_the_pincode_is_used_ahead_of_expiry() {
        let mut auth = Auth::new(1);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        auth.handle_tokens(Instant::now(), HOUR, false);
        fire(&mut auth);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    }

    #[test]
    fn a_wrong_pincode_is_tried_at_most_once_a_minute_and_then_once_an_hour() {
        let start = Instant::now();
        let mut auth = Auth::new(1);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
            assert_eq!(auth.poll_attempt(), None, "one at a time");
            auth.handle_failure(now, LoginFailure::Rejected);
            assert_eq!(auth.state(), LoginState::Rejected);
            assert_eq!(auth.poll_attempt(), None, "not immediately");
            let next = fire(&mut auth);
            waits.push((next - now).as_secs() / 60);
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        auth.handle_tokens(now, HOUR, true);
        assert_eq!(auth.state(), LoginState::LoggedIn);
    }

    #[test]
    fn a_rejected_pincode_is_backed_off_from_although_the_old_token_is_still_accepted() {
        let mut now = Instant::now();
        let mut auth = logged_in(now, 1);
        auth.handle_accepted(1);
        now = fire(&mut auth);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        auth.handle_failure(now, LoginFailure::Rejected);
        let mut waits = Vec::new();
        for _ in 0..5 {
            assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
            auth.handle_failure(now, LoginFailure::Rejected);
            auth.handle_accepted(1);
            assert_eq!(auth.state(), LoginState::Rejected);
            let next = fire(&mut auth);
            waits.push((next - now).as_secs() / 60);
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn rejections_from_before_a_restart_delay_the_login_and_still_count() {
        let start = Instant::now();
        let mut auth = Auth::new(1);
        auth.delay_login(start, 3, 100 * SECOND);
        assert_eq!(auth.state(), LoginState::Rejected);
        assert_eq!(auth.poll_attempt(), None);
        let now = fire(&mut auth);
        assert_eq!(now - start, 100 * SECOND);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        auth.handle_failure(now, LoginFailure::Rejected);
        assert_eq!(fire(&mut auth) - now, 8 * 60 * SECOND, "the fourth");
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        auth.handle_tokens(now, HOUR, true);
        assert_eq!((auth.state(), auth.rejections()), (LoginState::LoggedIn, 0));
    }

    #[test]
    fn stored_tokens_are_tried_while_the_login_is_delayed() {
        let start = Instant::now();
        let stored = |remaining| StoredTokens { lifetime: HOUR, remaining, can_refresh: true };
        let mut auth = Auth::resume(1, start, stored(None));
        auth.delay_login(start, 1, 60 * SECOND);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        auth.handle_failure(start, LoginFailure::Rejected);
        assert_eq!(auth.poll_attempt(), None);
        assert_eq!(fire(&mut auth) - start, 60 * SECOND);
        let mut auth = Auth::resume(1, start, stored(Some(HOUR)));
        auth.delay_login(start, 1, 60 * SECOND);
        assert_eq!(auth.generation(), Some(1));
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        auth.handle_tokens(start, HOUR, true);
        assert_eq!(auth.state(), LoginState::LoggedIn);
        auth.handle_unauthorized(start, 2);
        assert_eq!(auth.poll_attempt(), None, "the next login waits for its time");
    }

    #[test]
    fn several_refusals_of_the_same_token_cause_one_login() {
        let start = Instant::now();
        let mut auth = logged_in(start, 1);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.generation(), None);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), None);
        assert_eq!(auth.handle_tokens(start, HOUR, true), 2);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), None, "a late report about the old token changes nothing");
        assert_eq!(auth.generation(), Some(2));
    }

    #[test]
    fn a_cloud_that_refuses_the_tokens_it_gives_is_not_hammered() {
        let start = Instant::now();
        let mut now = start;
        let mut auth = logged_in(start, 1);
        let mut logins = 1;
        while now < start + 10 * HOUR {
            auth.handle_unauthorized(now, auth.generation);
            if auth.poll_attempt().is_none() {
                now = fire(&mut auth);
                assert_eq!(auth.state(), LoginState::Rejected);
                assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
            }
            auth.handle_tokens(now, HOUR, true);
            logins += 1;
        }
        assert!(logins <= 18, "{logins} logins in ten hours");
        auth.handle_accepted(auth.generation);
        assert_eq!(auth.state(), LoginState::LoggedIn);
        auth.handle_unauthorized(now, auth.generation);
        assert_eq!(
            auth.poll_attempt(),
            Some(LoginAttempt::LogIn),
            "after the token worked, a 401 causes an immediate login again"
        );
    }

    #[test]
    fn an_unavailable_cloud_is_tried_again_with_the_same_attempt() {
        let start = Instant::now();
        let mut auth = logged_in(start, 1);
        let mut now = fire(&mut auth);
        for _ in 0..20 {
            assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
            auth.handle_failure(now, LoginFailure::Unavailable { retry_after: None });
            let next = fire(&mut auth);
            assert!(next - now <= Duration::from_secs(60));
            now = next;
        }
        assert_eq!(auth.state(), LoginState::LoggedIn, "the token may still be valid");
        auth.handle_unauthorized(now, 1);
        assert_eq!(auth.state(), LoginState::Unreachable);
    }

    #[test]
    fn retry_after_is_honoured() {
        let start = Instant::now();
        let wait = Duration::from_secs(1234);
        for failure in [
            LoginFailure::TooMany { retry_after: Some(wait) },
            LoginFailure::Unavailable { retry_after: Some(wait) },
        ] {
            let mut auth = Auth::new(1);
            auth.poll_attempt().unwrap();
            auth.handle_failure(start, failure);
            assert_eq!(auth.poll_timeout(), Some((start + wait, LoginTimer::Retry)));
        }
        for seed in 0..100 {
            let mut auth = Auth::new(seed);
            auth.poll_attempt().unwrap();
            let soon = Duration::from_secs(4);
            auth.handle_failure(start, LoginFailure::TooMany { retry_after: Some(soon) });
            let wait = auth.poll_timeout().unwrap().0 - start;
            assert!(
                wait >= soon && wait <= Duration::from_secs(5),
                "the cloud asked for a short wait: {wait:?}"
            );
        }
        let mut auth = Auth::new(1);
        auth.poll_attempt().unwrap();
        auth.handle_failure(start, LoginFailure::TooMany { retry_after: None });
        assert_eq!(auth.poll_timeout().unwrap().0, start + Duration::from_secs(60), "one minute by default");
    }

    #[test]
    fn lifetimes_beyond_reason_do_no_harm() {
        let start = Instant::now();
        let mut auth = Auth::new(1);
        auth.poll_attempt().unwrap();
        auth.handle_tokens(start, Duration::MAX, true);
        assert!(auth.poll_timeout().unwrap().0 <= start + MAX_LIFETIME);
        auth.handle_tokens(start, Duration::ZERO, true);
        assert_eq!(auth.poll_timeout().unwrap().0, start + MIN_REFRESH);
    }

    #[test]
    fn a_stored_token_is_used_without_a_login_and_refreshed_at_its_usual_time() {
        let start = Instant::now();
        for seed in 0..100 {
            let mut auth = Auth::resume(seed, start, stored(Some(HOUR / 2)));
            assert_eq!((auth.generation(), auth.state()), (Some(1), LoginState::LoggedIn));
            assert_eq!(auth.poll_attempt(), None);
            let (at, timer) = auth.poll_timeout().unwrap();
            let wait = at - start;
            assert!(timer == LoginTimer::Refresh && wait >= HOUR / 4 && wait <= HOUR * 2 / 5, "{wait:?}");
            auth.handle_timeout(at);
            assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
            assert_eq!(auth.handle_tokens(at, HOUR, true), 2);
        }
    }

    #[test]
    fn a_stored_token_close_to_its_end_is_refreshed_soon_but_used_meanwhile() {
        let start = Instant::now();
        let auth = Auth::resume(1, start, stored(Some(Duration::from_secs(10))));
        assert_eq!(auth.poll_timeout(), Some((start + MIN_REFRESH, LoginTimer::Refresh)));
        assert_eq!(auth.generation(), Some(1));
    }

    #[test]
    fn without_a_stored_access_token_the_stored_refresh_token_is_used_and_then_the_pincode() {
        let start = Instant::now();
        let mut auth = Auth::resume(1, start, stored(None));
        assert_eq!((auth.generation(), auth.state()), (None, LoginState::LoggingIn));
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        auth.handle_failure(start, LoginFailure::Rejected);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        let mut auth = Auth::resume(1, start, StoredTokens { can_refresh: false, ..stored(None) });
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    }

    #[test]
    fn a_stored_token_that_is_refused_is_refreshed_before_the_pincode_is_used() {
        let start = Instant::now();
        let mut auth = Auth::resume(1, start, stored(Some(HOUR)));
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::Refresh));
        assert_eq!(auth.handle_tokens(start, HOUR, true), 2);
        auth.handle_unauthorized(start, 2);
        assert_eq!(
            auth.poll_attempt(),
            Some(LoginAttempt::LogIn),
            "a new token that is refused asks for a login"
        );
        assert_eq!(auth.handle_tokens(start, HOUR, true), 3);
        auth.handle_unauthorized(start, 3);
        assert_eq!(auth.poll_attempt(), None, "and then the login waits");
        assert_eq!(auth.state(), LoginState::Rejected);
    }

    #[test]
    fn a_stored_token_that_was_accepted_is_like_any_other() {
        let start = Instant::now();
        let mut auth = Auth::resume(1, start, stored(Some(HOUR)));
        auth.handle_accepted(1);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
    }

    #[test]
    fn stored_tokens_beyond_reason_do_no_harm() {
        let start = Instant::now();
        for (lifetime, remaining) in
            [(Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::MAX), (Duration::MAX, HOUR)]
        {
            let auth = Auth::resume(
                1,
                start,
                StoredTokens { lifetime, remaining: Some(remaining), can_refresh: true },
            );
            let (at, _) = auth.poll_timeout().unwrap();
            assert!(at >= start + MIN_REFRESH && at <= start + MAX_LIFETIME);
        }
    }

    fn stored(remaining: Option<Duration>) -> StoredTokens {
        StoredTokens { lifetime: HOUR, remaining, can_refresh: true }
    }

    fn logged_in(now: Instant, seed: u64) -> Auth {
        let mut auth = Auth::new(seed);
        assert_eq!(auth.poll_attempt(), Some(LoginAttempt::LogIn));
        assert_eq!(auth.handle_tokens(now, HOUR, true), 1);
        auth
    }

    /// Advances to the pending timer and fires it.
    fn fire(auth: &mut Auth) -> Instant {
        let (at, _) = auth.poll_timeout().unwrap();
        auth.handle_timeout(at);
        at
    }
}
