//! Whether the peer is still there: the channel test, and the limit to its silence.

use std::time::{Duration, Instant};

use super::ConnectionConfig;

/// Number of unanswered channel tests after which the peer counts as gone: MNCT of the protocol.
const MAX_TESTS: u8 = 5;

#[derive(Debug)]
pub(super) struct PeerPresence {
    test_after: Option<Duration>,
    silence_limit: Option<Duration>,
    /// When the channel is to be tested.
    test_at: Option<Instant>,
    /// Deadline of the answer to a test that is on the bus.
    answer_by: Option<Instant>,
    /// Tests sent since the peer was last heard.
    tests: u8,
    /// A test is to be sent.
    is_due: bool,
    silence_at: Option<Instant>,
}

impl PeerPresence {
    pub(super) fn new(config: &ConnectionConfig, now: Instant) -> Self {
        Self {
            test_after: config.test_after,
            silence_limit: config.silence_limit,
            test_at: None,
            answer_by: None,
            tests: 0,
            is_due: false,
            silence_at: config.silence_limit.map(|limit| now + limit),
        }
    }

    /// Takes note of a frame of the peer: any frame shows that the peer is there.
    pub(super) fn handle_heard(&mut self, now: Instant) {
        self.silence_at = self.silence_limit.map(|limit| now + limit);
        self.answer_by = None;
        self.tests = 0;
    }

    /// Takes note that the open channel is in use on our side.
    pub(super) fn handle_used(&mut self, now: Instant) {
        self.test_at = self.test_after.map(|after| now + after);
    }

    /// Takes note that a test is on the bus. A busy ECU may miss some.
    pub(super) fn handle_test_transmitted(&mut self, now: Instant) {
        self.answer_by = self.test_after.map(|after| now + after);
    }

    /// Returns whether the peer was silent for too long.
    pub(super) fn is_silent(&self, now: Instant) -> bool {
        self.silence_at.is_some_and(|at| at <= now)
    }

    /// Schedules the next test of the open channel, if one is due; returns true if the peer missed too many.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let is_missed = self.answer_by.take_if(|at| *at <= now).is_some();
        if is_missed && self.tests >= MAX_TESTS {
            return true;
        }
        if is_missed || self.answer_by.is_none() && self.test_at.is_some_and(|at| at <= now) {
            self.test_at = None;
            self.is_due = true;
        }
        false
    }

    /// Returns whether a test is to be sent now, and counts it.
    pub(super) fn take_due(&mut self) -> bool {
        let is_due = std::mem::take(&mut self.is_due);
        self.tests = self.tests.saturating_add(u8::from(is_due));
        is_due
    }

    /// Returns when the next test, or the answer to one, is due.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.answer_by.or(self.test_at)
    }

    /// Returns when the peer will have been silent for too long.
    pub(super) fn silence_at(&self) -> Option<Instant> {
        self.silence_at
    }
}
