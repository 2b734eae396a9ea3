//! Whether a link is alive, and how long its round trip takes: a pure state machine (relay protocol, section 1).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What [`Liveness::poll_timeout`] waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Timer {
    /// A Ping is due.
    Ping,
    /// Nothing was received for too long.
    Dead,
}

/// What a Ping carries, so that its Pong can be told.
pub type PingPayload = [u8; 8];

/// The liveness of one link.
#[derive(Debug)]
pub struct Liveness {
    ping_interval: Duration,
    dead_after: Duration,
    next_ping: Instant,
    last_received: Instant,
    /// The Pings without a Pong, the oldest first; no more than can be sent before the link is dead.
    outstanding: VecDeque<(u64, Instant)>,
    count: u64,
    round_trip: Option<Duration>,
}

/// So many Pings are remembered; the link is dead before more are outstanding, if intervals are sensible.
const MAX_OUTSTANDING: usize = 8;

impl Liveness {
    /// A link made now; its first Ping is due at once, to learn the round trip.
    pub fn new(now: Instant, ping_interval: Duration, dead_after: Duration) -> Self {
        Self {
            ping_interval,
            dead_after,
            next_ping: now,
            last_received: now,
            outstanding: VecDeque::new(),
            count: 0,
            round_trip: None,
        }
    }

    /// Something was received, whatever it was.
    pub fn handle_received(&mut self, now: Instant) {
        self.last_received = now;
    }

    /// A Pong was received; one that answers no Ping of ours (RFC 6455, 5.5.3) tells nothing about the round trip.
    pub fn handle_pong(&mut self, now: Instant, payload: &[u8]) {
        self.last_received = now;
        let Ok(payload) = PingPayload::try_from(payload) else { return };
        let number = u64::from_be_bytes(payload);
        let Some(index) = self.outstanding.iter().position(|(sent, _)| *sent == number) else { return };
        // A Pong may answer only the most recent of several Pings.
        let Some((_, sent_at)) = self.outstanding.drain(..=index).next_back() else { return };
        let sample = now.saturating_duration_since(sent_at);
        // as TCP smooths its own (RFC 6298)
        self.round_trip = Some(match self.round_trip {
            Some(smoothed) => (smoothed * 7 + sample) / 8,
            None => sample,
        });
    }

    /// A Ping to be sent now, if one is due.
    pub fn poll_ping(&mut self, now: Instant) -> Option<PingPayload> {
        if now < self.next_ping {
            return None;
        }
        self.next_ping = now + self.ping_interval;
        self.count += 1;
        if self.outstanding.len() == MAX_OUTSTANDING {
            self.outstanding.pop_front();
        }
        self.outstanding.push_back((self.count, now));
        Some(self.count.to_be_bytes())
    }

    /// Whether nothing was received for too long.
    pub fn is_dead(&self, now: Instant) -> bool {
        now >= self.last_received + self.dead_after
    }

    /// When to ask again, and for what.
    pub fn poll_timeout(&self) -> (Instant, Timer) {
        let dead = self.last_received + self.dead_after;
        if dead < self.next_ping { (dead, Timer::Dead) } else { (self.next_ping, Timer::Ping) }
    }

    /// The round trip, smoothed; `None` before the first Pong.
    pub fn round_trip_time(&self) -> Option<Duration> {
        self.round_trip
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);
    const DEAD_AFTER: Duration = Duration::from_secs(15);
    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_ping_is_sent_at_once_and_every_five_seconds() {
        let start = Instant::now();
        let mut link = Liveness::new(start, INTERVAL, DEAD_AFTER);
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
    fn a_link_is_dead_after_fifteen_seconds_of_silence_and_not_before() {
        let start = Instant::now();
        let mut link = Liveness::new(start, INTERVAL, DEAD_AFTER);
        link.handle_received(start + 1234 * MS);
        let mut now = start;
        let died = loop {
            let (at, timer) = link.poll_timeout();
            assert!(at > now || now == start, "no time passes");
            now = at;
            if timer == Timer::Dead {
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
        let mut link = Liveness::new(now, INTERVAL, DEAD_AFTER);
        assert_eq!(link.round_trip_time(), None);
        for (sample, smoothed) in [(80, 80), (160, 90), (90, 90), (10, 80)] {
            let payload = link.poll_ping(now).unwrap();
            link.handle_pong(now + sample * MS, &payload);
            assert_eq!(link.round_trip_time(), Some(smoothed * MS));
            now += INTERVAL;
        }
    }

    #[test]
    fn a_pong_nobody_asked_for_tells_nothing_but_that_the_link_is_alive() {
        let start = Instant::now();
        let mut link = Liveness::new(start, INTERVAL, DEAD_AFTER);
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
}
