//! What the endpoints of a line share: when it was last used.

use std::time::{Duration, Instant};

use super::timing::Timing;

/// When something was last on a line.
#[derive(Debug, Clone, Copy)]
pub struct LineClock {
    /// Nothing was seen on the line since it was opened.
    is_fresh: bool,
    quiet_since: Instant,
}

impl LineClock {
    /// A line that was just opened; what was on it before, nobody knows.
    pub fn new(now: Instant) -> Self {
        Self { is_fresh: true, quiet_since: now }
    }

    /// Something was on the line.
    pub fn handle_activity(&mut self, now: Instant) {
        self.is_fresh = false;
        self.quiet_since = now;
    }

    /// Since when nothing was on the line.
    pub(super) fn quiet_since(&self) -> Instant {
        self.quiet_since
    }

    /// How long the line has to be quiet before an initialisation.
    pub(super) fn pause_before_initialisation(&self, is_slow: bool, is_repeated: bool) -> Duration {
        let timing = Timing::NORMAL;
        if is_slow || is_repeated || self.is_fresh { timing.w5 } else { timing.p3_min }
    }
}
