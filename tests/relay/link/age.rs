//! The age of messages while clocks drift, jump and stand still, and while the path changes.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::codec::{Header, Payload, PduFlags, Record, Records, Tag};
use connector_hal::can::{CanFrame, CanId};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);
/// The maximum age of frames of raw channels.
const MAX_AGE: Duration = Duration::from_millis(500);
const TAG: Tag = Tag([0; 4]);

/// An operator who sends frames, with a clock and a path of the test's choice.
struct Scene {
    now: Instant,
    connector: Link,
    operator: Link,
    sends_clock: bool,
    /// How fast the operator's clock runs.
    rate: f64,
    /// The operator's clock at the last change of its rate, and the time of that change.
    changed: (Instant, Instant),
    to_connector: VecDeque<(Instant, Bytes)>,
    to_operator: VecDeque<(Instant, Bytes)>,
    /// The time to the connector, and back.
    delay: [Duration; 2],
    /// Until when nothing reaches the connector.
    stalled_until: Instant,
    next_frame: Instant,
    frame_every: Duration,
    /// The ages of the frames that arrived.
    ages: Vec<Duration>,
}

impl Scene {
    fn new(sends_clock: bool) -> Self {
        let start = Instant::now();
        let mut scene = Self {
            now: start,
            connector: Link::new(Role::Connector, TAG, start),
            operator: Link::new(Role::Operator, TAG, start),
            sends_clock,
            rate: 1.0,
            changed: (start, start),
            to_connector: VecDeque::new(),
            to_operator: VecDeque::new(),
            delay: [25 * MILLISECOND; 2],
            stalled_until: start,
            next_frame: start + SECOND,
            frame_every: 100 * MILLISECOND,
            ages: Vec::new(),
        };
        scene.connector.announce_clock();
        scene
    }

    fn operators() -> [Self; 2] {
        [true, false].map(Self::new)
    }

    fn operator_now(&self) -> Instant {
        self.changed.0 + (self.now - self.changed.1).mul_f64(self.rate)
    }

    fn set_rate(&mut self, rate: f64) {
        self.changed = (self.operator_now(), self.now);
        self.rate = rate;
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step();
            let next = [Some(self.next_frame), self.connector.poll_timeout()].into_iter().flatten();
            let fronts = [self.to_connector.front(), self.to_operator.front()].into_iter().flatten();
            let next = next.chain(fronts.map(|(at, _)| *at)).min().unwrap();
            self.now = next.clamp(self.now + 5 * MILLISECOND, end.max(self.now + 5 * MILLISECOND));
        }
    }

    fn step(&mut self) {
        let operator_now = self.operator_now();
        if self.now >= self.next_frame && self.rate > 0.0 {
            self.next_frame = self.now + self.frame_every;
            let frame = CanFrame::new(CanId::standard_truncated(0x100), &[]).unwrap();
            self.operator.push(operator_now, operator_now, 1, Payload::Frame(frame)).unwrap();
        }
        while self.rate > 0.0
            && let Some(message) = self.operator.poll_message(operator_now)
        {
            let at = (self.now + self.delay[0]).max(self.stalled_until);
            self.to_connector.push_back((at, self.as_sent(message)));
        }
        while let Some((_, message)) = self.to_connector.pop_front_if(|(at, _)| *at <= self.now) {
            let Some(incoming) = self.connector.handle_message(self.now, &message).unwrap() else { continue };
            self.ages.extend(incoming.records().map(|record| incoming.age_of(&record)));
        }
        while let Some(message) = self.connector.poll_message(self.now) {
            self.to_operator.push_back((self.now + self.delay[1], self.as_sent(message)));
        }
        while self.rate > 0.0
            && let Some((_, message)) = self.to_operator.pop_front_if(|(at, _)| *at <= self.now)
        {
            self.operator.handle_message(operator_now, &message).unwrap();
        }
    }

    /// The message as it is sent: an operator of the first version of the protocol neither sends clock records nor
    /// reads them.
    fn as_sent(&self, message: Bytes) -> Bytes {
        if self.sends_clock { message } else { without_clock(&message) }
    }

    /// Whether a frame that is sent now, without a stall, would still be sent to the vehicle.
    fn is_usable(&mut self) -> bool {
        self.ages.clear();
        self.run(SECOND);
        !self.ages.is_empty() && self.ages.iter().all(|age| *age <= MAX_AGE)
    }

    /// Whether the frames that are held back for this time are too old.
    fn refuses_stall_of(&mut self, time: Duration) -> bool {
        self.ages.clear();
        self.stalled_until = self.now + time;
        self.run(time + SECOND);
        self.ages.iter().any(|age| *age > MAX_AGE)
    }

    /// Passes a message to the connector that has this time.
    fn poison(&mut self, seq: u32, time: u64) {
        let header = Header { record_count: 0, tag: TAG, seq, ack: 0, time };
        let mut message = Vec::new();
        header.encode(&mut message);
        let _ = self.connector.handle_message(self.now, &message);
    }
}

fn without_clock(message: &Bytes) -> Bytes {
    let header = Header::decode(message).unwrap();
    let records = Records::new(message, &header).map(Result::unwrap);
    let kept: Vec<Record<'_>> =
        records.filter(|record| !matches!(record.payload, Payload::Clock { .. })).collect();
    let mut bytes = Vec::new();
    Header { record_count: kept.len() as u16, ..header }.encode(&mut bytes);
    kept.iter().for_each(|record| record.encode(&mut bytes));
    bytes.into()
}

#[test]
fn frames_pass_again_within_a_minute_after_the_path_became_longer() {
    // 650 ms more to the connector, or in both directions together
    for delay in [[675, 25], [350, 350]] {
        for mut scene in Scene::operators() {
            scene.run(10 * SECOND);
            scene.delay = delay.map(|delay| delay * MILLISECOND);
            scene.run(60 * SECOND);
            assert!(scene.is_usable(), "{delay:?}, {}: {:?}", scene.sends_clock, scene.ages);
            assert!(scene.refuses_stall_of(2 * SECOND), "{}", scene.sends_clock);
        }
    }
}

#[test]
fn drifting_clocks_make_no_frame_too_old_in_eight_hours() {
    for ppm in [-500.0, -50.0, 50.0, 500.0] {
        for mut scene in Scene::operators() {
            scene.set_rate(1.0 + ppm / 1_000_000.0);
            scene.run(SECOND);
            scene.frame_every = SECOND;
            scene.run(8 * 3600 * SECOND);
            let refused = scene.ages.iter().filter(|age| **age > MAX_AGE).count();
            assert_eq!(refused, 0, "{ppm} ppm, {}", scene.sends_clock);
            assert!(scene.refuses_stall_of(2 * SECOND), "{ppm} ppm, {}", scene.sends_clock);
        }
    }
}

#[test]
fn frames_pass_after_eight_hours_without_any() {
    for mut scene in Scene::operators() {
        scene.set_rate(1.0 - 0.0005);
        scene.run(2 * SECOND);
        scene.next_frame = scene.now + 8 * 3600 * SECOND;
        scene.run(8 * 3600 * SECOND);
        scene.run(SECOND);
        assert!(scene.is_usable(), "{}: {:?}", scene.sends_clock, scene.ages);
    }
}

#[test]
fn frames_pass_again_within_a_minute_after_the_operators_clock_stood_still() {
    for mut scene in Scene::operators() {
        scene.run(10 * SECOND);
        scene.set_rate(0.0);
        scene.run(40 * SECOND);
        scene.set_rate(1.0);
        scene.run(60 * SECOND);
        assert!(scene.is_usable(), "{}: {:?}", scene.sends_clock, scene.ages);
        assert!(scene.refuses_stall_of(2 * SECOND), "{}", scene.sends_clock);
    }
}

#[test]
fn frames_pass_again_within_a_minute_after_a_message_with_a_wrong_time() {
    for time in [u64::MAX, u64::MAX / 2, 1 << 40] {
        // a message of its own, and one without a number; a repeated one changes nothing
        for seq in [0, 1, u32::MAX] {
            for mut scene in Scene::operators() {
                scene.run(10 * SECOND);
                scene.poison(seq, time);
                if seq == 1 {
                    assert!(scene.is_usable(), "{seq}, {time}, {}", scene.sends_clock);
                }
                scene.run(60 * SECOND);
                assert!(scene.is_usable(), "{seq}, {time}, {}: {:?}", scene.sends_clock, scene.ages);
                assert!(scene.refuses_stall_of(2 * SECOND), "{seq}, {time}, {}", scene.sends_clock);
            }
        }
    }
}

#[test]
fn a_clock_that_is_five_percent_slow_or_fast_makes_no_frame_too_old() {
    for rate in [0.95, 1.05] {
        let mut scene = Scene::new(true);
        scene.set_rate(rate);
        scene.run(600 * SECOND);
        let refused = scene.ages.iter().filter(|age| **age > MAX_AGE).count();
        assert_eq!(refused, 0, "{rate}");
        assert!(scene.refuses_stall_of(2 * SECOND), "{rate}");
    }
}

#[test]
fn a_stall_before_the_first_frame_is_noticed_by_the_clock() {
    let mut scene = Scene::new(true);
    scene.run(900 * MILLISECOND);
    assert!(scene.refuses_stall_of(3 * SECOND));
    assert!(scene.is_usable());
}

#[test]
fn clock_records_are_sent_each_second_and_cost_an_idle_session_nothing() {
    let start = Instant::now();
    let mut ends = [Link::new(Role::Connector, TAG, start), Link::new(Role::Operator, TAG, start)];
    ends[0].announce_clock();
    let mut clocks = [vec![start], vec![start]];
    for tick in 0..2_000_u32 {
        let now = start + tick * 10 * MILLISECOND;
        // ten seconds of PDUs that are only acknowledged, then ten seconds of silence
        if tick % 10 == 0 && tick < 1_000 {
            let pdu = Payload::Pdu { address: 0, flags: PduFlags::default(), data: &[0x3E, 0] };
            ends[1].push(now, now, 1, pdu).unwrap();
        }
        for from in 0..2 {
            while let Some(message) = ends[from].poll_message(now) {
                assert!(tick < 1_050, "{} bytes in an idle session", message.len());
                let header = Header::decode(&message).unwrap();
                let mut records = Records::new(&message, &header).map(Result::unwrap);
                if records.any(|record| matches!(record.payload, Payload::Clock { .. })) {
                    assert!(now - *clocks[from].last().unwrap() <= SECOND);
                    clocks[from].push(now);
                }
                ends[1 - from].handle_message(now, &message).unwrap();
            }
        }
    }
    for clocks in clocks {
        assert!((10..=25).contains(&clocks.len()), "{clocks:?}");
        assert!(*clocks.last().unwrap() >= start + 9 * SECOND);
    }
}
