//! Whether a bus has the bit rate that was asked for: a pure state machine that listens, and sends nothing.

use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::CanEvent;

use super::search::{ERRORS_ENOUGH, reports_bus_error};

/// How long to listen at the bit rate that was asked for. The periodic messages of a vehicle that is awake come several
/// times in this time.
const LISTEN_TIME: Duration = Duration::from_millis(300);
/// How long to listen at each other bit rate. A bus in use shows itself by frames or errors within a tenth of it.
const OTHER_TIME: Duration = Duration::from_millis(60);
/// The time for all other bit rates together. An operator waits for the answer.
const OTHERS_TIME: Duration = Duration::from_millis(600);
/// The other bit rates, the likeliest first, in bit/s.
const OTHERS: [u32; 8] = [500_000, 250_000, 125_000, 1_000_000, 83_300, 100_000, 33_300, 50_000];

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckVerdict {
    /// Frames were heard.
    Right,
    /// Neither frames nor errors were heard.
    Silent,
    /// Only errors were heard. `heard` is the bit rate at which frames were heard, in bit/s.
    Wrong {
        /// The bit rate at which frames were heard, in bit/s.
        heard: Option<u32>,
    },
}

/// The next step of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum CheckStep {
    /// Set the adapter up to listen only at this bit rate, then call [`BitRateCheck::handle_configured`].
    Listen(u32),
    /// The check has ended.
    End(CheckVerdict),
}

/// A check of a bit rate.
#[derive(Debug)]
pub(super) struct BitRateCheck {
    wanted: u32,
    /// The other bit rates that were not tried yet, the next one last.
    others: Vec<u32>,
    present: u32,
    until: Option<Instant>,
    /// Until when other bit rates are tried.
    others_until: Option<Instant>,
    errors: u32,
    step: Option<CheckStep>,
}

impl BitRateCheck {
    /// Begins the check of this bit rate, in bit/s.
    pub(super) fn new(wanted: u32) -> Self {
        let others = OTHERS.into_iter().rev().filter(|rate| *rate != wanted).collect();
        let step = Some(CheckStep::Listen(wanted));
        Self { wanted, others, present: wanted, until: None, others_until: None, errors: 0, step }
    }

    /// The adapter listens at the bit rate of the last step.
    pub(super) fn handle_configured(&mut self, now: Instant) {
        let time = if self.present == self.wanted { LISTEN_TIME } else { OTHER_TIME };
        self.until = Some(now + time);
        self.errors = 0;
    }

    /// The adapter cannot listen at the bit rate of the last step.
    pub(super) fn handle_refused(&mut self, now: Instant) {
        self.try_next(now);
    }

    /// An event of the bus.
    pub(super) fn handle_event(&mut self, now: Instant, event: &CanEvent) {
        let is_error = match event {
            CanEvent::Received { frame, .. } if !frame.is_error() => return self.handle_frame(),
            CanEvent::Received { frame, .. } => reports_bus_error(frame),
            CanEvent::State(state) => *state != BusState::Active,
            CanEvent::Transmitted { .. }
            | CanEvent::TransmitFailed { .. }
            | CanEvent::Overtaking { .. }
            | CanEvent::Lost(_) => false,
        };
        self.errors += u32::from(is_error);
        if is_error && self.errors >= ERRORS_ENOUGH {
            self.try_next(now);
        }
    }

    /// The deadline of [`BitRateCheck::poll_timeout`] may have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.until.is_none_or(|until| until > now) {
            return;
        }
        if self.present == self.wanted && self.errors == 0 {
            self.end(CheckVerdict::Silent);
        } else {
            self.try_next(now);
        }
    }

    /// The next step, returned once.
    pub(super) fn poll_step(&mut self) -> Option<CheckStep> {
        self.step.take()
    }

    /// When to call [`BitRateCheck::handle_timeout`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.until
    }

    fn handle_frame(&mut self) {
        let is_right = self.present == self.wanted;
        self.end(match is_right {
            true => CheckVerdict::Right,
            false => CheckVerdict::Wrong { heard: Some(self.present) },
        });
    }

    fn try_next(&mut self, now: Instant) {
        let others_until = *self.others_until.get_or_insert(now + OTHERS_TIME);
        match self.others.pop().filter(|_| now < others_until) {
            Some(next) => {
                self.present = next;
                self.until = None;
                self.step = Some(CheckStep::Listen(next));
            }
            None => self.end(CheckVerdict::Wrong { heard: None }),
        }
    }

    fn end(&mut self, verdict: CheckVerdict) {
        self.until = None;
        self.step = Some(CheckStep::End(verdict));
    }
}

#[cfg(test)]
mod tests {
    use connector_hal::can::{CanFrame, CanId};

    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn good(at: Instant) -> CanEvent {
        let frame = CanFrame::new(CanId::standard(0x123).unwrap(), &[1]).unwrap();
        CanEvent::Received { frame, at }
    }

    /// A check of 500 kbit/s that listens.
    fn listening() -> (BitRateCheck, Instant) {
        let (mut check, now) = (BitRateCheck::new(500_000), Instant::now());
        assert_eq!(check.poll_step(), Some(CheckStep::Listen(500_000)));
        check.handle_configured(now);
        (check, now)
    }

    fn disturb(check: &mut BitRateCheck, now: Instant, errors: u32) {
        (0..errors).for_each(|_| check.handle_event(now, &CanEvent::State(BusState::Passive)));
    }

    #[test]
    fn the_first_frame_ends_the_check_even_among_errors() {
        let (mut check, now) = listening();
        disturb(&mut check, now, 15);
        check.handle_event(now, &good(now));
        assert_eq!(check.poll_step(), Some(CheckStep::End(CheckVerdict::Right)));
        assert_eq!(check.poll_timeout(), None);
    }

    #[test]
    fn a_bus_without_any_sign_is_silent_after_300_ms() {
        let (mut check, now) = listening();
        assert_eq!(check.poll_timeout(), Some(now + 300 * MS));
        check.handle_timeout(now + 299 * MS);
        assert_eq!(check.poll_step(), None);
        check.handle_timeout(now + 300 * MS);
        assert_eq!(check.poll_step(), Some(CheckStep::End(CheckVerdict::Silent)));
    }

    #[test]
    fn errors_lead_to_the_bit_rate_at_which_a_frame_is_heard() {
        let (mut check, now) = listening();
        disturb(&mut check, now, 16);
        assert_eq!(check.poll_step(), Some(CheckStep::Listen(250_000)), "without waiting");
        check.handle_configured(now);
        check.handle_timeout(now + 60 * MS);
        assert_eq!(check.poll_step(), Some(CheckStep::Listen(125_000)));
        check.handle_refused(now + 60 * MS);
        assert_eq!(check.poll_step(), Some(CheckStep::Listen(1_000_000)));
        check.handle_configured(now + 70 * MS);
        check.handle_event(now + 70 * MS, &good(now));
        let wrong = CheckVerdict::Wrong { heard: Some(1_000_000) };
        assert_eq!(check.poll_step(), Some(CheckStep::End(wrong)));
    }

    #[test]
    fn a_bus_with_errors_at_every_bit_rate_is_wrong_within_the_time() {
        let (mut check, mut now) = listening();
        disturb(&mut check, now, 1);
        check.handle_timeout(now + 300 * MS);
        now += 300 * MS;
        let mut tried = 0;
        loop {
            match check.poll_step() {
                Some(CheckStep::Listen(_)) => {
                    // a slow adapter
                    now += 100 * MS;
                    check.handle_configured(now);
                    disturb(&mut check, now, 16);
                    tried += 1;
                }
                step => {
                    assert_eq!(step, Some(CheckStep::End(CheckVerdict::Wrong { heard: None })));
                    break;
                }
            }
        }
        assert_eq!(tried, 6);
    }
}
