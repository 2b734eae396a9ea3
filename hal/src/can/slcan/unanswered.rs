//! The frames that an adapter has not answered yet, and which of them an answer belongs to. A pure state
//! machine.
//!
//! An answer does not name its frame, and a serial line may lose one. Counting alone would then give each later
//! answer to the frame before. So a frame that has waited too long is settled without its answer, as soon as
//! something else shows that the adapter has sent it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::can::{CanFrame, CanSettings, WireLength};

/// How long an adapter may be silent about its oldest frame before the answer may count as lost. A frame waits
/// for the bus much shorter, unless no node acknowledges it; N_As (ISO 15765-2) is 1 s.
pub(super) const OVERDUE_AFTER: Duration = Duration::from_millis(200);
/// The same for an adapter that answers a frame when it accepts the frame, and that has no status flags to ask
/// for: a second of received frames on a slow line may come first, so this is as long as N_As allows.
const OVERDUE_UNASKED: Duration = Duration::from_millis(500);

/// What an adapter says about a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameAnswer {
    /// `z` or `Z`: the frame was sent.
    Sent {
        /// The frame has a 29-bit identifier (`Z`).
        extended: bool,
    },
    /// A bare CR: the adapter accepted the frame.
    Accepted,
    /// BEL: the adapter refused the frame.
    Refused,
}

/// A frame with its outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SettledFrame {
    pub(super) is_sent: bool,
    /// When the adapter answered.
    pub(super) at: Instant,
    /// How long the frame occupied the bus.
    pub(super) busy: Duration,
}

#[derive(Debug)]
struct HeldFrame {
    since: Instant,
    busy: Duration,
    is_extended: bool,
    /// Whether the frame was sent, and when the adapter answered; `None` without an answer.
    answer: Option<(bool, Instant)>,
}

/// The frames without an outcome, the oldest first.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    frames: VecDeque<HeldFrame>,
    settled: VecDeque<SettledFrame>,
    /// When the adapter last answered a frame.
    last_answer: Option<Instant>,
    /// The adapter answers frames with `z` and `Z` after sending them; `None` until the first answer.
    confirms: Option<bool>,
    /// The adapter distinguishes `z` and `Z`.
    has_both_letters: bool,
    /// Another node has sent a frame since the adapter last answered one: that node acknowledges frames.
    is_acknowledged: bool,
    /// The adapter has answered a later command, and sees no errors on the bus.
    is_free_of_errors: bool,
}

impl Unanswered {
    /// Whether the adapter answers frames after sending them; `None` until the first answer.
    pub(super) fn confirms(&self) -> Option<bool> {
        self.confirms
    }

    /// The number of frames without an outcome.
    pub(super) fn len(&self) -> usize {
        self.frames.len()
    }

    /// The adapter lost its frames.
    pub(super) fn clear(&mut self) {
        self.frames.clear();
        self.forget_evidence();
    }

    /// A frame is on its way to the adapter.
    pub(super) fn push(&mut self, now: Instant, frame: &CanFrame, settings: &CanSettings) {
        if self.frames.is_empty() {
            self.forget_evidence();
        }
        let busy = WireLength::of(frame).occupancy(settings);
        let is_extended = frame.id().is_extended();
        self.frames.push_back(HeldFrame { since: now, busy, is_extended, answer: None });
    }

    /// The next frame with an outcome, in the order in which the adapter got the frames.
    pub(super) fn poll_settled(&mut self) -> Option<SettledFrame> {
        self.settled.pop_front()
    }

    /// The adapter answers a frame. An answer without a frame is ignored.
    pub(super) fn handle_answer(&mut self, now: Instant, answer: FrameAnswer) {
        match answer {
            FrameAnswer::Sent { extended } => {
                self.confirms = Some(true);
                self.has_both_letters |= extended;
            }
            // an adapter that confirms with `z` may add a meaningless empty line
            FrameAnswer::Accepted if self.confirms == Some(true) => return,
            FrameAnswer::Accepted if self.frames.is_empty() => return,
            FrameAnswer::Accepted => self.confirms = Some(false),
            FrameAnswer::Refused => {}
        }
        self.give_up_older(now);
        let by_letter = match answer {
            FrameAnswer::Sent { extended } if self.has_both_letters => {
                self.find(|frame| frame.is_extended == extended)
            }
            _ => None,
        };
        let place = by_letter.or_else(|| self.find(|_| true));
        if let Some(frame) = place.and_then(|place| self.frames.get_mut(place)) {
            frame.answer = Some((answer != FrameAnswer::Refused, now));
        }
        self.last_answer = Some(now);
        self.settle();
        self.forget_evidence();
    }

    /// Another node has sent a frame.
    pub(super) fn handle_received(&mut self, now: Instant) {
        self.is_acknowledged = true;
        self.settle_overdue(now);
    }

    /// The adapter has answered the request for its status flags that was written at `asked`.
    pub(super) fn handle_status(&mut self, now: Instant, asked: Instant, has_errors: bool) {
        if self.overdue_at().is_none_or(|at| asked < at) {
            return;
        }
        if self.confirms == Some(false) {
            // commands are answered in order, so the frames before this one have been answered
            self.settle_while(now, |since| since <= asked);
        } else {
            self.is_free_of_errors = !has_errors;
            self.settle_overdue(now);
        }
    }

    /// When the answer to the oldest frame is overdue.
    pub(super) fn overdue_at(&self) -> Option<Instant> {
        self.silent_since().map(|since| since + OVERDUE_AFTER)
    }

    /// When to call [`Unanswered::handle_timeout`] for an adapter without status flags.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let wait = if self.confirms == Some(false) { OVERDUE_UNASKED } else { OVERDUE_AFTER };
        let waits_for_time = self.confirms == Some(false) || self.has_other_sign();
        self.silent_since().filter(|_| waits_for_time).map(|since| since + wait)
    }

    /// Time has passed, and the adapter has no status flags to ask for.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_none_or(|at| now < at) {
            return;
        }
        if self.confirms == Some(false) {
            self.settle_while(now, |since| since + OVERDUE_UNASKED <= now);
        } else {
            self.is_free_of_errors = true;
            self.settle_overdue(now);
        }
    }

    /// Since when the adapter has been silent about its oldest frame.
    fn silent_since(&self) -> Option<Instant> {
        let oldest = self.frames.front()?.since;
        Some(self.last_answer.map_or(oldest, |answered| answered.max(oldest)))
    }

    /// Whether something beside an answer shows that the oldest frame was sent: another node acknowledges
    /// frames, or the adapter has answered a later frame.
    fn has_other_sign(&self) -> bool {
        self.is_acknowledged || self.frames.iter().any(|frame| frame.answer.is_some())
    }

    fn find(&self, matches: impl Fn(&HeldFrame) -> bool) -> Option<usize> {
        self.frames.iter().position(|frame| frame.answer.is_none() && matches(frame))
    }

    /// Settles frames that were overdue when a later one was written: the answer that comes now belongs to the
    /// later one. If it does belong to an overdue frame after all, the later one follows it on the bus.
    fn give_up_older(&mut self, now: Instant) {
        let Some(overdue_at) = self.overdue_at() else { return };
        if let Some(later) = self.frames.iter().position(|frame| frame.since >= overdue_at) {
            self.settle_first(now, later);
        }
    }

    fn settle_overdue(&mut self, now: Instant) {
        let is_overdue = self.overdue_at().is_some_and(|at| at <= now);
        if is_overdue && self.is_free_of_errors && self.has_other_sign() {
            self.settle_while(now, |since| since + OVERDUE_AFTER <= now);
        }
    }

    /// Settles the oldest frames, as long as the time at which they were written matches.
    fn settle_while(&mut self, now: Instant, matches: impl Fn(Instant) -> bool) {
        let count = self.frames.iter().take_while(|frame| matches(frame.since)).count();
        self.settle_first(now, count);
    }

    /// Settles this many of the oldest frames, as sent if they have no answer.
    fn settle_first(&mut self, now: Instant, count: usize) {
        for frame in self.frames.iter_mut().take(count) {
            frame.answer.get_or_insert((true, now));
        }
        tracing::debug!(count, "an SLCAN adapter's answer to a frame is missing");
        self.last_answer = Some(now);
        self.settle();
        self.forget_evidence();
    }

    fn settle(&mut self) {
        while let Some((frame, (is_sent, at))) =
            self.frames.front().and_then(|frame| Some((frame, frame.answer?)))
        {
            self.settled.push_back(SettledFrame { is_sent, at, busy: frame.busy });
            self.frames.pop_front();
        }
    }

    fn forget_evidence(&mut self) {
        self.is_acknowledged = false;
        self.is_free_of_errors = false;
    }
}

#[cfg(test)]
#[path = "unanswered_tests.rs"]
mod tests;
