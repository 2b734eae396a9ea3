//! When to connect again after a failure: a pure policy (relay protocol, section 1).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cloud::backoff::{after_rejections, full_jitter, honouring};

/// How many times the agent may reconnect immediately after a working websocket dropped. The vendor's
/// documentation asks for a few immediate attempts, and then at most one every 5 s.
const IMMEDIATE: u32 = 5;
/// A websocket earns one more immediate reconnect for each such time that it works. A websocket that keeps
/// dropping is therefore remade no more often than this on average: twice a second, which is few for a cloud,
/// and soon enough for an operator on a mobile network.
const EARNED_PER: Duration = Duration::from_millis(500);

/// Why there is no websocket, as far as the policy distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// The websocket could not be made, or dropped.
    Lost,
    /// The cloud asked the agent to try later.
    Busy {
        /// How long the cloud asks to wait, if it says so.
        retry_after: Option<Duration>,
    },
    /// The cloud did not accept the token (401).
    Unauthorized,
}

/// When to connect next, and with which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NextConnect {
    /// The earliest time.
    pub at: Instant,
    /// Whether the cloud refused the token, so that a new login must come first.
    pub needs_login: bool,
}

/// The state of the reconnect policy.
#[derive(Debug)]
pub(crate) struct Reconnect {
    rng: Rng,
    working_since: Option<Instant>,
    has_worked: bool,
    immediate: u32,
    failures: u32,
    rejections: u32,
}

impl Reconnect {
    /// The state before the first connection, which may be made immediately.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            working_since: None,
            has_worked: false,
            immediate: 0,
            failures: 0,
            rejections: 0,
        }
    }

    /// A message was received, so the websocket works. Only the first call for each websocket counts.
    ///
    /// A websocket that was made but never worked counts as a failed attempt.
    pub(crate) fn handle_working(&mut self, now: Instant) {
        if self.working_since.is_some() {
            return;
        }
        self.working_since = Some(now);
        if !self.has_worked {
            self.immediate = IMMEDIATE;
            self.has_worked = true;
        }
        self.failures = 0;
        self.rejections = 0;
    }

    /// There is no websocket; returns when to try again.
    pub(crate) fn handle_failure(&mut self, now: Instant, failure: ConnectFailure) -> NextConnect {
        if let Some(since) = self.working_since.take() {
            let earned = now.saturating_duration_since(since).as_millis() / EARNED_PER.as_millis();
            self.immediate =
                IMMEDIATE.min(self.immediate.saturating_add(u32::try_from(earned).unwrap_or(IMMEDIATE)));
        }
        let wait = match failure {
            ConnectFailure::Lost if self.immediate > 0 => {
                self.immediate -= 1;
                Duration::ZERO
            }
            ConnectFailure::Lost => self.jitter(),
            ConnectFailure::Busy { retry_after } => honouring(retry_after, self.jitter()),
            ConnectFailure::Unauthorized => {
                self.rejections = self.rejections.saturating_add(1);
                // the first rejection may mean that the token has just expired
                if self.rejections == 1 { Duration::ZERO } else { after_rejections(self.rejections - 1) }
            }
        };
        NextConnect { at: now + wait, needs_login: failure == ConnectFailure::Unauthorized }
    }

    fn jitter(&mut self) -> Duration {
        let wait = full_jitter(&mut self.rng, self.failures);
        self.failures = self.failures.saturating_add(1);
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_dropped_link_reconnects_immediately_five_times_and_then_more_slowly() {
        for seed in 0..200 {
            let start = Instant::now();
            let mut policy = Reconnect::new(seed);
            policy.handle_working(start);
            let mut now = start + 100 * SECOND;
            for _ in 0..5 {
                assert_eq!(
                    policy.handle_failure(now, ConnectFailure::Lost),
                    NextConnect { at: now, needs_login: false }
                );
            }
            for bound in [5, 10, 20, 40, 60, 60, 60] {
                let next = policy.handle_failure(now, ConnectFailure::Lost).at;
                assert!(next - now <= bound * SECOND, "seed {seed}: {:?}, not up to {bound} s", next - now);
                now = next;
            }
        }
    }

    #[test]
    fn a_link_that_never_worked_does_not_reconnect_immediately() {
        let now = Instant::now();
        let waits =
            (0..200).map(|seed| Reconnect::new(seed).handle_failure(now, ConnectFailure::Lost).at - now);
        let waited = waits.filter(|wait| !wait.is_zero()).count();
        assert!(waited > 190, "{waited}");
    }

    #[test]
    fn a_link_that_worked_for_a_while_always_reconnects_immediately() {
        let mut now = Instant::now();
        let mut policy = Reconnect::new(1);
        for _ in 0..1000 {
            policy.handle_working(now);
            now += SECOND / 2;
            assert_eq!(policy.handle_failure(now, ConnectFailure::Lost).at, now);
        }
    }

    #[test]
    fn a_link_that_drops_as_soon_as_it_works_reconnects_slowly() {
        let start = Instant::now();
        let mut now = start;
        let mut policy = Reconnect::new(1);
        let mut links = 0;
        while now < start + 3600 * SECOND {
            policy.handle_working(now);
            now = policy.handle_failure(now + SECOND / 100, ConnectFailure::Lost).at;
            links += 1;
        }
        assert!((1000..1800).contains(&links), "{links} links in an hour");
    }

    #[test]
    fn a_refused_token_needs_a_login_immediately_and_then_after_growing_waits() {
        let mut now = Instant::now();
        let mut policy = Reconnect::new(1);
        let mut minutes = Vec::new();
        for _ in 0..9 {
            let next = policy.handle_failure(now, ConnectFailure::Unauthorized);
            assert!(next.needs_login);
            minutes.push((next.at - now).as_secs() / 60);
            now = next.at;
        }
        assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        policy.handle_working(now);
        assert_eq!(policy.handle_failure(now, ConnectFailure::Unauthorized).at, now);
    }

    #[test]
    fn retry_after_is_honoured_also_after_a_working_link() {
        let now = Instant::now();
        let mut policy = Reconnect::new(1);
        policy.handle_working(now);
        let next = policy.handle_failure(now, ConnectFailure::Busy { retry_after: Some(90 * SECOND) });
        assert_eq!(next.at, now + 90 * SECOND);
    }
}
