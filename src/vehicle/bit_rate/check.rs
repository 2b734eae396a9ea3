//! Whether a bus has the bit rate that was asked for: a pure state machine that listens, and sends nothing.

use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::CanEvent;

use super::search::{ERRORS_ENOUGH, reports_bus_error, reports_many_errors};
use crate::config::CAN_BIT_RATES;

/// How long to listen at the bit rate that was asked for. The periodic messages of a vehicle that is awake come several
/// times in this time.
const LISTEN_TIME: Duration = Duration::from_millis(300);
/// The least time to listen at each other bit rate. A bus in use shows itself by frames or errors within a tenth of
/// [`LISTEN_TIME`].
const OTHER_TIME: Duration = Duration::from_millis(60);
/// The least time to listen at each other bit rate, in bits: three of the longest classic frames, and a pause.
const OTHER_BITS: u32 = 500;
/// The time for all other bit rates together. An operator waits for the answer. Eleven bit rates take 700 ms.
const OTHERS_TIME: Duration = Duration::from_millis(800);
/// This many errors without a frame show a wrong bit rate. A plug that makes contact, or a single disturbed frame on a
/// bus that falls asleep, causes fewer; a bus at a wrong bit rate causes some for each frame.
const ERRORS_OF_USE: u32 = 5;
/// The bit rates of diagnosis, which are tried before the others, in bit/s.
const LIKELIEST: [u32; 4] = [500_000, 250_000, 125_000, 1_000_000];

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CheckVerdict {
    /// Frames were heard.
    Right,
    /// No frames were heard, and no errors or so few that they may be noise.
    Silent,
    /// Only errors were heard, or frames at another bit rate. `heard` is the bit rate at which frames were heard, in
    /// bit/s.
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
    /// The errors at the bit rate that was asked for.
    errors: u32,
    /// The errors at the present other bit rate.
    other_errors: u32,
    /// The errors before other bit rates were tried.
    first_errors: Option<u32>,
    step: Option<CheckStep>,
}

impl BitRateCheck {
    /// Begins the check of this bit rate, in bit/s.
    pub(super) fn new(wanted: u32) -> Self {
        let rest = CAN_BIT_RATES.into_iter().filter(|rate| !LIKELIEST.contains(rate));
        let mut others: Vec<u32> = LIKELIEST.into_iter().chain(rest).filter(|rate| *rate != wanted).collect();
        others.reverse();
        Self {
            wanted,
            others,
            present: wanted,
            until: None,
            others_until: None,
            errors: 0,
            other_errors: 0,
            first_errors: None,
            step: Some(CheckStep::Listen(wanted)),
        }
    }

    /// The adapter listens at the bit rate of the last step.
    pub(super) fn handle_configured(&mut self, now: Instant) {
        let time = if self.is_at_wanted() { LISTEN_TIME } else { other_time(self.present) };
        self.until = Some(now + time);
        self.other_errors = 0;
    }

    /// The adapter cannot listen at the bit rate of the last step.
    pub(super) fn handle_refused(&mut self, now: Instant) {
        self.try_next(now);
    }

    /// An event of the bus.
    pub(super) fn handle_event(&mut self, now: Instant, event: &CanEvent) {
        let errors = match event {
            CanEvent::Received { frame, .. } if !frame.is_error() => return self.handle_frame(),
            CanEvent::Received { frame, .. } if reports_many_errors(frame) => ERRORS_OF_USE,
            CanEvent::Received { frame, .. } => u32::from(reports_bus_error(frame)),
            // the controller has counted 128 errors
            CanEvent::State(state) if *state != BusState::Active => ERRORS_OF_USE,
            CanEvent::State(_)
            | CanEvent::Transmitted { .. }
            | CanEvent::TransmitFailed { .. }
            | CanEvent::Overtaking { .. }
            | CanEvent::Lost(_) => 0,
        };
        let counted = if self.is_at_wanted() { &mut self.errors } else { &mut self.other_errors };
        *counted = counted.saturating_add(errors);
        if errors > 0 && *counted >= ERRORS_ENOUGH {
            self.try_next(now);
        }
    }

    /// The deadline of [`BitRateCheck::poll_timeout`] may have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.until.is_none_or(|until| until > now) {
            return;
        }
        if self.is_at_wanted() && self.errors == 0 {
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
        self.end(match self.is_at_wanted() {
            true => CheckVerdict::Right,
            false => CheckVerdict::Wrong { heard: Some(self.present) },
        });
    }

    /// Continues at the next other bit rate. After the last one, a bus with few errors is not refused yet: the check
    /// listens once more at the wanted bit rate.
    fn try_next(&mut self, now: Instant) {
        let others_until = *self.others_until.get_or_insert(now + OTHERS_TIME);
        if self.first_errors.is_some() && self.is_at_wanted() {
            return self.end_without_frame();
        }
        match self.others.pop().filter(|_| now < others_until) {
            Some(next) => self.listen(next),
            None if self.errors < ERRORS_OF_USE => {
                self.first_errors = Some(self.errors);
                self.listen(self.wanted);
            }
            None => self.end_without_frame(),
        }
    }

    fn listen(&mut self, bit_rate: u32) {
        self.present = bit_rate;
        self.until = None;
        self.step = Some(CheckStep::Listen(bit_rate));
    }

    /// No frame was heard at any bit rate. Noise does not come back; errors in both times of listening show rare frames.
    fn end_without_frame(&mut self) {
        let comes_back = self.first_errors.is_some_and(|errors| self.errors > errors);
        let is_in_use = self.errors >= ERRORS_OF_USE || comes_back;
        self.end(if is_in_use { CheckVerdict::Wrong { heard: None } } else { CheckVerdict::Silent });
    }

    /// Whether the adapter listens at the bit rate that was asked for.
    pub(super) fn is_at_wanted(&self) -> bool {
        self.present == self.wanted
    }

    fn end(&mut self, verdict: CheckVerdict) {
        self.until = None;
        self.step = Some(CheckStep::End(verdict));
    }
}

/// How long to listen at another bit rate.
fn other_time(bit_rate: u32) -> Duration {
    OTHER_TIME.max(Duration::from_secs(1) * OTHER_BITS / bit_rate.max(1))
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
        const PROTOCOL_VIOLATION: u32 = 0x8;
        let frame = CanFrame::new_error(PROTOCOL_VIOLATION, [0; 8]);
        (0..errors).for_each(|_| check.handle_event(now, &CanEvent::Received { frame, at: now }));
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
        disturb(&mut check, now, 5);
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
        assert_eq!(tried, 8);
    }

    /// Lets the time pass until the end. Returns the bit rates at which the check listened, the verdict and the time.
    fn finish(check: &mut BitRateCheck, start: Instant) -> (Vec<u32>, CheckVerdict, Duration) {
        let (mut tried, mut now) = (Vec::new(), start);
        loop {
            match check.poll_step() {
                Some(CheckStep::Listen(bit_rate)) => {
                    tried.push(bit_rate);
                    check.handle_configured(now);
                }
                Some(CheckStep::End(verdict)) => return (tried, verdict, now - start),
                None => {
                    now = check.poll_timeout().unwrap();
                    check.handle_timeout(now);
                }
            }
        }
    }

    #[test]
    fn a_bus_with_an_error_or_two_is_silent_unless_frames_are_heard_at_another_bit_rate() {
        for errors in [1, 4] {
            let (mut check, now) = listening();
            disturb(&mut check, now, errors);
            let (tried, verdict, time) = finish(&mut check, now);
            assert_eq!(verdict, CheckVerdict::Silent, "{errors} errors");
            assert_eq!(tried.last(), Some(&500_000), "once more");
            assert!(time <= 1300 * MS, "{time:?}");
            let (mut check, now) = listening();
            disturb(&mut check, now, errors);
            check.handle_timeout(now + 300 * MS);
            assert_eq!(check.poll_step(), Some(CheckStep::Listen(250_000)));
            check.handle_configured(now + 300 * MS);
            check.handle_event(now + 300 * MS, &good(now));
            let wrong = CheckVerdict::Wrong { heard: Some(250_000) };
            assert_eq!(check.poll_step(), Some(CheckStep::End(wrong)));
        }
    }

    #[test]
    fn errors_in_both_times_of_listening_are_counted_together() {
        let (mut check, now) = listening();
        disturb(&mut check, now, 3);
        check.handle_timeout(now + 300 * MS);
        while check.poll_step().is_some_and(|step| step != CheckStep::Listen(500_000)) {
            check.handle_refused(now + 300 * MS);
        }
        check.handle_configured(now + 300 * MS);
        disturb(&mut check, now, 2);
        check.handle_timeout(now + 600 * MS);
        let wrong = CheckVerdict::Wrong { heard: None };
        assert_eq!(check.poll_step(), Some(CheckStep::End(wrong)));
    }

    #[test]
    fn several_errors_or_a_passive_controller_without_a_frame_show_a_wrong_bit_rate() {
        let passive = CanFrame::new_error(0x4, [0, 0x10, 0, 0, 0, 0, 0, 0]);
        let now = Instant::now();
        for event in [CanEvent::State(BusState::Passive), CanEvent::Received { frame: passive, at: now }] {
            let (mut check, now) = listening();
            check.handle_event(now, &event);
            check.handle_event(now, &CanEvent::State(BusState::Active));
            assert_eq!(check.poll_step(), None, "a frame may still come");
            assert_eq!(finish(&mut check, now).1, CheckVerdict::Wrong { heard: None });
        }
        let (mut check, now) = listening();
        disturb(&mut check, now, 5);
        assert_eq!(finish(&mut check, now).1, CheckVerdict::Wrong { heard: None });
    }

    #[test]
    fn every_bit_rate_that_a_bus_can_have_is_tried_once_for_at_least_three_frames() {
        for wanted in CAN_BIT_RATES {
            let (mut check, now) = (BitRateCheck::new(wanted), Instant::now());
            assert_eq!(check.poll_step(), Some(CheckStep::Listen(wanted)));
            check.handle_configured(now);
            disturb(&mut check, now, 5);
            let (mut tried, _, time) = finish(&mut check, now);
            tried.push(wanted);
            tried.sort_unstable_by(|one, other| other.cmp(one));
            assert_eq!(tried, CAN_BIT_RATES);
            assert!(time <= 1100 * MS, "{time:?}");
        }
        assert_eq!(other_time(5_000), 100 * MS);
        assert_eq!(other_time(500_000), OTHER_TIME);
    }
}
