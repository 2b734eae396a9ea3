//! When to connect again: a pure policy (relay protocol, section 1).

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cloud::backoff::{after_rejections, full_jitter, honouring};

/// How often a link may be made again at once after a working one dropped.
const AT_ONCE: u32 = 5;
/// One more of them is earned by every such time that a link works, so that a link that keeps dropping is made again
/// no more often than this on average.
const EARNED_PER: Duration = Duration::from_millis(500);

/// Why there is no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// It could not be made, or dropped.
    Lost,
    /// The cloud asked to come back later, and perhaps when.
    Busy {
        /// How long to wait, if said.
        retry_after: Option<Duration>,
    },
    /// The cloud did not accept the token (401).
    Unauthorized,
}

/// When to connect, and with which token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    /// Not before.
    pub at: Instant,
    /// Whether the token is no good, and another is to be waited for.
    pub new_login: bool,
}

/// The policy's state.
#[derive(Debug)]
pub struct Reconnect {
    rng: Rng,
    working_since: Option<Instant>,
    has_worked: bool,
    at_once: u32,
    failures: u32,
    rejections: u32,
}

impl Reconnect {
    /// Before the first connection, which may be made at once.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::with_seed(seed),
            working_since: None,
            has_worked: false,
            at_once: 0,
            failures: 0,
            rejections: 0,
        }
    }

    /// The link is made, and something was received on it: it works. Only the first call for a link counts.
    ///
    /// A link that was made but never worked counts as a failed attempt.
    pub fn handle_working(&mut self, now: Instant) {
        if self.working_since.is_some() {
            return;
        }
        self.working_since = Some(now);
        if !self.has_worked {
            self.at_once = AT_ONCE;
            self.has_worked = true;
        }
        self.failures = 0;
        self.rejections = 0;
    }

    /// There is no link: when to try again.
    pub fn handle_failure(&mut self, now: Instant, failure: Failure) -> Next {
        if let Some(since) = self.working_since.take() {
            let earned = now.saturating_duration_since(since).as_millis() / EARNED_PER.as_millis();
            self.at_once = AT_ONCE.min(self.at_once.saturating_add(u32::try_from(earned).unwrap_or(AT_ONCE)));
        }
        let wait = match failure {
            Failure::Lost if self.at_once > 0 => {
                self.at_once -= 1;
                Duration::ZERO
            }
            Failure::Lost => self.jitter(),
            Failure::Busy { retry_after } => honouring(retry_after, self.jitter()),
            Failure::Unauthorized => {
                self.rejections = self.rejections.saturating_add(1);
                // the first may be a token that has just expired
                if self.rejections == 1 { Duration::ZERO } else { after_rejections(self.rejections - 1) }
            }
        };
        Next { at: now + wait, new_login: failure == Failure::Unauthorized }
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
    fn a_working_link_that_drops_is_made_again_at_once_five_times_and_then_ever_more_slowly() {
        for seed in 0..200 {
            let start = Instant::now();
            let mut policy = Reconnect::new(seed);
            policy.handle_working(start);
            let mut now = start + 100 * SECOND;
            for _ in 0..5 {
                assert_eq!(policy.handle_failure(now, Failure::Lost), Next { at: now, new_login: false });
            }
            for bound in [5, 10, 20, 40, 60, 60, 60] {
                let next = policy.handle_failure(now, Failure::Lost).at;
                assert!(next - now <= bound * SECOND, "seed {seed}: {:?}, not up to {bound} s", next - now);
                now = next;
            }
        }
    }

    #[test]
    fn a_link_that_never_worked_is_not_made_again_at_once() {
        let now = Instant::now();
        let waits = (0..200).map(|seed| Reconnect::new(seed).handle_failure(now, Failure::Lost).at - now);
        let waited = waits.filter(|wait| !wait.is_zero()).count();
        assert!(waited > 190, "{waited}");
    }

    #[test]
    fn a_link_that_works_for_a_while_and_drops_is_always_made_again_at_once() {
        let mut now = Instant::now();
        let mut policy = Reconnect::new(1);
        for _ in 0..1000 {
            policy.handle_working(now);
            now += SECOND / 2;
            assert_eq!(policy.handle_failure(now, Failure::Lost).at, now);
        }
    }

    #[test]
    fn a_link_that_drops_as_soon_as_it_works_does_not_make_us_hammer() {
        let start = Instant::now();
        let mut now = start;
        let mut policy = Reconnect::new(1);
        let mut links = 0;
        while now < start + 3600 * SECOND {
            policy.handle_working(now);
            now = policy.handle_failure(now + SECOND / 100, Failure::Lost).at;
            links += 1;
        }
        assert!((1000..1800).contains(&links), "{links} links in an hour");
    }

    #[test]
    fn a_refused_token_has_one_new_login_at_once_and_then_a_wait_of_a_minute_to_an_hour() {
        let mut now = Instant::now();
        let mut policy = Reconnect::new(1);
        let mut minutes = Vec::new();
        for _ in 0..9 {
            let next = policy.handle_failure(now, Failure::Unauthorized);
            assert!(next.new_login);
            minutes.push((next.at - now).as_secs() / 60);
            now = next.at;
        }
        assert_eq!(minutes, [0, 1, 2, 4, 8, 16, 32, 60, 60]);
        policy.handle_working(now);
        assert_eq!(policy.handle_failure(now, Failure::Unauthorized).at, now);
    }

    #[test]
    fn retry_after_is_honoured_also_after_a_working_link() {
        let now = Instant::now();
        let mut policy = Reconnect::new(1);
        policy.handle_working(now);
        let next = policy.handle_failure(now, Failure::Busy { retry_after: Some(90 * SECOND) });
        assert_eq!(next.at, now + 90 * SECOND);
    }
}
