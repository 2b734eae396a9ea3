//! When to log in, to refresh, and to leave the cloud in peace: a pure state machine.
//!
//! After every `handle_*`, ask [`Auth::poll_attempt`]; carry out what it gives and report the outcome by
//! [`Auth::handle_tokens`] or [`Auth::handle_failure`]; call [`Auth::handle_timeout`] when [`Auth::poll_timeout`] says.
//! There is never more than one attempt under way.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cloud::backoff::{LAST_REJECTION, after_rejections, full_jitter, honouring};
use crate::cloud::status::LoginState;

/// What is to be sent to the cloud.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// UUID and pincode.
    LogIn,
    /// The refresh token (RFC 6749, 6).
    Refresh,
}

/// Why an attempt failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// The cloud does not accept what it was given.
    Rejected,
    /// Too many attempts (429).
    TooMany {
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
    /// The cloud cannot be reached or cannot answer now.
    Unavailable {
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
}

/// Tokens that were kept across a restart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeptTokens {
    /// How long the access token was good for in all.
    pub lifetime: Duration,
    /// How much of that seems to be left; `None` if it is not worth trying.
    pub remaining: Option<Duration>,
    /// Whether there is a refresh token.
    pub can_refresh: bool,
}

/// What [`Auth::poll_timeout`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// The token is to be refreshed ahead of its expiry.
    Refresh,
    /// A failed attempt is to be repeated.
    Retry,
}

/// The state of the login.
#[derive(Debug)]
pub struct Auth {
    rng: Rng,
    phase: Phase,
    /// Counts the tokens obtained; 0 before the first.
    generation: u64,
    has_token: bool,
    can_refresh: bool,
    /// The token is from before the restart, and nothing has accepted it yet.
    is_kept: bool,
    /// The token was obtained because the one before was refused, and nothing has accepted it yet.
    is_suspect: bool,
    /// Logins, or tokens from them, rejected in a row.
    rejections: u32,
    /// Attempts without an answer in a row.
    failures: u32,
    /// No login before, as those before the restart were rejected.
    barred_until: Option<Instant>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Due(Attempt),
    UnderWay(Attempt),
    Waiting { until: Instant, then: Attempt },
    Holding { refresh_at: Instant },
}

/// Refreshed no more often than this, however short-lived the tokens are.
const MIN_REFRESH: Duration = Duration::from_secs(2);
/// Longer lifetimes are taken as this.
const MAX_LIFETIME: Duration = Duration::from_secs(30 * 24 * 3600);

impl Auth {
    /// Not logged in, and about to.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            phase: Phase::Due(Attempt::LogIn),
            generation: 0,
            has_token: false,
            can_refresh: false,
            is_kept: false,
            is_suspect: false,
            rejections: 0,
            failures: 0,
            barred_until: None,
        }
    }

    /// With tokens from before a restart: the access token, as number 1, if it seems to be good; else the refresh
    /// token; else a login.
    pub fn resume(seed: u64, now: Instant, kept: KeptTokens) -> Self {
        let mut auth = Self { can_refresh: kept.can_refresh, ..Self::new(seed) };
        if let Some(remaining) = kept.remaining {
            let used = kept.lifetime.saturating_sub(remaining);
            let wait = auth.refresh_after(kept.lifetime).saturating_sub(used).max(MIN_REFRESH);
            auth.generation = 1;
            auth.has_token = true;
            auth.is_kept = true;
            auth.phase = Phase::Holding { refresh_at: now + wait };
        } else if kept.can_refresh {
            auth.phase = Phase::Due(Attempt::Refresh);
        }
        auth
    }

    /// So many logins were rejected in a row before the restart: no other one before so much time has passed.
    pub fn bar(&mut self, now: Instant, rejections: u32, left: Duration) {
        self.rejections = rejections;
        self.barred_until = Some(now + left.min(LAST_REJECTION));
        if self.phase == Phase::Due(Attempt::LogIn) {
            self.phase = self.login_due(now);
        }
    }

    /// How many logins, or tokens from them, were rejected in a row.
    pub fn rejections(&self) -> u32 {
        self.rejections
    }

    /// The token that counts, by number; `None` while there is none worth trying.
    pub fn generation(&self) -> Option<u64> {
        self.has_token.then_some(self.generation)
    }

    /// How it stands.
    pub fn state(&self) -> LoginState {
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

    /// The attempt was answered with tokens that live this long; gives the new token's number.
    pub fn handle_tokens(&mut self, now: Instant, lifetime: Duration, can_refresh: bool) -> u64 {
        self.generation += 1;
        self.has_token = true;
        self.can_refresh = can_refresh;
        self.is_kept = false;
        self.failures = 0;
        if !self.is_suspect {
            self.rejections = 0;
        }
        let wait = self.refresh_after(lifetime).max(MIN_REFRESH);
        self.phase = Phase::Holding { refresh_at: now + wait };
        self.generation
    }

    fn refresh_after(&mut self, lifetime: Duration) -> Duration {
        // not all connectors at the same moment
        let share = 0.75 + 0.15 * self.rng.f64();
        lifetime.min(MAX_LIFETIME).mul_f64(share)
    }

    /// The attempt failed.
    pub fn handle_failure(&mut self, now: Instant, failure: Failure) {
        let Phase::UnderWay(attempt) = self.phase else { return };
        let (wait, then) = match (failure, attempt) {
            (Failure::Rejected, Attempt::Refresh) => {
                self.can_refresh = false;
                self.phase = self.login_due(now);
                return;
            }
            (Failure::Rejected, Attempt::LogIn) => (self.count_rejection(), Attempt::LogIn),
            (Failure::TooMany { retry_after }, _) => {
                self.failures = self.failures.saturating_add(1);
                let unsaid = after_rejections(self.failures);
                let jitter = full_jitter(&mut self.rng, self.failures - 1);
                (retry_after.map_or(unsaid, |_| honouring(retry_after, jitter)), attempt)
            }
            (Failure::Unavailable { retry_after }, _) => {
                let wait = full_jitter(&mut self.rng, self.failures);
                self.failures = self.failures.saturating_add(1);
                (honouring(retry_after, wait), attempt)
            }
        };
        self.phase = Phase::Waiting { until: now + wait, then };
    }

    /// Something answered 401 to the token of this number. Only the first to say so causes a login; and if the token
    /// from that login is refused as well, the next one waits as after a wrong pincode. A token from before a restart
    /// is refreshed first: the device's clock may have been wrong about its age.
    pub fn handle_unauthorized(&mut self, now: Instant, generation: u64) {
        if !self.has_token || generation != self.generation {
            return;
        }
        self.has_token = false;
        match self.phase {
            Phase::Holding { .. } if self.is_kept && self.can_refresh => {
                self.phase = Phase::Due(Attempt::Refresh)
            }
            Phase::Holding { .. } if self.is_suspect => {
                let until = now + self.count_rejection();
                self.phase = Phase::Waiting { until, then: Attempt::LogIn };
            }
            Phase::Holding { .. } => {
                self.is_suspect = true;
                self.phase = self.login_due(now);
            }
            // What is under way or waited for will bring another token.
            Phase::Due(_) | Phase::UnderWay(_) | Phase::Waiting { .. } => {}
        }
    }

    /// Something accepted the token of this number. That tells nothing of logins which were rejected since it was given.
    pub fn handle_accepted(&mut self, generation: u64) {
        if self.has_token && generation == self.generation {
            self.is_kept = false;
            if std::mem::take(&mut self.is_suspect) {
                self.rejections = 0;
            }
        }
    }

    /// The time of [`Auth::poll_timeout`] has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Waiting { until, then } if until <= now => self.phase = Phase::Due(then),
            Phase::Holding { refresh_at } if refresh_at <= now => {
                self.phase =
                    if self.can_refresh { Phase::Due(Attempt::Refresh) } else { self.login_due(now) };
            }
            _ => {}
        }
    }

    /// What to send now; given once.
    pub fn poll_attempt(&mut self) -> Option<Attempt> {
        let Phase::Due(attempt) = self.phase else { return None };
        self.phase = Phase::UnderWay(attempt);
        Some(attempt)
    }

    /// When to call [`Auth::handle_timeout`], and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        match self.phase {
            Phase::Waiting { until, .. } => Some((until, Timer::Retry)),
            Phase::Holding { refresh_at } => Some((refresh_at, Timer::Refresh)),
            Phase::Due(_) | Phase::UnderWay(_) => None,
        }
    }

    fn login_due(&self, now: Instant) -> Phase {
        match self.barred_until {
            Some(until) if until > now => Phase::Waiting { until, then: Attempt::LogIn },
            _ => Phase::Due(Attempt::LogIn),
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
            assert_eq!(timer, Timer::Refresh);
            assert!(at >= start + HOUR * 3 / 4 && at <= start + HOUR * 9 / 10, "{:?}", at - start);
            auth.handle_timeout(at - Duration::from_millis(1));
            assert_eq!(auth.poll_attempt(), None, "not before");
            auth.handle_timeout(at);
            assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
            assert_eq!(auth.generation(), Some(1), "the old token is good meanwhile");
        }
    }

    #[test]
    fn a_token_that_lives_a_few_seconds_is_refreshed_ahead_of_its_expiry_too() {
        let (start, lifetime) = (Instant::now(), Duration::from_secs(4));
        let mut auth = Auth::new(1);
        auth.poll_attempt().unwrap();
        auth.handle_tokens(start, lifetime, true);
        let (at, timer) = auth.poll_timeout().unwrap();
        assert!(timer == Timer::Refresh && at < start + lifetime, "{:?}", at - start);
    }

    #[test]
    fn a_refused_refresh_falls_back_to_the_pincode_at_once() {
        let start = Instant::now();
        let mut auth = logged_in(start, 1);
        let now = fire(&mut auth);
        assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
        auth.handle_failure(now, Failure::Rejected);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        assert_eq!(auth.state(), LoginState::LoggedIn, "nobody needs to know");
    }

    #[test]
    fn without_a_refresh_token_the_pincode_is_used_ahead_of_expiry() {
        let mut auth = Auth::new(1);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        auth.handle_tokens(Instant::now(), HOUR, false);
        fire(&mut auth);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
    }

    #[test]
    fn a_wrong_pincode_is_tried_at_most_once_a_minute_and_then_once_an_hour() {
        let start = Instant::now();
        let mut auth = Auth::new(1);
        let mut now = start;
        let mut waits = Vec::new();
        for _ in 0..9 {
            assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
            assert_eq!(auth.poll_attempt(), None, "one at a time");
            auth.handle_failure(now, Failure::Rejected);
            assert_eq!(auth.state(), LoginState::Rejected);
            assert_eq!(auth.poll_attempt(), None, "not at once");
            let next = fire(&mut auth);
            waits.push((next - now).as_secs() / 60);
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        auth.handle_tokens(now, HOUR, true);
        assert_eq!(auth.state(), LoginState::LoggedIn);
    }

    #[test]
    fn a_rejected_pincode_is_backed_off_from_though_the_old_token_is_accepted_still() {
        let mut now = Instant::now();
        let mut auth = logged_in(now, 1);
        auth.handle_accepted(1);
        now = fire(&mut auth);
        assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
        auth.handle_failure(now, Failure::Rejected);
        let mut waits = Vec::new();
        for _ in 0..5 {
            assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
            auth.handle_failure(now, Failure::Rejected);
            auth.handle_accepted(1);
            assert_eq!(auth.state(), LoginState::Rejected);
            let next = fire(&mut auth);
            waits.push((next - now).as_secs() / 60);
            now = next;
        }
        assert_eq!(waits, [1, 2, 4, 8, 16]);
    }

    #[test]
    fn rejections_from_before_a_restart_bar_the_login_until_their_wait_is_over_and_are_counted_on() {
        let start = Instant::now();
        let mut auth = Auth::new(1);
        auth.bar(start, 3, 100 * SECOND);
        assert_eq!(auth.state(), LoginState::Rejected);
        assert_eq!(auth.poll_attempt(), None);
        let now = fire(&mut auth);
        assert_eq!(now - start, 100 * SECOND);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        auth.handle_failure(now, Failure::Rejected);
        assert_eq!(fire(&mut auth) - now, 8 * 60 * SECOND, "the fourth");
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        auth.handle_tokens(now, HOUR, true);
        assert_eq!((auth.state(), auth.rejections()), (LoginState::LoggedIn, 0));
    }

    #[test]
    fn kept_tokens_are_tried_while_the_login_is_barred() {
        let start = Instant::now();
        let kept = |remaining| KeptTokens { lifetime: HOUR, remaining, can_refresh: true };
        let mut auth = Auth::resume(1, start, kept(None));
        auth.bar(start, 1, 60 * SECOND);
        assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
        auth.handle_failure(start, Failure::Rejected);
        assert_eq!(auth.poll_attempt(), None);
        assert_eq!(fire(&mut auth) - start, 60 * SECOND);
        let mut auth = Auth::resume(1, start, kept(Some(HOUR)));
        auth.bar(start, 1, 60 * SECOND);
        assert_eq!(auth.generation(), Some(1));
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
        auth.handle_tokens(start, HOUR, true);
        assert_eq!(auth.state(), LoginState::LoggedIn);
        auth.handle_unauthorized(start, 2);
        assert_eq!(auth.poll_attempt(), None, "there is another login only when its time has come");
    }

    #[test]
    fn many_that_are_refused_the_same_token_cause_one_login() {
        let start = Instant::now();
        let mut auth = logged_in(start, 1);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.generation(), None);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), None);
        assert_eq!(auth.handle_tokens(start, HOUR, true), 2);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), None, "a late complaint about the old token is no news");
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
                assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
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
            Some(Attempt::LogIn),
            "once it worked, a 401 has a login at once again"
        );
    }

    #[test]
    fn what_is_unavailable_is_tried_again_the_same_way() {
        let start = Instant::now();
        let mut auth = logged_in(start, 1);
        let mut now = fire(&mut auth);
        for _ in 0..20 {
            assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
            auth.handle_failure(now, Failure::Unavailable { retry_after: None });
            let next = fire(&mut auth);
            assert!(next - now <= Duration::from_secs(60));
            now = next;
        }
        assert_eq!(auth.state(), LoginState::LoggedIn, "the token may be good still");
        auth.handle_unauthorized(now, 1);
        assert_eq!(auth.state(), LoginState::Unreachable);
    }

    #[test]
    fn retry_after_is_honoured() {
        let start = Instant::now();
        let wait = Duration::from_secs(1234);
        for failure in
            [Failure::TooMany { retry_after: Some(wait) }, Failure::Unavailable { retry_after: Some(wait) }]
        {
            let mut auth = Auth::new(1);
            auth.poll_attempt().unwrap();
            auth.handle_failure(start, failure);
            assert_eq!(auth.poll_timeout(), Some((start + wait, Timer::Retry)));
        }
        for seed in 0..100 {
            let mut auth = Auth::new(seed);
            auth.poll_attempt().unwrap();
            let soon = Duration::from_secs(4);
            auth.handle_failure(start, Failure::TooMany { retry_after: Some(soon) });
            let wait = auth.poll_timeout().unwrap().0 - start;
            assert!(wait >= soon && wait <= Duration::from_secs(5), "a short wait that was said: {wait:?}");
        }
        let mut auth = Auth::new(1);
        auth.poll_attempt().unwrap();
        auth.handle_failure(start, Failure::TooMany { retry_after: None });
        assert_eq!(auth.poll_timeout().unwrap().0, start + Duration::from_secs(60), "unsaid, it is a minute");
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
    fn a_kept_token_is_used_without_a_login_and_refreshed_when_it_would_have_been() {
        let start = Instant::now();
        for seed in 0..100 {
            let mut auth = Auth::resume(seed, start, kept(Some(HOUR / 2)));
            assert_eq!((auth.generation(), auth.state()), (Some(1), LoginState::LoggedIn));
            assert_eq!(auth.poll_attempt(), None);
            let (at, timer) = auth.poll_timeout().unwrap();
            let wait = at - start;
            assert!(timer == Timer::Refresh && wait >= HOUR / 4 && wait <= HOUR * 2 / 5, "{wait:?}");
            auth.handle_timeout(at);
            assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
            assert_eq!(auth.handle_tokens(at, HOUR, true), 2);
        }
    }

    #[test]
    fn a_kept_token_close_to_its_end_is_refreshed_at_once_but_used_meanwhile() {
        let start = Instant::now();
        let auth = Auth::resume(1, start, kept(Some(Duration::from_secs(10))));
        assert_eq!(auth.poll_timeout(), Some((start + MIN_REFRESH, Timer::Refresh)));
        assert_eq!(auth.generation(), Some(1));
    }

    #[test]
    fn without_a_kept_access_token_the_kept_refresh_token_is_used_and_then_the_pincode() {
        let start = Instant::now();
        let mut auth = Auth::resume(1, start, kept(None));
        assert_eq!((auth.generation(), auth.state()), (None, LoginState::LoggingIn));
        assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
        auth.handle_failure(start, Failure::Rejected);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        let mut auth = Auth::resume(1, start, KeptTokens { can_refresh: false, ..kept(None) });
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
    }

    #[test]
    fn a_kept_token_that_is_refused_is_refreshed_before_the_pincode_is_used() {
        let start = Instant::now();
        let mut auth = Auth::resume(1, start, kept(Some(HOUR)));
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(Attempt::Refresh));
        assert_eq!(auth.handle_tokens(start, HOUR, true), 2);
        auth.handle_unauthorized(start, 2);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn), "a new token that is refused asks for a login");
        assert_eq!(auth.handle_tokens(start, HOUR, true), 3);
        auth.handle_unauthorized(start, 3);
        assert_eq!(auth.poll_attempt(), None, "and then there is no more hurry");
        assert_eq!(auth.state(), LoginState::Rejected);
    }

    #[test]
    fn a_kept_token_that_was_accepted_is_like_any_other() {
        let start = Instant::now();
        let mut auth = Auth::resume(1, start, kept(Some(HOUR)));
        auth.handle_accepted(1);
        auth.handle_unauthorized(start, 1);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
    }

    #[test]
    fn kept_tokens_beyond_reason_do_no_harm() {
        let start = Instant::now();
        for (lifetime, remaining) in
            [(Duration::MAX, Duration::MAX), (Duration::ZERO, Duration::MAX), (Duration::MAX, HOUR)]
        {
            let auth = Auth::resume(
                1,
                start,
                KeptTokens { lifetime, remaining: Some(remaining), can_refresh: true },
            );
            let (at, _) = auth.poll_timeout().unwrap();
            assert!(at >= start + MIN_REFRESH && at <= start + MAX_LIFETIME);
        }
    }

    fn kept(remaining: Option<Duration>) -> KeptTokens {
        KeptTokens { lifetime: HOUR, remaining, can_refresh: true }
    }

    fn logged_in(now: Instant, seed: u64) -> Auth {
        let mut auth = Auth::new(seed);
        assert_eq!(auth.poll_attempt(), Some(Attempt::LogIn));
        assert_eq!(auth.handle_tokens(now, HOUR, true), 1);
        auth
    }

    /// Lets the time of the pending timer come.
    fn fire(auth: &mut Auth) -> Instant {
        let (at, _) = auth.poll_timeout().unwrap();
        auth.handle_timeout(at);
        at
    }
}
