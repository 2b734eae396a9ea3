//! Sending a message's bytes one by one, each with its echo.

use std::time::{Duration, Instant};

use super::event::Failure;
use super::timing::{ECHO_ALLOWANCE, Timing};
use connector_hal::kline::byte_time;

/// What came of a byte that was received while we send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    /// More is to be sent.
    Right,
    /// That was the last one: it took so long.
    Last(Duration),
    Wrong(Failure),
}

/// Bytes on their way.
#[derive(Debug)]
pub(super) struct Transmitter {
    bytes: Vec<u8>,
    sent: usize,
    echoed: usize,
    byte_time: Duration,
    started: Option<Instant>,
    /// When the next byte may be sent; while one has not come back, when it is missed.
    at: Instant,
}

impl Transmitter {
    pub(super) fn new(bytes: Vec<u8>, bit_rate: u32, now: Instant) -> Self {
        Self { bytes, sent: 0, echoed: 0, byte_time: byte_time(bit_rate), started: None, at: now }
    }

    /// Whether a byte has not come back yet.
    pub(super) fn awaits_echo(&self) -> bool {
        self.sent > self.echoed
    }

    /// The next byte whose time has come.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<u8> {
        if self.awaits_echo() || now < self.at {
            return None;
        }
        let byte = *self.bytes.get(self.sent)?;
        self.started.get_or_insert(now);
        self.sent += 1;
        self.at = now + self.byte_time + ECHO_ALLOWANCE;
        Some(byte)
    }

    pub(super) fn handle_byte(&mut self, now: Instant, received: u8) -> Echo {
        let sent = if self.awaits_echo() { self.bytes.get(self.echoed) } else { None };
        match sent {
            Some(sent) if *sent == received => {}
            Some(sent) => return Echo::Wrong(Failure::Collision { sent: *sent, received }),
            // before our first byte it is the rest of somebody's; between two of ours it destroys the message
            None if self.sent == 0 => return Echo::Right,
            None => return Echo::Wrong(Failure::Collision { sent: 0xFF, received }),
        }
        self.echoed += 1;
        if self.echoed == self.bytes.len() {
            return Echo::Last(now.saturating_duration_since(self.started.unwrap_or(now)));
        }
        // P4 counts from the end of our byte, which a late echo does not move
        let end = self.at - ECHO_ALLOWANCE;
        self.at = end + Timing::NORMAL.p4_min;
        Echo::Right
    }

    /// When to go on, or to give up.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.at
    }

    /// Whether a byte should have come back by now.
    pub(super) fn is_missing_echo(&self, now: Instant) -> bool {
        self.awaits_echo() && self.at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_5_ms_apart_and_a_late_echo_adds_nothing_to_that() {
        let start = Instant::now();
        let mut transmitter = Transmitter::new(vec![1, 2, 3], 10_000, start);
        assert_eq!(transmitter.poll_transmit(start), Some(1));
        assert_eq!(transmitter.poll_transmit(start), None);
        assert_eq!(transmitter.handle_byte(start + Duration::from_millis(3), 1), Echo::Right);
        assert_eq!(transmitter.poll_timeout(), start + Duration::from_millis(6));
        assert_eq!(transmitter.poll_transmit(start + Duration::from_millis(6)), Some(2));
        // an adapter that keeps it for 16 ms
        let late = start + Duration::from_millis(23);
        assert_eq!(transmitter.handle_byte(late, 2), Echo::Right);
        assert_eq!(transmitter.poll_transmit(late), Some(3));
        let end = late + Duration::from_millis(1);
        assert_eq!(transmitter.handle_byte(end, 3), Echo::Last(Duration::from_millis(24)));
    }

    #[test]
    fn an_echo_that_differs_or_does_not_come_is_an_error() {
        let start = Instant::now();
        let mut transmitter = Transmitter::new(vec![0x81], 10_000, start);
        transmitter.poll_transmit(start);
        assert!(!transmitter.is_missing_echo(start + Duration::from_millis(200)));
        assert!(transmitter.is_missing_echo(start + Duration::from_millis(251)));
        let failure = Failure::Collision { sent: 0x81, received: 0x80 };
        assert_eq!(transmitter.handle_byte(start, 0x80), Echo::Wrong(failure));
    }
}
