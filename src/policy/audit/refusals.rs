//! Refusals that are alike have one line, and one more that counts the others: a flood of refused frames must not wash
//! older lines out of the ring, or wear out the storage.

use std::time::{Duration, Instant};

use super::entry::{AuditWhat, AuditedRefusal};
use super::subject::AuditSubject;

/// How long alike refusals are counted. Each kind thus has at most twelve lines a minute.
const WINDOW: Duration = Duration::from_secs(10);
/// The most kinds that are counted at a time. A tool sends few kinds of requests; who tries all identifiers gets one line
/// for all the others.
const MAX_KINDS: usize = 16;

#[derive(Debug)]
struct RefusalKind {
    first: AuditedRefusal,
    since: Instant,
    last: Instant,
    again: u64,
}

#[derive(Debug, Default)]
pub(super) struct Refusals {
    kinds: Vec<RefusalKind>,
    /// The refusals beside these kinds: since when, and how many.
    others: Option<(Instant, u64)>,
}

impl Refusals {
    /// Handles a refusal. Returns the entry if the refusal has a line of its own.
    ///
    /// `describe` adds the data, which costs a hash.
    pub(super) fn handle_refusal(
        &mut self,
        now: Instant,
        refused: AuditedRefusal,
        describe: impl FnOnce(AuditSubject) -> AuditSubject,
    ) -> Option<AuditWhat> {
        if let Some(kind) = self.kinds.iter_mut().find(|kind| kind.first.is_alike(&refused)) {
            kind.again += 1;
            kind.last = now;
            return None;
        }
        if self.kinds.len() >= MAX_KINDS {
            self.others.get_or_insert((now, 0)).1 += 1;
            return None;
        }
        self.kinds.push(RefusalKind { first: refused.clone(), since: now, last: now, again: 0 });
        let subject = describe(refused.subject);
        Some(AuditWhat::Refused(AuditedRefusal { subject, ..refused }))
    }

    /// Returns the next sum that is due, and its time. `is_closing` makes all of them due.
    pub(super) fn poll_sum(&mut self, now: Instant, is_closing: bool) -> Option<(Instant, AuditWhat)> {
        let is_over = |since: Instant| is_closing || since + WINDOW <= now;
        while let Some(index) = self.kinds.iter().position(|kind| is_over(kind.since)) {
            let RefusalKind { first, since, last, again } = self.kinds.swap_remove(index);
            if again > 0 {
                let refused = AuditedRefusal { subject: first.subject.without_data(), ..first };
                return Some((last, AuditWhat::RefusedAgain { refused, count: again, since }));
            }
        }
        let (since, count) = self.others.take_if(|(since, _)| is_over(*since))?;
        Some((now, AuditWhat::RefusedOthers { count, since }))
    }

    /// When [`Self::poll_sum`] may have something.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let others = self.others.map(|(since, _)| since);
        self.kinds.iter().map(|kind| kind.since).chain(others).min().map(|since| since + WINDOW)
    }
}
