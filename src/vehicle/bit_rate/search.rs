//! Finding a bus's bit rate by listening, so that nothing is sent at a wrong one.

use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{CanFrame, FrameKind};

/// This many errors without a single frame are a wrong bit rate, without listening to the end.
const ERRORS_ENOUGH: u32 = 16;

/// SocketCAN's error classes (`linux/can/error.h`) that tell about our controller, not about the bus.
const CLASSES_OF_CONTROLLER: u32 =
    CLASS_TX_TIMEOUT | CLASS_LOST_ARBITRATION | CLASS_CONTROLLER | CLASS_RESTARTED;
const CLASS_TX_TIMEOUT: u32 = 0x001;
const CLASS_LOST_ARBITRATION: u32 = 0x002;
const CLASS_CONTROLLER: u32 = 0x004;
const CLASS_RESTARTED: u32 = 0x100;
/// In the second byte of an error frame of the controller class: it counted many receive errors.
const DETAIL_RX_WARNING_OR_PASSIVE: u8 = 0x04 | 0x10;

/// How to search.
#[derive(Debug, Clone)]
pub struct SearchSettings {
    /// The bit rates to try, the likeliest first, in bit/s.
    pub bit_rates: Vec<u32>,
    /// How long to listen at each.
    pub listen_time: Duration,
    /// How long to listen in all at most, from when the adapter is first set up, however little was heard.
    pub listen_budget: Duration,
    /// Whether the adapter can listen without acknowledging. If not, its first bit rate is taken as configured.
    pub listen_only: bool,
}

/// What the search wants done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Set the adapter up so, then call [`BitRateSearch::handle_configured`] or [`BitRateSearch::handle_refused`].
    Configure {
        /// In bit/s.
        bit_rate: u32,
        /// Without acknowledging anything.
        listen_only: bool,
    },
    /// The adapter is set up: ask for the VIN.
    Ask {
        /// The bit rate that is set, in bit/s.
        bit_rate: u32,
        /// Frames were heard, so the bit rate is right. If not, only one frame may be sent at first, and if nobody
        /// acknowledges it, [`BitRateSearch::handle_unacknowledged`] is to be called.
        alive: bool,
    },
    /// Nothing may be sent on this bus.
    GiveUp(GiveUp),
}

/// Why a bus is not asked for the VIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GiveUp {
    /// The bus is in use, but at none of the bit rates.
    UnknownBitRate,
    /// The bus is silent, and nobody acknowledges a frame.
    NoNode,
    /// The adapter can be set to none of the bit rates.
    Refused,
}

/// What is known of a bit rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Untried,
    Silent,
    Errors,
    Unacknowledged,
    Refused,
}

#[derive(Debug, Clone, Copy)]
enum Phase {
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
/// After each call, take [`BitRateSearch::poll_step`] and look at [`BitRateSearch::poll_timeout`] again.
#[derive(Debug, Clone)]
pub struct BitRateSearch {
    settings: SearchSettings,
    verdicts: Vec<Verdict>,
    /// Which bit rate is at work.
    index: usize,
    /// When the adapter was first set up.
    began: Option<Instant>,
    phase: Phase,
    step: Option<Step>,
}

impl BitRateSearch {
    /// Begins the search.
    pub fn new(mut settings: SearchSettings) -> Self {
        if !settings.listen_only {
            settings.bit_rates.truncate(1);
        }
        let verdicts = vec![Verdict::Untried; settings.bit_rates.len()];
        // the turn goes to the one after the last: the first
        let index = verdicts.len().saturating_sub(1);
        let mut search = Self { settings, verdicts, index, began: None, phase: Phase::Ended, step: None };
        search.go_on();
        search
    }

    /// The adapter is set up as the last step said.
    pub fn handle_configured(&mut self, now: Instant) {
        self.began.get_or_insert(now);
        match self.phase {
            Phase::Tuning => {
                if !self.settings.listen_only {
                    self.rule_out_others();
                }
                self.phase = Phase::Listening { until: now + self.settings.listen_time, errors: 0 };
            }
            Phase::Opening { alive } => self.ask(alive),
            Phase::Listening { .. } | Phase::Asking | Phase::Ended => {}
        }
    }

    /// The adapter can't be set up as the last step said.
    pub fn handle_refused(&mut self) {
        if let Phase::Tuning | Phase::Opening { .. } = self.phase {
            self.conclude(Verdict::Refused);
            self.go_on();
        }
    }

    /// A frame was received.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if tells_bus_error(frame) {
            self.handle_error(now);
        } else if let Phase::Listening { .. } = self.phase
            && !frame.is_error()
        {
            self.open(true);
        }
    }

    /// The controller's state changed.
    pub fn handle_bus_state(&mut self, now: Instant, state: BusState) {
        if state != BusState::Active {
            self.handle_error(now);
        }
    }

    /// The deadline of [`BitRateSearch::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if let Phase::Listening { until, errors } = self.phase
            && now >= until
        {
            self.conclude(if errors > 0 { Verdict::Errors } else { Verdict::Silent });
            self.listen_again_until(now);
        }
    }

    /// Nobody acknowledged the only frame that was sent.
    pub fn handle_unacknowledged(&mut self) {
        if let Phase::Asking = self.phase {
            self.conclude(Verdict::Unacknowledged);
            self.go_on();
        }
    }

    /// The next step, given once.
    pub fn poll_step(&mut self) -> Option<Step> {
        self.step.take()
    }

    /// When [`BitRateSearch::handle_timeout`] is to be called.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            Phase::Listening { until, .. } => Some(until),
            _ => None,
        }
    }

    fn handle_error(&mut self, now: Instant) {
        let Phase::Listening { errors, .. } = &mut self.phase else { return };
        *errors += 1;
        if *errors >= ERRORS_ENOUGH {
            self.conclude(Verdict::Errors);
            self.listen_again_until(now);
        }
    }

    fn conclude(&mut self, verdict: Verdict) {
        if let Some(at) = self.verdicts.get_mut(self.index) {
            *at = verdict;
        }
    }

    /// Goes on after listening. A bus that is in use, but not at a bit rate with errors, is given time for a rare
    /// frame that shows its bit rate, since it can't be found by asking.
    fn listen_again_until(&mut self, now: Instant) {
        let latest = self.began.map(|began| began + self.settings.listen_budget);
        let may_wait = latest.is_some_and(|latest| now + self.settings.listen_time <= latest);
        if !self.verdicts.contains(&Verdict::Untried)
            && self.verdicts.contains(&Verdict::Errors)
            && may_wait
            && let Some(index) = self.next(Verdict::Silent)
        {
            self.tune(index);
        } else {
            self.go_on();
        }
    }

    fn go_on(&mut self) {
        if let Some(index) = self.next(Verdict::Untried) {
            self.tune(index);
        } else if self.verdicts.iter().all(|verdict| *verdict == Verdict::Refused) {
            self.take_as_configured();
        } else if self.verdicts.contains(&Verdict::Errors) {
            self.give_up(GiveUp::UnknownBitRate);
        } else if let Some(index) = self.verdicts.iter().position(|verdict| *verdict == Verdict::Silent) {
            self.index = index;
            self.open(false);
        } else {
            self.give_up(GiveUp::NoNode);
        }
    }

    /// Whose turn it is of the bit rates with this verdict.
    fn next(&self, verdict: Verdict) -> Option<usize> {
        let count = self.verdicts.len();
        let mut in_turn = (self.index + 1..count).chain(0..count.min(self.index + 1));
        in_turn.find(|index| self.verdicts.get(*index) == Some(&verdict))
    }

    /// An adapter that refuses to listen only is used as the system has set it up.
    fn take_as_configured(&mut self) {
        if self.settings.listen_only {
            self.settings.listen_only = false;
            self.verdicts.fill(Verdict::Untried);
            self.go_on();
        } else {
            self.give_up(GiveUp::Refused);
        }
    }

    /// What the system has set up stays: an adapter that takes part in everything disturbs at a wrong bit rate.
    fn rule_out_others(&mut self) {
        for (index, verdict) in self.verdicts.iter_mut().enumerate() {
            if index != self.index {
                *verdict = Verdict::Refused;
            }
        }
    }

    fn tune(&mut self, index: usize) {
        self.index = index;
        self.phase = Phase::Tuning;
        self.step =
            Some(Step::Configure { bit_rate: self.bit_rate(), listen_only: self.settings.listen_only });
    }

    /// Makes the adapter one that may ask.
    fn open(&mut self, alive: bool) {
        if self.settings.listen_only {
            self.phase = Phase::Opening { alive };
            self.step = Some(Step::Configure { bit_rate: self.bit_rate(), listen_only: false });
        } else {
            self.ask(alive);
        }
    }

    fn ask(&mut self, alive: bool) {
        self.phase = Phase::Asking;
        self.step = Some(Step::Ask { bit_rate: self.bit_rate(), alive });
    }

    fn give_up(&mut self, why: GiveUp) {
        self.phase = Phase::Ended;
        self.step = Some(Step::GiveUp(why));
    }

    fn bit_rate(&self) -> u32 {
        self.settings.bit_rates.get(self.index).copied().unwrap_or_default()
    }
}

/// Whether an error frame tells of what happened on the bus, as frames of another bit rate do.
fn tells_bus_error(frame: &CanFrame) -> bool {
    let FrameKind::Error { classes } = frame.kind() else { return false };
    let counted = classes & CLASS_CONTROLLER != 0
        && frame.data().get(1).is_some_and(|detail| detail & DETAIL_RX_WARNING_OR_PASSIVE != 0);
    counted || classes & !CLASSES_OF_CONTROLLER != 0
}

#[cfg(test)]
mod tests {
    use connector_hal::can::CanId;

    use super::*;

    const LISTEN: Duration = Duration::from_millis(100);

    struct Bench {
        search: BitRateSearch,
        now: Instant,
    }

    impl Bench {
        fn new(listen_only: bool) -> Self {
            let now = Instant::now();
            let settings = SearchSettings {
                bit_rates: vec![500_000, 250_000],
                listen_time: LISTEN,
                listen_budget: Duration::from_millis(700),
                listen_only,
            };
            Self { search: BitRateSearch::new(settings), now }
        }

        fn expect_listening(&mut self, bit_rate: u32) {
            let step = self.search.poll_step();
            assert_eq!(step, Some(Step::Configure { bit_rate, listen_only: true }));
            self.search.handle_configured(self.now);
        }

        fn expect_asking(&mut self, bit_rate: u32, alive: bool) {
            let step = self.search.poll_step();
            assert_eq!(step, Some(Step::Configure { bit_rate, listen_only: false }));
            self.search.handle_configured(self.now);
            assert_eq!(self.search.poll_step(), Some(Step::Ask { bit_rate, alive }));
        }

        fn expect_giving_up(&mut self, why: GiveUp) {
            assert_eq!(self.search.poll_step(), Some(Step::GiveUp(why)));
            assert_eq!(self.search.poll_step(), None);
            assert_eq!(self.search.poll_timeout(), None);
        }

        fn time_passes(&mut self) {
            self.now = self.search.poll_timeout().unwrap();
            self.search.handle_timeout(self.now);
        }

        fn hear(&mut self, frame: CanFrame) {
            self.search.handle_frame(self.now, &frame);
        }
    }

    fn data() -> CanFrame {
        CanFrame::new(CanId::standard(0x123).unwrap(), &[1, 2]).unwrap()
    }

    fn error() -> CanFrame {
        const PROTOCOL_VIOLATION: u32 = 0x8;
        CanFrame::new_error(PROTOCOL_VIOLATION, [0; 8])
    }

    #[test]
    fn the_first_frame_ends_the_listening() {
        let mut bench = Bench::new(true);
        bench.expect_listening(500_000);
        bench.hear(data());
        bench.expect_asking(500_000, true);
    }

    #[test]
    fn a_bit_rate_with_only_errors_is_left_for_the_next() {
        let mut bench = Bench::new(true);
        bench.expect_listening(500_000);
        bench.hear(error());
        bench.time_passes();
        bench.expect_listening(250_000);
        bench.hear(data());
        bench.expect_asking(250_000, true);
    }

    #[test]
    fn many_errors_end_the_listening_early() {
        let mut bench = Bench::new(true);
        bench.expect_listening(500_000);
        for _ in 0..ERRORS_ENOUGH {
            assert_eq!(bench.search.poll_step(), None);
            bench.hear(error());
        }
        bench.expect_listening(250_000);
    }

    #[test]
    fn a_bus_with_errors_at_every_bit_rate_is_never_asked() {
        let mut bench = Bench::new(true);
        bench.expect_listening(500_000);
        bench.hear(error());
        bench.time_passes();
        bench.expect_listening(250_000);
        bench.search.handle_bus_state(bench.now, BusState::Passive);
        bench.time_passes();
        bench.expect_giving_up(GiveUp::UnknownBitRate);
    }

    #[test]
    fn a_bus_in_use_is_asked_only_where_a_frame_was_heard() {
        let mut bench = Bench::new(true);
        bench.expect_listening(500_000);
        bench.time_passes();
        bench.expect_listening(250_000);
        bench.hear(error());
        bench.time_passes();
        bench.expect_listening(500_000);
        bench.hear(data());
        bench.expect_asking(500_000, true);
    }

    #[test]
    fn waiting_for_a_frame_that_shows_the_bit_rate_ends_in_time() {
        let mut bench = Bench::new(true);
        bench.expect_listening(500_000);
        bench.hear(error());
        bench.time_passes();
        let mut waited = 0;
        while let Some(Step::Configure { bit_rate, .. }) = bench.search.poll_step() {
            assert_eq!(bit_rate, 250_000);
            bench.search.handle_configured(bench.now);
            bench.time_passes();
            waited += 1;
        }
        assert_eq!(waited, 6);
        assert_eq!(bench.search.poll_timeout(), None);
    }

    #[test]
    fn a_silent_bus_is_asked_at_one_bit_rate_after_the_other_until_someone_acknowledges() {
        let mut bench = Bench::new(true);
        bench.expect_listening(500_000);
        bench.time_passes();
        bench.expect_listening(250_000);
        bench.time_passes();
        bench.expect_asking(500_000, false);
        bench.search.handle_unacknowledged();
        bench.expect_asking(250_000, false);
        bench.search.handle_unacknowledged();
        bench.expect_giving_up(GiveUp::NoNode);
    }

    #[test]
    fn an_adapter_that_cannot_listen_only_stays_at_its_bit_rate() {
        let mut bench = Bench::new(false);
        let step = bench.search.poll_step();
        assert_eq!(step, Some(Step::Configure { bit_rate: 500_000, listen_only: false }));
        bench.search.handle_configured(bench.now);
        bench.hear(data());
        assert_eq!(bench.search.poll_step(), Some(Step::Ask { bit_rate: 500_000, alive: true }));

        let mut bench = Bench::new(false);
        bench.search.poll_step();
        bench.search.handle_configured(bench.now);
        bench.hear(error());
        bench.time_passes();
        bench.expect_giving_up(GiveUp::UnknownBitRate);
    }

    #[test]
    fn an_interface_set_up_by_the_system_is_used_as_it_is() {
        let mut bench = Bench::new(true);
        for bit_rate in [500_000, 250_000] {
            let step = bench.search.poll_step();
            assert_eq!(step, Some(Step::Configure { bit_rate, listen_only: true }));
            bench.search.handle_refused();
        }
        let step = bench.search.poll_step();
        assert_eq!(step, Some(Step::Configure { bit_rate: 500_000, listen_only: false }));
        bench.search.handle_refused();
        let step = bench.search.poll_step();
        assert_eq!(step, Some(Step::Configure { bit_rate: 250_000, listen_only: false }));
        bench.search.handle_configured(bench.now);
        bench.time_passes();
        assert_eq!(bench.search.poll_step(), Some(Step::Ask { bit_rate: 250_000, alive: false }));
        bench.search.handle_unacknowledged();
        bench.expect_giving_up(GiveUp::NoNode);
    }

    #[test]
    fn an_adapter_that_can_be_set_to_none_of_the_bit_rates_is_given_up() {
        let mut bench = Bench::new(true);
        for _ in 0..4 {
            assert!(matches!(bench.search.poll_step(), Some(Step::Configure { .. })));
            bench.search.handle_refused();
        }
        bench.expect_giving_up(GiveUp::Refused);
    }

    #[test]
    fn an_error_frame_about_the_controller_itself_is_no_wrong_bit_rate() {
        const CONTROLLER_IS_ACTIVE_AGAIN: [u8; 8] = [0, 0x40, 0, 0, 0, 0, 0, 0];
        assert!(!tells_bus_error(&CanFrame::new_error(CLASS_CONTROLLER, CONTROLLER_IS_ACTIVE_AGAIN)));
        assert!(!tells_bus_error(&CanFrame::new_error(CLASS_RESTARTED, [0; 8])));
        assert!(tells_bus_error(&CanFrame::new_error(CLASS_CONTROLLER, [0, 0x10, 0, 0, 0, 0, 0, 0])));
        assert!(tells_bus_error(&error()));
        assert!(!tells_bus_error(&data()));
    }
}
