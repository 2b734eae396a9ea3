//! The peer's clock, as the age of its messages needs it (relay protocol, section 4.4).
//!
//! The two clocks share no origin, and they drift, stand still and jump. Nothing is therefore kept for longer than a
//! minute. All arithmetic is in `i128`: the times are what the peer writes.

use std::collections::VecDeque;
use std::time::Duration;

/// The time for which a measurement counts, in µs.
const WINDOW: u64 = 60_000_000;
/// The time of which the best measurement is kept, in µs. The last part of [`WINDOW`] is at least as long.
const BUCKET: u64 = 5_000_000;
/// The number of buckets in the window, and the one that is begun.
const MAX_BUCKETS: usize = (WINDOW / BUCKET) as usize + 1;
/// How much better an older sample must be: this part of its age. A clock that is wrong by a twentieth makes an older
/// sample wrong by as much.
const AGEING: i128 = 20;
/// The share of `hold` by which a round trip may be negative. Clocks do not run equally fast.
const HOLD_ERROR: i128 = 10;

/// The number of round trips that count for the quality of the connection.
const RECENT: usize = 10;
/// By how much two measurements may contradict each other because messages are handled late, in µs.
const TOLERANCE: i128 = 50_000;

/// The part of a silence by which two clocks may have drifted apart: 500 ppm.
const DRIFT: i128 = 2_000;

/// The content of a `clock` record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Echo {
    /// Our clock in the newest message that the peer had received, in µs; 0 if there was none.
    pub(super) echo: u64,
    /// How long the peer held the echo back, in µs.
    pub(super) hold: u32,
}

/// A measurement of round trip and difference of the clocks, in µs.
#[derive(Debug, Clone, Copy)]
struct Sample {
    at: u64,
    round_trip: u64,
    /// Our clock minus the peer's.
    difference: i128,
}

/// The best measurements of the last minute. The best one has the smallest key.
#[derive(Debug)]
struct Window<T> {
    buckets: VecDeque<Bucket<T>>,
    /// The best bucket before a silence that was longer than the window, until the second bucket behind the silence.
    before_silence: Option<Bucket<T>>,
}

#[derive(Debug)]
struct Bucket<T> {
    since: u64,
    key: i128,
    value: T,
}

impl<T: Copy> Window<T> {
    fn new() -> Self {
        Self { buckets: VecDeque::with_capacity(MAX_BUCKETS), before_silence: None }
    }

    fn insert(&mut self, now: u64, key: i128, value: T) {
        while let Some(last) = self.buckets.pop_front_if(|bucket| now.saturating_sub(bucket.since) >= WINDOW)
        {
            self.before_silence = self.buckets.is_empty().then_some(last);
        }
        match self.buckets.back_mut() {
            Some(last) if now.saturating_sub(last.since) < BUCKET => {
                if key <= last.key {
                    (last.key, last.value) = (key, value);
                }
            }
            last => {
                if last.is_some() {
                    self.before_silence = None;
                }
                self.buckets.push_back(Bucket { since: now, key, value });
            }
        }
    }

    /// The best value; of equally good ones the youngest. After a minute without any, the last one still counts.
    fn best(&self, now: u64) -> Option<T> {
        let recent = self.buckets.iter().rev().filter(|bucket| now.saturating_sub(bucket.since) < WINDOW);
        let best = recent.min_by_key(|bucket| bucket.key).or(self.buckets.back())?;
        Some(best.value)
    }
}

/// What is known about the peer's clock.
#[derive(Debug)]
pub(super) struct PeerClock {
    samples: Window<Sample>,
    /// The last round trips, in µs, the newest last.
    recent: VecDeque<u64>,
    /// The differences between our clock at arrival and the peer's in the message, for a peer without samples.
    transits: Window<i128>,
    /// The peer's clock in the newest message, and when the message arrived.
    newest: Option<(u64, u64)>,
    has_sent_clock: bool,
    /// The peer's clock in the newest numbered message.
    last_numbered: Option<u64>,
    /// The peer has resumed, and no numbered message has come since: it may be another process.
    has_resumed: bool,
}

impl Sample {
    /// Whether both samples cannot be of one clock. A difference is wrong by half of its round trip at most, and by
    /// what the clocks have drifted since.
    fn contradicts(&self, earlier: &Self, hold: i128) -> bool {
        let apart = (self.difference - earlier.difference).abs();
        let possible = i128::from(self.round_trip / 2) + i128::from(earlier.round_trip / 2);
        let drifted = i128::from(self.at.saturating_sub(earlier.at)) / AGEING + hold / HOLD_ERROR;
        apart > possible + drifted + TOLERANCE
    }
}

impl PeerClock {
    pub(super) fn new() -> Self {
        Self {
            samples: Window::new(),
            recent: VecDeque::with_capacity(RECENT),
            transits: Window::new(),
            newest: None,
            has_sent_clock: false,
            last_numbered: None,
            has_resumed: false,
        }
    }

    /// A message that is not a repetition arrived at `now`. The peer's clock was `time` when it made the message.
    pub(super) fn handle_message(&mut self, now: u64, time: u64, echo: Option<Echo>) {
        self.newest = Some((time, now));
        self.has_sent_clock |= echo.is_some();
        let transit = transit(now, time);
        let sample = echo.and_then(|echo| Self::measure(now, transit, echo));
        if let Some((sample, hold)) = sample {
            // what was measured of another clock would make every message too old, or none
            if self.samples.best(now).is_some_and(|earlier| sample.contradicts(&earlier, hold)) {
                self.samples = Window::new();
                self.transits = Window::new();
            }
            let key = i128::from(sample.round_trip) * AGEING - i128::from(now);
            self.samples.insert(now, key, sample);
            if self.recent.len() >= RECENT {
                self.recent.pop_front();
            }
            self.recent.push_back(sample.round_trip);
        }
        self.transits.insert(now, transit, transit);
    }

    /// The sample of a message, and how long the peer held the echo back.
    fn measure(now: u64, transit: i128, Echo { echo, hold }: Echo) -> Option<(Sample, i128)> {
        let hold = i128::from(hold);
        let round_trip = i128::from(now) - i128::from(echo) - hold;
        if echo == 0 || echo > now || round_trip < -(hold / HOLD_ERROR) {
            return None;
        }
        let round_trip = u64::try_from(round_trip).unwrap_or(0);
        let difference = transit - i128::from(round_trip / 2);
        Some((Sample { at: now, round_trip, difference }, hold))
    }

    /// The peer resumes the connection.
    pub(super) fn handle_resumed(&mut self) {
        self.has_resumed = true;
    }

    /// A numbered message that is not a repetition arrived; call [`PeerClock::handle_message`] afterwards. Numbered
    /// messages are made in order. After a resumption, a time before that of the last one is therefore of another
    /// clock: a new process continues the connection. Returns whether that is so.
    pub(super) fn handle_numbered(&mut self, time: u64) -> bool {
        let has_resumed = std::mem::take(&mut self.has_resumed);
        let is_other = has_resumed && self.last_numbered.is_some_and(|last| time < last);
        if is_other {
            *self = Self::new();
        }
        self.last_numbered = Some(time);
        is_other
    }

    /// The echo for a message that is made now.
    pub(super) fn echo(&self, now: u64) -> Echo {
        let echo = self.newest.and_then(|(echo, at)| {
            let hold = u32::try_from(now.saturating_sub(at)).ok()?;
            Some(Echo { echo, hold })
        });
        // a message that is too old for the field is no message to measure by
        echo.unwrap_or(Echo { echo: 0, hold: 0 })
    }

    /// Whether the difference of the clocks was ever measured.
    pub(super) fn is_measured(&self) -> bool {
        !self.samples.buckets.is_empty()
    }

    /// Whether the peer has sent a `clock` record, be it without an echo.
    pub(super) fn has_sent_clock(&self) -> bool {
        self.has_sent_clock
    }

    /// The smallest round trip between both ends.
    pub(super) fn round_trip(&self, now: u64) -> Option<Duration> {
        self.samples.best(now).map(|sample| Duration::from_micros(sample.round_trip))
    }

    /// The last round trips, in µs, the newest last.
    pub(super) fn recent_round_trips(&self) -> &VecDeque<u64> {
        &self.recent
    }

    /// How long ago the peer's clock was `time`.
    pub(super) fn age(&self, now: u64, time: u64) -> Duration {
        let transit = transit(now, time);
        let difference = match self.samples.best(now) {
            // A peer that did not read for a minute echoes a message that it has just read from a full queue, and a
            // message that was held back for a minute has an old echo. Such a sample is wrong by half of its round
            // trip, in either direction. What was measured before the silence decides within that range.
            Some(sample) => {
                let error = i128::from(sample.round_trip / 2);
                let possible = (sample.difference - error, sample.difference + error);
                let before = self.samples.before_silence.as_ref().map(|before| before.value.difference);
                before.map_or(sample.difference, |before| before.clamp(possible.0, possible.1))
            }
            // after a silence the first messages may all have been held back
            None => {
                let best = self.transits.best(now).unwrap_or(transit);
                let before = self.transits.before_silence.as_ref();
                before.map_or(best, |before| {
                    best.min(before.value + i128::from(now.saturating_sub(before.since)) / DRIFT)
                })
            }
        };
        let age = (transit - difference).max(0);
        Duration::from_micros(u64::try_from(age).unwrap_or(u64::MAX))
    }
}

fn transit(now: u64, time: u64) -> i128 {
    i128::from(now) - i128::from(time)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000;

    #[test]
    fn a_peer_that_reads_again_after_minutes_is_not_taken_for_late() {
        let mut clock = PeerClock::new();
        clock.handle_message(SECOND, SECOND, Some(Echo { echo: SECOND, hold: 0 }));
        // the peer reads what was sent 140 s ago, and answers immediately
        let now = 141 * SECOND;
        clock.handle_message(now, now, Some(Echo { echo: SECOND, hold: 0 }));
        assert_eq!(clock.age(now, now), Duration::ZERO);
        assert_eq!(clock.age(now, now - 40 * SECOND), Duration::from_secs(40));
        // and then reads without delay
        let now = 147 * SECOND;
        clock.handle_message(now, now, Some(Echo { echo: now, hold: 0 }));
        assert_eq!(clock.age(now, now - SECOND), Duration::from_secs(1));
    }

    #[test]
    fn messages_that_were_held_back_for_more_than_a_minute_are_old() {
        for has_clock in [false, true] {
            let echo = |echo| has_clock.then_some(Echo { echo, hold: 0 });
            let mut clock = PeerClock::new();
            clock.handle_message(SECOND, SECOND, echo(SECOND));
            // the peer made these messages 110 to 70 s ago, and had received nothing since
            for made in [2, 20, 40] {
                let now = 112 * SECOND;
                clock.handle_message(now, made * SECOND, echo(SECOND));
                // without clocks, some of the silence may be drift
                let age = clock.age(now, made * SECOND).as_secs_f64();
                assert!((age - (112 - made) as f64).abs() < 0.1, "{has_clock}: {age}");
            }
        }
    }

    #[test]
    fn another_clock_of_the_operator_counts_from_its_first_sample() {
        // a new process, whose clock begins again, or is an hour ahead
        for offset in [0, 3600 * SECOND] {
            let mut clock = PeerClock::new();
            for second in 100..120 {
                let now = second * SECOND;
                clock.handle_message(now, now + 7, Some(Echo { echo: now - 40_000, hold: 0 }));
            }
            let now = 121 * SECOND;
            clock.handle_message(now, offset, Some(Echo { echo: now - 600_000, hold: 0 }));
            assert_eq!(clock.age(now, offset), Duration::from_millis(300), "{offset}");
            // a message of the new process that was held back for two seconds
            let now = 124 * SECOND;
            clock.handle_message(now, offset + SECOND, Some(Echo { echo: 122 * SECOND - 600_000, hold: 0 }));
            let age = clock.age(now, offset + SECOND);
            assert!(age >= Duration::from_secs(2), "{offset}: {age:?}");
        }
    }

    #[test]
    fn a_clock_without_samples_that_goes_back_at_a_resumption_is_another_one() {
        let mut clock = PeerClock::new();
        for second in 100..110 {
            assert!(!clock.handle_numbered(second * SECOND));
            clock.handle_message(second * SECOND, second * SECOND, None);
        }
        // an acknowledgement that overtook a repeated message says nothing
        clock.handle_message(111 * SECOND, 111 * SECOND, None);
        clock.handle_resumed();
        assert!(!clock.handle_numbered(110 * SECOND));
        assert!(!clock.handle_numbered(4), "a wrong time");
        assert!(!clock.handle_numbered(110 * SECOND));
        clock.handle_resumed();
        assert!(clock.handle_numbered(5), "a new process");
        clock.handle_message(112 * SECOND, 5, None);
        assert_eq!(clock.age(112 * SECOND, 5), Duration::ZERO);
        assert_eq!(clock.age(113 * SECOND, 5), Duration::from_secs(1));
    }

    #[test]
    fn a_path_that_changes_and_a_clock_that_drifts_are_no_other_clock() {
        let mut clock = PeerClock::new();
        // a clock that is a twentieth slow, and a way to the connector that takes 30 ms or 0.9 s
        for second in 1..60 {
            let (now, delay) = (second * SECOND, if second % 3 == 0 { 900_000 } else { 30_000 });
            let made = now * 19 / 20;
            let arrival = now + delay;
            clock.handle_message(
                arrival,
                made,
                Some(Echo { echo: now.saturating_sub(30_000).max(1), hold: 0 }),
            );
        }
        assert!(clock.samples.buckets.len() >= 8, "the samples of a minute");
    }

    #[test]
    fn no_value_of_the_peer_overflows() {
        let values = [0, 1, SECOND, u64::MAX / 2, u64::MAX - 1, u64::MAX];
        for now in values {
            for time in values {
                for echo in values {
                    for hold in [0, 1, u32::MAX] {
                        let mut clock = PeerClock::new();
                        clock.handle_message(now, time, None);
                        clock.handle_message(now, time, Some(Echo { echo, hold }));
                        let _ = values.map(|time| clock.age(now, time));
                        let _ = (clock.echo(u64::MAX), clock.round_trip(u64::MAX));
                    }
                }
            }
        }
    }

    #[test]
    fn an_echo_that_cannot_be_is_no_measurement() {
        for (echo, hold) in [(0, 0), (3 * SECOND, 0), (SECOND, 2_000_000), (SECOND, u32::MAX)] {
            let mut clock = PeerClock::new();
            clock.handle_message(2 * SECOND, 7, Some(Echo { echo, hold }));
            assert!(!clock.is_measured() && clock.has_sent_clock(), "{echo}, {hold}");
        }
    }

    #[test]
    fn the_age_is_half_the_round_trip_of_the_best_sample() {
        let mut clock = PeerClock::new();
        // the peer's clock is 100 s ahead; 30 ms in each direction
        clock.handle_message(2 * SECOND, 101_970_000, Some(Echo { echo: 1_840_000, hold: 100_000 }));
        assert_eq!(clock.age(2 * SECOND, 101_970_000), Duration::from_millis(30));
        // a worse sample a second later changes nothing
        clock.handle_message(3 * SECOND, 102_470_000, Some(Echo { echo: 2_340_000, hold: 100_000 }));
        assert_eq!(clock.age(3 * SECOND, 102_470_000), Duration::from_millis(530));
        assert_eq!(clock.round_trip(3 * SECOND), Some(Duration::from_millis(60)));
    }

    #[test]
    fn an_echo_names_the_newest_message_and_how_long_ago_it_came() {
        let mut clock = PeerClock::new();
        assert_eq!(clock.echo(SECOND), Echo { echo: 0, hold: 0 });
        clock.handle_message(SECOND, 17, None);
        assert_eq!(clock.echo(3 * SECOND), Echo { echo: 17, hold: 2_000_000 });
        assert_eq!(clock.echo(5_000 * SECOND), Echo { echo: 0, hold: 0 });
    }
}
