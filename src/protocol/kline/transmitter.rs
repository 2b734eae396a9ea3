//! Transmission of a message byte by byte, each with its echo.

use std::time::{Duration, Instant};

use super::event::Failure;
use super::timing::ECHO_ALLOWANCE;
use connector_hal::kline::byte_time;

/// The result of a byte that was received during transmission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Echo {
    /// The echo is right; more bytes follow.
    Right,
    /// The echo of the last byte is right; the transmission took this time.
    Last(Duration),
    /// The echo is wrong.
    Wrong(Failure),
}

/// The transmission of one message.
#[derive(Debug)]
pub(super) struct Transmitter {
    bytes: Vec<u8>,
    sent: usize,
    echoed: usize,
    byte_time: Duration,
    /// P4min.
    gap: Duration,
    started: Option<Instant>,
    /// When the next byte may be sent, or the deadline of the missing echo.
    at: Instant,
}

impl Transmitter {
    /// Sends `bytes` with pauses of `gap` (P4) between them.
    pub(super) fn new(bytes: Vec<u8>, bit_rate: u32, gap: Duration, now: Instant) -> Self {
        Self { bytes, sent: 0, echoed: 0, byte_time: byte_time(bit_rate), gap, started: None, at: now }
    }

    /// Returns whether the echo of a byte is missing.
    pub(super) fn awaits_echo(&self) -> bool {
        self.sent > self.echoed
    }

    /// Returns the next byte, if it is due.
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
            // before our first byte, another node finishes its message; between two of ours, a byte destroys
            // the message
            None if self.sent == 0 => return Echo::Right,
            None => return Echo::Wrong(Failure::Collision { sent: 0xFF, received }),
        }
        self.echoed += 1;
        if self.echoed == self.bytes.len() {
            return Echo::Last(now.saturating_duration_since(self.started.unwrap_or(now)));
        }
        // P4 counts from the end of our byte, however late the echo is
        let end = self.at - ECHO_ALLOWANCE;
        self.at = end + self.gap;
        Echo::Right
    }

    /// Returns when the next byte or the missing echo is due.
    pub(super) fn poll_timeout(&self) -> Instant {
        self.at
    }

    /// Returns whether an echo is overdue.
    pub(super) fn is_missing_echo(&self, now: Instant) -> bool {
        self.awaits_echo() && self.at <= now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_5_ms_apart_even_if_an_echo_is_late() {
        let start = Instant::now();
        let mut transmitter = Transmitter::new(vec![1, 2, 3], 10_000, Duration::from_millis(5), start);
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
    fn an_echo_that_differs_or_is_missing_is_an_error() {
        let start = Instant::now();
        let mut transmitter = Transmitter::new(vec![0x81], 10_000, Duration::from_millis(5), start);
        transmitter.poll_transmit(start);
        assert!(!transmitter.is_missing_echo(start + Duration::from_millis(200)));
        assert!(transmitter.is_missing_echo(start + Duration::from_millis(251)));
        let failure = Failure::Collision { sent: 0x81, received: 0x80 };
        assert_eq!(transmitter.handle_byte(start, 0x80), Echo::Wrong(failure));
    }
}
