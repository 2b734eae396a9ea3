//! Requests that wait until the question for the speed is answered.

use std::time::{Duration, Instant};

/// How long a request waits at most until the question is sent: the default P2 of a request on another channel that no
/// ECU answers, or N_Bs (ISO 15765-2, 9.8), and a margin.
const TURN: Duration = Duration::from_millis(1500);
/// How long a request waits for the answer: P2 is 50 ms (ISO 15765-4), and a gateway adds its own time.
const ANSWER: Duration = Duration::from_millis(300);
/// How long no request waits again after the vehicle did not answer.
const PAUSE: Duration = Duration::from_secs(30);
/// How long no request waits again after the question had no turn.
const SHORT_PAUSE: Duration = Duration::from_secs(2);

/// The wait of requests for the speed.
#[derive(Debug, Default)]
pub(super) struct SpeedWait {
    /// Whether a bus can be asked.
    pub(super) can_ask: bool,
    /// Since when requests wait, and until when at most.
    waiting: Option<(Instant, Instant)>,
    is_asked: bool,
    /// Until when no request waits.
    paused: Option<Instant>,
}

impl SpeedWait {
    /// Whether requests wait.
    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// Since when requests wait, and until when at most.
    pub(super) fn waiting(&self) -> Option<(Instant, Instant)> {
        self.waiting
    }

    /// Whether a request may begin to wait.
    pub(super) fn may_begin(&self, now: Instant) -> bool {
        self.can_ask && self.paused.is_none_or(|until| until <= now)
    }

    /// Handles a request that begins to wait.
    pub(super) fn begin(&mut self, now: Instant) {
        self.waiting = Some((now, now + TURN));
    }

    /// Handles a question that is being asked.
    pub(super) fn handle_asked(&mut self, now: Instant) {
        if let Some((_, until)) = &mut self.waiting {
            *until = now + ANSWER;
            self.is_asked = true;
        }
    }

    /// Ends the wait if the speed is known, or if the wait was long enough.
    pub(super) fn update(&mut self, now: Instant, is_known: bool) {
        let Some((_, until)) = self.waiting.filter(|(_, until)| is_known || *until <= now) else { return };
        let pause = if self.is_asked { PAUSE } else { SHORT_PAUSE };
        *self =
            Self { can_ask: self.can_ask, paused: (!is_known).then_some(until + pause), ..Self::default() };
    }
}
