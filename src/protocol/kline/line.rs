//! The last use of a line, which the line's endpoints share.

use std::time::{Duration, Instant};

use super::timing::Timing;

/// Records when a line was last used.
#[derive(Debug, Clone, Copy)]
pub struct LineClock {
    /// The last use of the line is unknown, or was not ours.
    is_foreign: bool,
    quiet_since: Instant,
}

impl LineClock {
    /// Creates the clock of a line that was opened at `now`. Earlier use of the line is unknown.
    pub fn new(now: Instant) -> Self {
        Self { is_foreign: true, quiet_since: now }
    }

    /// Records that a byte or a slow signal was on the line at `now`, in the turn of one of our endpoints.
    pub fn handle_activity(&mut self, now: Instant) {
        self.is_foreign = false;
        self.quiet_since = now;
    }

    /// Records that a byte was on the line at `now` which belongs to no turn of our endpoints.
    pub fn handle_foreign_activity(&mut self, now: Instant) {
        self.is_foreign = true;
        self.quiet_since = now;
    }

    /// Returns since when the line is quiet.
    pub(super) fn quiet_since(&self) -> Instant {
        self.quiet_since
    }

    /// Returns how long the line must be quiet before an initialisation.
    pub(super) fn pause_before_initialisation(&self, is_slow: bool, is_repeated: bool) -> Duration {
        let timing = Timing::NORMAL;
        if is_slow || is_repeated || self.is_foreign { timing.w5 } else { timing.p3_min }
    }
}
