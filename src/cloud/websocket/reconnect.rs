//! When to connect again: a pure policy (relay protocol, section 1.3).
//!
//! A fleet must not reconnect in step, so that nearly every wait is random. An operator must not wait, so that
//! the waits are short while a connection is open or held.

use std::time::{Duration, Instant};

use fastrand::Rng;

use crate::cloud::backoff::{after_rejections, full_jitter, honouring, up_to};

/// With a connection open, a link that lasted this long is made again without a wait.
const LONG_ENOUGH_TO_RETURN: Duration = Duration::from_secs(5);
/// With a connection open, the greatest wait after a shorter link.
const RETURN_BOUND: Duration = Duration::from_secs(1);
/// With a connection open, the bounds of the waits while attempts fail, in seconds. The last one is repeated.
const RETRY_BOUNDS: [u64; 4] = [1, 2, 4, 5];
/// Without a connection, a link that lasted less than this counts as a failed attempt.
const LONG_ENOUGH_TO_COUNT: Duration = Duration::from_secs(30);
/// Without a connection, the greatest wait after the cloud closed the link because it stops or restarts: all
/// its connectors lose their links then.
const RESTART_BOUND: Duration = Duration::from_secs(30);

/// Why there is no websocket, as far as the policy distinguishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ConnectFailure {
    /// The websocket could not be made, or dropped.
    Lost,
    /// The cloud closed the websocket because it stops, restarts or is overloaded (1001, 1012, 1013).
    Restarting,
    /// The cloud asked the agent to try later.
    Busy {
        /// How long the cloud asks to wait, if it says so.
        retry_after: Option<Duration>,
    },
    /// The cloud did not accept the token (401).
    Unauthorized {
        /// How long the cloud asks to wait, if it says so.
        retry_after: Option<Duration>,
    },
}

impl ConnectFailure {
    /// Whether the cloud did not accept the token.
    pub(super) fn is_unauthorized(self) -> bool {
        matches!(self, Self::Unauthorized { .. })
    }
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
    /// When the present link was made.
    linked_at: Option<Instant>,
    /// How many attempts have failed since the last link, or since the start.
    failed_attempts: u32,
    /// How many attempts have failed in a row, links that did not last included.
    failures: u32,
    /// How many tokens in a row were refused.
    rejections: u32,
}

impl Reconnect {
    /// The state before the first connection, which may be made immediately.
    pub(crate) fn new(seed: u64) -> Self {
        Self { rng: Rng::with_seed(seed), linked_at: None, failed_attempts: 0, failures: 0, rejections: 0 }
    }

    /// There is a websocket.
    pub(crate) fn handle_connected(&mut self, now: Instant) {
        self.linked_at = Some(now);
        self.failed_attempts = 0;
        self.rejections = 0;
    }

    /// There is no websocket; returns when to try again. `is_busy` says that an operator's connection is open
    /// or held.
    pub(crate) fn handle_failure(
        &mut self,
        now: Instant,
        failure: ConnectFailure,
        is_busy: bool,
    ) -> NextConnect {
        let lasted = self.linked_at.take().map(|since| now.saturating_duration_since(since));
        let wait = match failure {
            ConnectFailure::Unauthorized { .. } => self.wait_after_refused_token(),
            _ if is_busy => self.busy_wait(lasted),
            failure => self.idle_wait(failure, lasted),
        };
        self.count_failure(lasted);
        let wait = match failure {
            ConnectFailure::Busy { retry_after } | ConnectFailure::Unauthorized { retry_after } => {
                honouring(&mut self.rng, retry_after, wait)
            }
            ConnectFailure::Lost | ConnectFailure::Restarting => wait,
        };
        NextConnect { at: now + wait, needs_login: failure.is_unauthorized() }
    }

    /// The wait with a connection open. `lasted` is how long the link had lasted, `None` after an attempt.
    fn busy_wait(&mut self, lasted: Option<Duration>) -> Duration {
        match lasted {
            Some(lasted) if lasted >= LONG_ENOUGH_TO_RETURN => Duration::ZERO,
            Some(_) => up_to(&mut self.rng, RETURN_BOUND),
            None => {
                let index = usize::try_from(self.failed_attempts).unwrap_or(usize::MAX);
                let bound = RETRY_BOUNDS.get(index).or(RETRY_BOUNDS.last()).copied().unwrap_or_default();
                up_to(&mut self.rng, Duration::from_secs(bound))
            }
        }
    }

    /// The wait without a connection.
    fn idle_wait(&mut self, failure: ConnectFailure, lasted: Option<Duration>) -> Duration {
        let earlier_failures = if has_lasted(lasted) { 0 } else { self.failures };
        let wait = full_jitter(&mut self.rng, earlier_failures);
        match failure {
            ConnectFailure::Restarting => wait.max(up_to(&mut self.rng, RESTART_BOUND)),
            _ => wait,
        }
    }

    fn count_failure(&mut self, lasted: Option<Duration>) {
        self.failures = if has_lasted(lasted) { 0 } else { self.failures.saturating_add(1) };
        if lasted.is_none() {
            self.failed_attempts = self.failed_attempts.saturating_add(1);
        }
    }

    fn wait_after_refused_token(&mut self) -> Duration {
        self.rejections = self.rejections.saturating_add(1);
        // the first rejection may mean that the token has just expired
        if self.rejections == 1 { Duration::ZERO } else { after_rejections(self.rejections - 1) }
    }
}

/// Whether the link lasted long enough not to count as a failed attempt.
fn has_lasted(lasted: Option<Duration>) -> bool {
    lasted.is_some_and(|lasted| lasted >= LONG_ENOUGH_TO_COUNT)
}

#[cfg(test)]
#[path = "reconnect_tests.rs"]
mod tests;
