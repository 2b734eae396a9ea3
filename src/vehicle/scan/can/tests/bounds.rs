//! The end of a scan: by its deadline, on a bus that falls asleep, and while it is withheld.

use super::*;

/// A scan whose frames are acknowledged if `acknowledges` returns true for their number, and by an ECU at 0x7E0
/// that answers then.
struct Bus {
    scanner: Scanner,
    start: Instant,
    now: Instant,
    sent: u32,
    unanswered: Option<CanFrame>,
}

impl Bus {
    fn new() -> Self {
        let now = Instant::now();
        Self { scanner: Scanner::new(settings(), now), start: now, now, sent: 0, unanswered: None }
    }

    fn step(&mut self, acknowledges: &impl Fn(u32) -> bool, may_send: bool) {
        self.now += Duration::from_micros(500);
        if self.scanner.poll_timeout().is_some_and(|at| at <= self.now) {
            self.scanner.handle_timeout(self.now);
        }
        if let Some(question) = self.unanswered.take()
            && is_tester_present(&question, 0x7E0)
        {
            self.scanner.handle_frame(self.now, &frame(0x7E8, &[2, 0x7E, 0]));
        }
        if may_send && let Some(question) = self.scanner.poll_transmit(self.now, |_| false) {
            self.sent += 1;
            if acknowledges(self.sent) {
                self.scanner.handle_transmitted(self.now);
                self.unanswered = Some(question);
            }
        }
    }

    /// Runs until the scan ends.
    fn run(&mut self, acknowledges: impl Fn(u32) -> bool) -> (ScanOutcome, Vec<EcuFound>) {
        loop {
            self.step(&acknowledges, true);
            assert!(self.now - self.start < Duration::from_secs(16), "the scan never ends");
            if let Some(outcome) = self.scanner.outcome() {
                return (outcome, self.scanner.ecus());
            }
        }
    }
}

fn engine() -> Vec<EcuFound> {
    vec![EcuFound::isotp(id(0x7E0), id(0x7E8))]
}

#[test]
fn a_bus_that_falls_asleep_ends_the_scan_with_the_ecus_found() {
    let mut bus = Bus::new();
    assert_eq!(bus.run(|number| number < 700), (ScanOutcome::FellAsleep, engine()));
    assert!(bus.sent < 715, "{}", bus.sent);
    // before any ECU was found, too
    assert_eq!(Bus::new().run(|number| number < 20), (ScanOutcome::FellAsleep, vec![]));
}

#[test]
fn a_lost_acknowledgement_never_ends_a_scan() {
    for lost in [2, 3, 40, 300, 310, 700] {
        let mut bus = Bus::new();
        assert_eq!(bus.run(|number| number != lost), (ScanOutcome::Done, engine()), "frame {lost}");
    }
}

#[test]
fn a_scan_that_heard_a_node_does_not_take_the_bus_for_empty() {
    let mut bus = Bus::new();
    bus.scanner.handle_frame(bus.now, &frame(0x123, &[0x21, 1, 2, 3, 4, 5, 6, 7]));
    assert_eq!(bus.run(|_| false), (ScanOutcome::FellAsleep, vec![]));
    assert!(bus.sent <= 3, "{}", bus.sent);
    assert_eq!(Bus::new().run(|_| false), (ScanOutcome::NotAcknowledged, vec![]));
}

#[test]
fn a_failed_frame_after_an_acknowledged_one_is_no_empty_bus() {
    let mut bus = Bus::new();
    while bus.sent < 10 {
        bus.step(&|_| true, true);
    }
    bus.step(&|_| false, true);
    bus.scanner.handle_transmit_failed(bus.now);
    // outcomes without a frame mean nothing
    (0..10).for_each(|_| bus.scanner.handle_transmit_failed(bus.now));
    assert_eq!(bus.run(|_| true), (ScanOutcome::Done, engine()));
}

#[test]
fn a_refused_first_question_says_nothing_about_the_bus() {
    let mut bus = Bus::new();
    let question = loop {
        bus.now += Duration::from_millis(1);
        bus.scanner.handle_timeout(bus.now);
        if let Some(question) = bus.scanner.poll_transmit(bus.now, |_| false) {
            break question;
        }
    };
    bus.scanner.handle_refused();
    assert_eq!((question.id(), bus.scanner.outcome()), (id(0x7DF), None));
    assert_eq!(bus.run(|_| true), (ScanOutcome::Done, engine()));
}

#[test]
fn a_scan_that_is_withheld_for_seconds_continues_and_asks_the_speed_first() {
    let mut bus = Bus::new();
    while bus.sent < 100 {
        bus.step(&|_| true, true);
    }
    let withheld_at = bus.now;
    while bus.now - withheld_at < Duration::from_secs(4) {
        bus.step(&|_| true, false);
    }
    let mut asked = Vec::new();
    while asked.len() < 4 {
        bus.now += Duration::from_millis(1);
        if let Some(frame) = bus.scanner.poll_transmit(bus.now, |_| false) {
            bus.scanner.handle_transmitted(bus.now);
            asked.push(frame);
        }
        bus.scanner.handle_timeout(bus.now);
    }
    let about_motion = asked.iter().filter(|frame| is_about_motion(frame)).count();
    assert_eq!(about_motion, 2, "the speed is asked once at each identifier: {asked:?}");
    assert!(asked[..2].iter().all(is_about_motion), "{asked:?}");
    assert_eq!(bus.run(|_| true), (ScanOutcome::Done, engine()));
}

#[test]
fn a_scan_that_is_withheld_for_good_ends_by_its_deadline() {
    let mut bus = Bus::new();
    while bus.scanner.outcome().is_none() {
        bus.step(&|_| true, bus.sent < 500);
        assert!(bus.now - bus.start < Duration::from_secs(16), "the scan never ends");
    }
    assert_eq!((bus.scanner.outcome(), bus.scanner.ecus()), (Some(ScanOutcome::OutOfTime), engine()));
    // without handle_timeout, it sends nothing after its deadline
    let mut scanner = Scanner::new(settings(), bus.start);
    scanner.handle_timeout(bus.start + Duration::from_secs(3));
    assert_eq!(scanner.poll_transmit(bus.start + Duration::from_secs(15), |_| false), None);
}

#[test]
fn a_vehicle_that_answers_at_random_is_scanned_in_time_and_no_ecu_is_invented() {
    for seed in 1..=6_u32 {
        let mut state = seed;
        let mut random = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let ecus = [(0x7E0, 0x7E8), (0x712, 0x77C)];
        let mut last = Duration::ZERO;
        let (outcome, _, found) = scan_with(with_low_ids(), vec![], |at, question| {
            last = at;
            let mut answers = vec![(Duration::from_millis(5), frame(random() % 0x800, &[2, 0x7E, 0]))];
            if question.id().is_extended() {
                let answer = CanId::extended_truncated(0x18DA_F100 | (random() % 0x100));
                answers.push((Duration::from_millis(5), CanFrame::new(answer, &[2, 0x7E, 0]).unwrap()));
            }
            let asked = ecus.iter().filter(|(request, _)| is_tester_present(question, *request));
            answers
                .extend(asked.map(|(_, answer)| (Duration::from_millis(8), frame(*answer, &[2, 0x7E, 0]))));
            answers
        });
        assert!(matches!(outcome, ScanOutcome::Done | ScanOutcome::OutOfTime), "{outcome}");
        assert!(last <= Duration::from_secs(15), "{last:?}");
        let found = found.iter().map(|ecu| (ecu.request.raw(), ecu.response.raw()));
        let invented: Vec<_> = found.filter(|ecu| !ecus.contains(ecu)).collect();
        assert_eq!(invented, [], "seed {seed}");
    }
}

#[test]
fn a_node_that_answers_each_request_at_random_is_never_an_ecu() {
    let mut scans_with_the_ecu = 0;
    // the first identifier of the answers, and the number of identifiers
    for (first_id, count) in [(0x700, 0x100), (0x700, 0x80), (0x7A0, 0x40), (0x7C0, 0x10)] {
        for seed in 1..=20_u32 {
            let mut state = seed;
            let mut random = move || {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state >> 8
            };
            let (outcome, _, found) = scan(|_, question| {
                if is_about_motion(question) {
                    return vec![];
                }
                let answer = frame(first_id + random() % count, &[2, 0x7E, 0]);
                let mut answers = vec![(Duration::from_millis(4), answer)];
                if is_tester_present(question, 0x7E0) {
                    answers.push((Duration::from_millis(5), frame(0x7E8, &[2, 0x7E, 0])));
                }
                answers
            });
            assert!(matches!(outcome, ScanOutcome::Done | ScanOutcome::OutOfTime), "{outcome}");
            let is_invented = |ecu: &EcuFound| !engine().contains(ecu);
            assert!(!found.iter().any(is_invented), "seed {seed}, {count} identifiers: {found:?}");
            scans_with_the_ecu += found.len();
        }
    }
    // of 80; in the others, the time was up before its turn came
    assert!(scans_with_the_ecu >= 60, "{scans_with_the_ecu}");
}

#[test]
fn an_answer_without_a_request_makes_every_ecu_answer_three_times_more() {
    let mut strays = 0;
    let (outcome, asked, ecus) = scan(|_, question| {
        let mut answers = Vec::new();
        if is_tester_present(question, 0x7E0) {
            answers.push((Duration::from_millis(10), frame(0x7E8, &[2, 0x7E, 0])));
        }
        if is_tester_present(question, 0x701) && strays == 0 {
            strays += 1;
            answers.push((Duration::from_millis(10), frame(0x5A1, &[2, 0x7E, 0])));
        }
        answers
    });
    assert_eq!((outcome, ecus), (ScanOutcome::Done, vec![EcuFound::isotp(id(0x7E0), id(0x7E8))]));
    assert_eq!(asked.iter().filter(|(_, frame)| is_tester_present(frame, 0x7E0)).count(), 5);
}
