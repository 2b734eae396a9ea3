//! The silence of the line before a turn (P3min, W5).

use std::time::{Duration, Instant};

use super::Endpoint;
use super::turn::{TurnPhase, TurnPurpose};
use crate::protocol::kline::config::Initialisation;
use crate::protocol::kline::event::{Event, Failure};
use crate::protocol::kline::line::LineClock;
use crate::protocol::kline::timing::Timing;

/// Longest time that bytes of other nodes delay a turn. After that time the line counts as in use by another
/// tester, and nothing is sent. The value is far longer than the longest pause that a turn needs (W5, 300 ms), so
/// that bytes in between only delay the turn.
const MAX_PAUSE: Duration = Duration::from_secs(2);

impl Endpoint {
    /// Begins the wait for silence before the turn.
    pub(super) fn begin_pause(&mut self, now: Instant, line: &LineClock, then: TurnPurpose) {
        let pause = match then {
            TurnPurpose::Initialise => {
                let is_slow = self.config.initialisation == Initialisation::Slow;
                line.pause_before_initialisation(is_slow, self.attempts > 0)
            }
            TurnPurpose::Stop | TurnPurpose::Pdu | TurnPurpose::TesterPresent => self.timing().p3_min,
        };
        self.receiver.reset();
        let (quiet_at, latest) = (line.quiet_since() + pause, now + MAX_PAUSE);
        self.phase = TurnPhase::Pausing { quiet_at, pause, latest, then };
        self.handle_timeout(now);
    }

    /// Takes a byte of another node, which postpones the turn.
    pub(super) fn handle_byte_in_pause(&mut self, now: Instant, byte: u8) {
        let TurnPhase::Pausing { quiet_at, pause, then, .. } = &mut self.phase else { return };
        if *then == TurnPurpose::Initialise {
            *pause = Timing::NORMAL.w5;
        }
        *quiet_at = (now + *pause).max(*quiet_at);
        if self.has_unread_events() {
            return;
        }
        self.receiver.push(byte);
        while let Some(result) = self.receiver.poll() {
            let Ok(message) = result else { continue };
            match message.addresses {
                Some((_, target, _)) if target != self.config.tester => {
                    self.events.push_back(Event::OtherTester);
                }
                // a late answer
                Some((_, _, source)) if self.link.is_some() && self.config.addressing.includes(source) => {
                    self.handle_alive(now);
                    self.events.push_back(Event::Received { source, pdu: message.data });
                }
                _ => {}
            }
        }
    }

    /// Begins the turn, unless other nodes have kept the line busy all the time.
    pub(super) fn handle_pause_over(&mut self, now: Instant) {
        let TurnPhase::Pausing { quiet_at, then, .. } = self.phase else { return };
        self.receiver.reset();
        if quiet_at <= now {
            return self.begin(now, then);
        }
        self.phase = TurnPhase::Idle;
        match then {
            TurnPurpose::Initialise => self.handle_initialisation_failed(Failure::LineInUse),
            TurnPurpose::Stop => self.finish_stop(),
            TurnPurpose::TesterPresent => self.handle_unanswered(now, Failure::LineInUse),
            TurnPurpose::Pdu => {
                if self.pdu.take().is_some() {
                    self.events.push_back(Event::SendFailed(Failure::LineInUse));
                }
            }
        }
    }
}
