//! Detects a dead websocket and measures its round-trip time: a pure state machine (relay protocol, section
//! 1.2).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The timers of [`Liveness::poll_timeout`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LivenessTimer {
    /// A Ping is due.
    Ping,
    /// Nothing was received for too long.
    Dead,
}

/// The payload of a Ping, which identifies its Pong.
pub(crate) type PingPayload = [u8; 8];

/// The liveness of one websocket.
#[derive(Debug)]
pub(crate) struct Liveness {
    interval: Duration,
    next_ping: Instant,
    /// When something was last received, or when the interval changed.
    silent_since: Instant,
    /// The Pings without a Pong, the oldest first.
    outstanding: VecDeque<(u64, Instant)>,
    count: u64,
    round_trip: Option<Duration>,
}

/// How many unanswered Pings are remembered. With a constant interval, the websocket is dead before there are more than
/// three; a change of the interval can add some.
const MAX_OUTSTANDING: usize = 8;
/// After how many intervals without any message a websocket is dead.
const DEAD_INTERVALS: u32 = 3;

impl Liveness {
    /// A websocket made now. The first Ping is due immediately, to measure the round-trip time.
    pub(crate) fn new(now: Instant, interval: Duration) -> Self {
        Self {
            interval,
            next_ping: now,
            silent_since: now,
            outstanding: VecDeque::new(),
            count: 0,
            round_trip: None,
        }
    }

    /// After which silence a websocket with this interval of Pings is dead.
    pub(crate) fn dead_after(interval: Duration) -> Duration {
        interval.saturating_mul(DEAD_INTERVALS)
    }

    /// After which silence the websocket is dead.
    pub(crate) fn silence_allowed(&self) -> Duration {
        Self::dead_after(self.interval)
    }

    /// Changes the interval. A shorter one begins with a Ping, and the silence before it does not count,
    /// because no Ping has asked for an answer.
    pub(crate) fn set_interval(&mut self, now: Instant, interval: Duration) {
        if interval < self.interval {
            self.next_ping = now;
            self.silent_since = now;
        }
        self.interval = interval;
    }

    /// A message of any kind was received.
    pub(crate) fn handle_received(&mut self, now: Instant) {
        self.silent_since = now;
    }

    /// A Pong was received. One that answers no Ping of this websocket (RFC 6455, 5.5.3) does not count for
    /// the round-trip time.
    pub(crate) fn handle_pong(&mut self, now: Instant, payload: &[u8]) {
        self.silent_since = now;
        let Ok(payload) = PingPayload::try_from(payload) else { return };
        let number = u64::from_be_bytes(payload);
        let Some(index) = self.outstanding.iter().position(|(sent, _)| *sent == number) else { return };
        // one Pong may answer several Pings, of which it repeats the most recent
        let Some((_, sent_at)) = self.outstanding.drain(..=index).next_back() else { return };
        let sample = now.saturating_duration_since(sent_at);
        // smoothed as TCP's round-trip time is (RFC 6298)
        self.round_trip = Some(match self.round_trip {
            Some(smoothed) => (smoothed * 7 + sample) / 8,
            None => sample,
        });
    }

    /// The Ping to send now, if one is due.
    pub(crate) fn poll_ping(&mut self, now: Instant) -> Option<PingPayload> {
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + self.interval;
        self.count += 1;
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((self.count, now));
        Some(self.count.to_be_bytes())
    }

    /// Whether nothing was received for too long.
    pub(crate) fn is_dead(&self, now: Instant) -> bool {
        now >= self.silent_since + self.silence_allowed()
    }

    /// The next deadline, and its reason.
    pub(crate) fn poll_timeout(&self) -> (Instant, LivenessTimer) {
        let dead = self.silent_since + self.silence_allowed();
        if dead < self.next_ping {
            (dead, LivenessTimer::Dead)
        } else {
            (self.next_ping, LivenessTimer::Ping)
        }
    }

    /// The smoothed round-trip time; `None` before the first Pong.
    pub(crate) fn round_trip_time(&self) -> Option<Duration> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const DEAD_AFTER: Duration = Duration::from_secs(15);
    const MS: Duration = Duration::from_millis(1);
    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_ping_is_sent_immediately_and_every_five_seconds() {
        let start = Instant::now();
        let mut link = Liveness::new(start, INTERVAL);
        let mut sent = Vec::new();
        for step in 0..200 {
            let now = start + step * 100 * MS;
            link.handle_received(now);
            if link.poll_ping(now).is_some() {
                sent.push(now - start);
            }
        }
        assert_eq!(sent, [0, 5, 10, 15].map(Duration::from_secs));
    }

    #[test]
    fn a_link_is_dead_after_exactly_fifteen_seconds_of_silence() {
        let start = Instant::now();
        let mut link = Liveness::new(start, INTERVAL);
        link.handle_received(start + 1234 * MS);
        let mut now = start;
        let died = loop {
            let (at, timer) = link.poll_timeout();
            assert!(at > now || now == start, "no time passes");
            now = at;
            if timer == LivenessTimer::Dead {
                assert!(link.is_dead(now));
                break now;
            }
            assert!(!link.is_dead(now));
            link.poll_ping(now).unwrap();
        };
        assert_eq!(died, start + 1234 * MS + DEAD_AFTER);
    }

    #[test]
    fn the_round_trip_is_smoothed() {
        let mut now = Instant::now();
        let mut link = Liveness::new(now, INTERVAL);
        assert_eq!(link.round_trip_time(), None);
        for (sample, smoothed) in [(80, 80), (160, 90), (90, 90), (10, 80)] {
            let payload = link.poll_ping(now).unwrap();
            link.handle_pong(now + sample * MS, &payload);
            assert_eq!(link.round_trip_time(), Some(smoothed * MS));
            now += INTERVAL;
        }
    }

    #[test]
    fn an_unsolicited_pong_only_shows_that_the_link_is_alive() {
        let start = Instant::now();
        let mut link = Liveness::new(start, INTERVAL);
        let payload = link.poll_ping(start).unwrap();
        let now = start + 14_000 * MS;
        link.handle_pong(now, b"");
        link.handle_pong(now, &[0xFF; 8]);
        link.handle_pong(now, &[0; 125]);
        assert_eq!(link.round_trip_time(), None);
        assert!(!link.is_dead(start + DEAD_AFTER));
        link.handle_pong(now, &payload);
        link.handle_pong(now + INTERVAL, &payload);
        assert_eq!(link.round_trip_time(), Some(14_000 * MS), "answered twice, counted once");
    }
    #[test]
    fn an_idle_link_is_pinged_every_thirty_seconds_and_dead_after_ninety() {
        let start = Instant::now();
        let mut link = Liveness::new(start, 30 * SECOND);
        let pings = (0..=60).filter(|second| link.poll_ping(start + *second * SECOND).is_some());
        assert_eq!(pings.collect::<Vec<_>>(), [0, 30, 60]);
        assert!(!link.is_dead(start + 89 * SECOND));
        assert!(link.is_dead(start + 90 * SECOND));
    }

    #[test]
    fn an_idle_link_that_gets_an_operator_is_pinged_and_has_fifteen_seconds() {
        let start = Instant::now();
        let mut link = Liveness::new(start, 30 * SECOND);
        link.poll_ping(start).unwrap();
        let opened = start + 29 * SECOND;
        link.set_interval(opened, INTERVAL);
        assert!(!link.is_dead(opened), "the silence before belongs to the long interval");
        assert!(link.poll_ping(opened).is_some());
        assert!(!link.is_dead(opened + DEAD_AFTER - MS));
        assert!(link.is_dead(opened + DEAD_AFTER));

        link.handle_received(opened);
        link.set_interval(opened, 30 * SECOND);
        assert!(link.poll_ping(opened + INTERVAL).is_some(), "the Ping that was due anyway");
        assert!(link.poll_ping(opened + 2 * INTERVAL).is_none());
        assert!(!link.is_dead(opened + 89 * SECOND));
    }
}
