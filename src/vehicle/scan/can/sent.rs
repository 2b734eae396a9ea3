//! The questions that were sent, as long as an answer to them may come.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::plan::ScanProbe;

/// The time that an ECU has to answer: P2 is 50 ms, and gateways and adapters add to that.
pub(super) const ANSWER_TIME: Duration = Duration::from_millis(100);
/// The most frames that may wait for their outcome. More would let the scan's frames queue in the adapter in
/// front of those of channels: on a bus at 500 kbit/s, this many take 2 ms.
const MAX_IN_FLIGHT: usize = 8;
/// The time within which a frame must be acknowledged on the bus (N_As, ISO 15765-2).
const N_AS: Duration = Duration::from_millis(1000);

#[derive(Debug, Clone, Copy)]
struct SentProbe {
    at: Instant,
    probe: ScanProbe,
}

/// The questions that may still be answered.
#[derive(Debug, Default)]
pub(super) struct SentProbes {
    /// Frames without outcome, the oldest first.
    in_flight: VecDeque<SentProbe>,
    /// Frames that were acknowledged within the last [`ANSWER_TIME`].
    recent: VecDeque<SentProbe>,
    /// The time of the last question that was not about the vehicle's motion, which is asked again and again.
    last_question: Option<Instant>,
}

impl SentProbes {
    pub(super) fn has_room(&self) -> bool {
        self.in_flight.len() < MAX_IN_FLIGHT
    }

    /// The number of frames without outcome.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn push(&mut self, now: Instant, probe: ScanProbe) {
        if !matches!(probe, ScanProbe::Motion { .. }) {
            self.last_question = Some(now);
        }
        self.in_flight.push_back(SentProbe { at: now, probe });
    }

    /// The oldest frame was acknowledged; false if there was none.
    pub(super) fn handle_transmitted(&mut self, now: Instant) -> bool {
        let Some(sent) = self.in_flight.pop_front() else { return false };
        self.forget_old(now);
        self.recent.push_back(SentProbe { at: now, ..sent });
        true
    }

    /// The oldest frame will not be sent; false if there was none.
    pub(super) fn handle_failed(&mut self) -> bool {
        self.in_flight.pop_front().is_some()
    }

    /// The adapter reports no outcome of these frames any more.
    pub(super) fn forget_in_flight(&mut self) {
        self.in_flight.clear();
    }

    /// The newest frame was not sent.
    pub(super) fn handle_refused(&mut self) {
        self.in_flight.pop_back();
    }

    /// Forgets the questions to which no answer comes any more.
    pub(super) fn forget_old(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|sent| sent.at + ANSWER_TIME < now) {
            self.recent.pop_front();
        }
    }

    /// Forgets all questions that were acknowledged.
    pub(super) fn forget_recent(&mut self) {
        self.recent.clear();
    }

    /// The questions that a frame may answer. An answer can come before the report that its question was
    /// sent.
    pub(super) fn answerable(&self) -> impl Iterator<Item = ScanProbe> {
        self.recent.iter().chain(&self.in_flight).map(|sent| sent.probe)
    }

    /// The time at which the oldest frame counts as not acknowledged. If the adapter lost a report, later ones
    /// are taken for those of older frames, and the last one is missing. So where no question follows
    /// (`is_last`), the last one must be acknowledged in time, too.
    pub(super) fn stuck_at(&self, is_last: bool) -> Option<Instant> {
        let oldest = self.in_flight.front()?.at + N_AS;
        let last = self.last_question.filter(|_| is_last).map(|at| at + N_AS);
        Some(last.map_or(oldest, |last| last.min(oldest)))
    }
}
