//! Finding a bus's bit rate by listening, so that nothing is sent at a wrong bit rate.

use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{CanFrame, FrameKind};

/// This many errors without a frame show a wrong bit rate: the search stops listening to it early. A single
/// error may be noise; at a wrong bit rate, a bus in use makes thousands a second.
pub(super) const ERRORS_ENOUGH: u32 = 16;

/// SocketCAN's error classes (`linux/can/error.h`) that concern the adapter's controller, not the bus.
const CLASSES_OF_CONTROLLER: u32 =
    CLASS_TX_TIMEOUT | CLASS_LOST_ARBITRATION | CLASS_CONTROLLER | CLASS_RESTARTED;
const CLASS_TX_TIMEOUT: u32 = 0x001;
const CLASS_LOST_ARBITRATION: u32 = 0x002;
const CLASS_CONTROLLER: u32 = 0x004;
const CLASS_RESTARTED: u32 = 0x100;
/// In the second byte of an error frame of the controller class: the controller counted many receive errors.
const DETAIL_RX_WARNING_OR_PASSIVE: u8 = 0x04 | 0x10;

/// How the bit rate is searched for.
#[derive(Debug, Clone)]
pub(crate) struct SearchSettings {
    /// The bit rates to try, the likeliest first, in bit/s.
    pub bit_rates: Vec<u32>,
    /// How long to listen at each bit rate.
    pub listen_time: Duration,
    /// The total time to listen, from the first set-up of the adapter.
    pub listen_budget: Duration,
    /// Whether the adapter can listen without acknowledging. If not, the first bit rate is used without a
    /// search.
    pub listen_only: bool,
}

/// The next step of a search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SearchStep {
    /// Set the adapter up with these values, then call [`BitRateSearch::handle_configured`] or
    /// [`BitRateSearch::handle_refused`].
    Configure {
        /// The bit rate, in bit/s.
        bit_rate: u32,
        /// Whether the adapter must acknowledge nothing.
        listen_only: bool,
    },
    /// The adapter is set up: the bus may be asked.
    Ask {
        /// The bit rate that is set, in bit/s.
        bit_rate: u32,
        /// Whether frames were heard, so that the bit rate is right. If not, send only one frame at first. If
        /// no node acknowledges that frame, call [`BitRateSearch::handle_unacknowledged`].
        alive: bool,
    },
    /// Nothing may be sent on this bus.
    GiveUp(GiveUp),
}

/// The reason why a bus is not asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// The bus is in use, but at none of the bit rates.
    UnknownBitRate,
    /// The bus is silent, and no node acknowledges a frame.
    NoNode,
    /// The adapter supports none of the bit rates.
    Refused,
}

/// The result of listening or asking at a bit rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BitRateVerdict {
    Untried,
    Silent,
    Errors,
    Unacknowledged,
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum SearchPhase {
    /// The adapter is being set up to listen.
    Tuning,
    Listening {
        until: Instant,
        errors: u32,
    },
    /// The adapter is being set up to ask.
    Opening {
        alive: bool,
    },
    Asking,
    Ended,
}

/// Finds a bus's bit rate: a pure state machine.
///
/// After each call, call [`BitRateSearch::poll_step`], and read [`BitRateSearch::poll_timeout`] again.
#[derive(Debug, Clone)]
pub(crate) struct BitRateSearch {
    settings: SearchSettings,
    verdicts: Vec<BitRateVerdict>,
    /// The index of the present bit rate.
    index: usize,
    /// The time when the adapter was first set up.
    began: Option<Instant>,
    phase: SearchPhase,
    step: Option<SearchStep>,
}

impl BitRateSearch {
    /// Begins the search.
    pub(crate) fn new(mut settings: SearchSettings) -> Self {
        if !settings.listen_only {
            settings.bit_rates.truncate(1);
        }
        let verdicts = vec![BitRateVerdict::Untried; settings.bit_rates.len()];
        // the search takes the bit rate after the present one: the first
        let index = verdicts.len().saturating_sub(1);
        let mut search =
            Self { settings, verdicts, index, began: None, phase: SearchPhase::Ended, step: None };
        search.advance();
        search
    }

    /// The adapter is set up as the last step demands.
    pub(crate) fn handle_configured(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        match self.phase {
            SearchPhase::Tuning => {
                if !self.settings.listen_only {
                    self.rule_out_others();
                }
                self.phase = SearchPhase::Listening { until: now + self.settings.listen_time, errors: 0 };
            }
            SearchPhase::Opening { alive } => self.ask(alive),
            SearchPhase::Listening { .. } | SearchPhase::Asking | SearchPhase::Ended => {}
        }
    }

    /// The adapter does not accept the settings of the last step.
    pub(crate) fn handle_refused(&mut self) {
        if let SearchPhase::Tuning | SearchPhase::Opening { .. } = self.phase {
            self.conclude(BitRateVerdict::Refused);
            self.advance();
        }
    }

    /// A frame was received.
    pub(crate) fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if reports_bus_error(frame) {
            self.handle_error(now);
        } else if let SearchPhase::Listening { .. } = self.phase
            && !frame.is_error()
        {
            self.open(true);
        }
    }

    /// The controller's state changed.
    pub(crate) fn handle_bus_state(&mut self, now: Instant, state: BusState) {
        if state != BusState::Active {
            self.handle_error(now);
        }
    }

    /// The deadline of [`BitRateSearch::poll_timeout`] may have passed.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let SearchPhase::Listening { until, errors } = self.phase
            && now >= until
        {
            self.conclude(if errors > 0 { BitRateVerdict::Errors } else { BitRateVerdict::Silent });
            self.listen_again_until(now);
        }
    }

    /// No node acknowledged the only frame that was sent.
    pub(crate) fn handle_unacknowledged(&mut self) {
        if let SearchPhase::Asking = self.phase {
            self.conclude(BitRateVerdict::Unacknowledged);
            self.advance();
        }
    }

    /// The next step, returned once.
    pub(crate) fn poll_step(&mut self) -> Option<SearchStep> {
        self.step.take()
    }

    /// The time of the next [`BitRateSearch::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            SearchPhase::Listening { until, .. } => Some(until),
            _ => None,
        }
    }

    fn handle_error(&mut self, now: Instant) {
        let SearchPhase::Listening { errors, .. } = &mut self.phase else { return };
        *errors += 1;
        if *errors >= ERRORS_ENOUGH {
            self.conclude(BitRateVerdict::Errors);
            self.listen_again_until(now);
        }
    }

    fn conclude(&mut self, verdict: BitRateVerdict) {
        if let Some(at) = self.verdicts.get_mut(self.index) {
            *at = verdict;
        }
    }

    /// Continues after listening. Errors at one bit rate show that the bus is in use at another one. Asking
    /// cannot find that bit rate, so the search listens again to the silent bit rates while there is time,
    /// for a rare frame.
    fn listen_again_until(&mut self, now: Instant) {
        let latest = self.began.map(|began| began + self.settings.listen_budget);
        let may_wait = latest.is_some_and(|latest| now + self.settings.listen_time <= latest);
        if !self.verdicts.contains(&BitRateVerdict::Untried)
            && self.verdicts.contains(&BitRateVerdict::Errors)
            && may_wait
            && let Some(index) = self.next(BitRateVerdict::Silent)
        {
            self.tune(index);
        } else {
            self.advance();
        }
    }

    fn advance(&mut self) {
        if let Some(index) = self.next(BitRateVerdict::Untried) {
            self.tune(index);
        } else if self.verdicts.iter().all(|verdict| *verdict == BitRateVerdict::Refused) {
            self.take_as_configured();
        } else if self.verdicts.contains(&BitRateVerdict::Errors) {
            self.give_up(GiveUp::UnknownBitRate);
        } else if let Some(index) =
            self.verdicts.iter().position(|verdict| *verdict == BitRateVerdict::Silent)
        {
            self.index = index;
            self.open(false);
        } else {
            self.give_up(GiveUp::NoNode);
        }
    }

    /// The next bit rate with this verdict, in turn.
    fn next(&self, verdict: BitRateVerdict) -> Option<usize> {
        let count = self.verdicts.len();
        let mut in_turn = (self.index + 1..count).chain(0..count.min(self.index + 1));
        in_turn.find(|index| self.verdicts.get(*index) == Some(&verdict))
    }

    /// Uses an adapter that refuses to listen only as the system has set it up.
    fn take_as_configured(&mut self) {
        if self.settings.listen_only {
            self.settings.listen_only = false;
            self.verdicts.fill(BitRateVerdict::Untried);
            self.advance();
        } else {
            self.give_up(GiveUp::Refused);
        }
    }

    /// Keeps the bit rate of the system: an adapter that acknowledges frames disturbs a bus at a wrong bit
    /// rate.
    fn rule_out_others(&mut self) {
        for (index, verdict) in self.verdicts.iter_mut().enumerate() {
            if index != self.index {
                *verdict = BitRateVerdict::Refused;
            }
        }
    }

    fn tune(&mut self, index: usize) {
        self.index = index;
        self.phase = SearchPhase::Tuning;
        self.step =
            Some(SearchStep::Configure { bit_rate: self.bit_rate(), listen_only: self.settings.listen_only });
    }

    /// Sets the adapter up for asking.
    fn open(&mut self, alive: bool) {
        if self.settings.listen_only {
            self.phase = SearchPhase::Opening { alive };
            self.step = Some(SearchStep::Configure { bit_rate: self.bit_rate(), listen_only: false });
        } else {
            self.ask(alive);
        }
    }

    fn ask(&mut self, alive: bool) {
        self.phase = SearchPhase::Asking;
        self.step = Some(SearchStep::Ask { bit_rate: self.bit_rate(), alive });
    }

    fn give_up(&mut self, why: GiveUp) {
        self.phase = SearchPhase::Ended;
        self.step = Some(SearchStep::GiveUp(why));
    }

    fn bit_rate(&self) -> u32 {
        self.settings.bit_rates.get(self.index).copied().unwrap_or_default()
    }
}

/// Whether an error frame reports an error on the bus, as frames of another bit rate cause.
pub(super) fn reports_bus_error(frame: &CanFrame) -> bool {
    let FrameKind::Error { classes } = frame.kind() else { return false };
    reports_many_errors(frame) || classes & !CLASSES_OF_CONTROLLER != 0
}

/// Whether an error frame says that the controller has counted many receive errors.
pub(super) fn reports_many_errors(frame: &CanFrame) -> bool {
    let FrameKind::Error { classes } = frame.kind() else { return false };
    classes & CLASS_CONTROLLER != 0
        && frame.data().get(1).is_some_and(|detail| detail & DETAIL_RX_WARNING_OR_PASSIVE != 0)
}

#[cfg(test)]
#[path = "search_tests.rs"]
mod tests;
