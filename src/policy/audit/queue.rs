//! The entries that wait to be written.

use std::collections::VecDeque;
use std::time::Instant;

use super::entry::{AuditConnection, AuditEntry, AuditFacts, AuditWhat, AuditedRefusal};
use super::programming::ProgrammingWatch;
use super::refusals::Refusals;
use super::subject::{AuditSubject, RequestParts};
use crate::policy::intent::IntentTarget;

/// The most entries that wait. The agent takes all of them in each turn of its loop; a turn causes few.
const MAX_QUEUED: usize = 64;

/// The audit of a policy.
#[derive(Debug, Default)]
pub(in crate::policy) struct Audit {
    queue: VecDeque<AuditEntry>,
    lost: u64,
    pub(in crate::policy) connection: Option<AuditConnection>,
    /// The connection that is opened next.
    pub(in crate::policy) next: Option<AuditConnection>,
    /// The connection has ended, and its last entries have not been made.
    pub(in crate::policy) is_closing: bool,
    /// The request in the refused frame, if the frame begins one.
    pub(in crate::policy) in_frame: Option<(IntentTarget, RequestParts)>,
    refusals: Refusals,
    programming: ProgrammingWatch,
    /// Ends that have no entry yet.
    broken: Vec<AuditWhat>,
}

impl Audit {
    /// Adds an entry.
    pub(in crate::policy) fn push(&mut self, at: Instant, facts: AuditFacts, what: AuditWhat) {
        if self.queue.len() >= MAX_QUEUED {
            self.lost += 1;
            return;
        }
        let connection = self.connection.clone();
        self.queue.push_back(AuditEntry { at, connection, facts: Some(facts), what });
    }

    /// Handles a refusal. `describe` adds the data to the subject.
    pub(in crate::policy) fn handle_refusal(
        &mut self,
        now: Instant,
        facts: AuditFacts,
        refused: AuditedRefusal,
        describe: impl FnOnce(AuditSubject) -> AuditSubject,
    ) {
        if let Some(what) = self.refusals.handle_refusal(now, refused, describe) {
            self.push(now, facts, what);
        }
    }

    /// Handles a request that goes to an ECU. Returns whether the ECU is being programmed.
    pub(in crate::policy) fn handle_request(
        &mut self,
        now: Instant,
        bus: usize,
        target: IntentTarget,
    ) -> bool {
        self.programming.handle_request(now, bus, target)
    }

    /// Handles the first request of programming to an ECU.
    pub(in crate::policy) fn handle_begin(&mut self, now: Instant, facts: AuditFacts, subject: AuditSubject) {
        if let Some(ended) = self.programming.begin(now, &subject) {
            self.push(now, facts, ended);
        }
        self.push(now, facts, AuditWhat::ProgrammingBegun(subject));
    }

    /// Ends the programming of an ECU. Returns the entry, which the caller adds.
    pub(in crate::policy) fn take_end(
        &mut self,
        bus: usize,
        target: IntentTarget,
        why: &'static str,
    ) -> Option<AuditWhat> {
        self.programming.end(bus, target, why)
    }

    /// Handles a chain of requests to an ECU that broke. Its entry is added with those that are due because of time.
    pub(in crate::policy) fn handle_broken(&mut self, bus: usize, target: IntentTarget) {
        self.broken.extend(self.programming.end(bus, target, "the chain of requests broke"));
    }

    /// Handles a channel that closed, the last one to its ECU.
    pub(in crate::policy) fn handle_channel_closed(&mut self, bus: usize, target: IntentTarget) {
        while let Some(ended) = self.programming.end_of_channel(bus, target) {
            self.broken.push(ended);
        }
    }

    /// Whether [`Self::handle_timeout`] has something to do.
    pub(in crate::policy) fn is_due(&self, now: Instant) -> bool {
        self.is_closing || !self.broken.is_empty() || self.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Adds the entries that are due because of time, or because the connection has ended.
    pub(in crate::policy) fn handle_timeout(&mut self, now: Instant, facts: AuditFacts) {
        let is_closing = std::mem::take(&mut self.is_closing);
        for ended in std::mem::take(&mut self.broken) {
            self.push(now, facts, ended);
        }
        while let Some((at, sum)) = self.refusals.poll_sum(now, is_closing) {
            self.push(at, facts, sum);
        }
        while let Some(ended) = self.programming.poll_end(now, is_closing) {
            self.push(now, facts, ended);
        }
        if is_closing {
            self.connection = None;
        }
    }

    /// When [`Self::handle_timeout`] has something to do.
    pub(in crate::policy) fn poll_timeout(&self) -> Option<Instant> {
        self.refusals.poll_timeout().into_iter().chain(self.programming.poll_timeout()).min()
    }

    /// Returns the next entry; after the last one, an entry about those that were lost.
    pub(in crate::policy) fn poll(&mut self, now: Instant) -> Option<AuditEntry> {
        self.queue.pop_front().or_else(|| {
            let count = std::mem::take(&mut self.lost);
            (count > 0).then(|| AuditEntry::lost(now, count))
        })
    }
}
