//! What the endpoints of a line share: when it was last used.

use std::time::Instant;

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

    /// When the next request may begin.
    pub(super) fn request_at(&self) -> Instant {
        self.quiet_since + Timing::NORMAL.p3_min
    }

    /// When the next initialisation may begin.
    pub(super) fn initialise_at(&self, is_slow: bool, is_repeated: bool) -> Instant {
        if is_slow || is_repeated || self.is_fresh {
            self.quiet_since + Timing::NORMAL.w5
        } else {
            self.request_at()
        }
    }
}
