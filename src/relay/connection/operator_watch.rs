//! Whether the operator of a connection is still there: a pure state machine.
//!
//! A cloud may notify the connector when the operator leaves. The computer of an operator may also hang while its
//! socket stays open, which no cloud can see.

use std::time::{Duration, Instant};

/// Why nothing is sent to the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interruption {
    /// The websocket was lost, and messages with it. Only `resumeConnection` ends the interruption.
    LinkLost,
    /// The cloud reported that the operator has left.
    OperatorLeft,
    /// The operator has been silent for too long.
    OperatorSilent,
}

impl Interruption {
    /// Why the connection ends when it was held for long enough, in words.
    pub(super) fn describe(self) -> &'static str {
        match self {
            Self::LinkLost => "the link was down",
            Self::OperatorLeft => "the operator had left",
            Self::OperatorSilent => "the operator was silent",
        }
    }
}

/// Decides by what was heard of the operator, and by what the operator has not acknowledged.
#[derive(Debug)]
pub(super) struct OperatorWatch {
    silence: Duration,
    idle: Duration,
    heard_at: Instant,
    /// Since when something has waited for the operator's acknowledgement.
    unacknowledged_since: Option<Instant>,
}

impl OperatorWatch {
    /// An operator counts as gone after `silence` without a sign while something waits for an acknowledgement, and
    /// after `idle` otherwise.
    pub(super) fn new(silence: Duration, idle: Duration, now: Instant) -> Self {
        Self { silence, idle, heard_at: now, unacknowledged_since: None }
    }

    /// The operator has sent something.
    pub(super) fn handle_heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// Something was queued for the operator.
    pub(super) fn handle_queued(&mut self, now: Instant) {
        self.unacknowledged_since.get_or_insert(now);
    }

    /// The operator has acknowledged everything.
    pub(super) fn handle_all_acknowledged(&mut self) {
        self.unacknowledged_since = None;
    }

    /// When the operator was last heard of.
    pub(super) fn heard_at(&self) -> Instant {
        self.heard_at
    }

    /// When the operator counts as gone if nothing is heard until then.
    pub(super) fn gone_at(&self) -> Instant {
        let idle = self.heard_at + self.idle;
        self.unacknowledged_since.map_or(idle, |since| idle.min(since.max(self.heard_at) + self.silence))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn watch() -> (OperatorWatch, Instant) {
        let now = Instant::now();
        (OperatorWatch::new(120 * SECOND, 900 * SECOND, now), now)
    }

    #[test]
    fn an_operator_without_anything_to_acknowledge_may_be_idle_for_longer() {
        let (mut watch, start) = watch();
        assert_eq!(watch.gone_at(), start + 900 * SECOND);
        watch.handle_heard(start + 10 * SECOND);
        assert_eq!(watch.gone_at(), start + 910 * SECOND);
        assert_eq!(watch.heard_at(), start + 10 * SECOND);
    }

    #[test]
    fn the_time_to_acknowledge_begins_with_the_first_thing_that_waits() {
        let (mut watch, start) = watch();
        watch.handle_queued(start + 500 * SECOND);
        watch.handle_queued(start + 600 * SECOND);
        assert_eq!(watch.gone_at(), start + 620 * SECOND);
        watch.handle_heard(start + 610 * SECOND);
        assert_eq!(watch.gone_at(), start + 730 * SECOND, "not yet acknowledged");
        watch.handle_all_acknowledged();
        assert_eq!(watch.gone_at(), start + 1510 * SECOND);
    }

    #[test]
    fn something_that_begins_to_wait_late_does_not_prolong_the_idle_time() {
        let (mut watch, start) = watch();
        watch.handle_queued(start + 890 * SECOND);
        assert_eq!(watch.gone_at(), start + 900 * SECOND);
    }
}
