//! The periodic traffic of the simulated vehicle.

use std::time::{Duration, Instant};

use crate::can::{CanFrame, CanId, CanSettings, WireLength};

/// How many messages take turns. Some win arbitration against a diagnostic request; none has a diagnostic
/// identifier.
const MESSAGES: u32 = 24;
/// The length in bits of a typical frame of eight bytes with its intermission, for the distance between
/// messages.
const TYPICAL_BITS: u32 = 117;

/// Messages of eight bytes at equal distances, from nodes that acknowledge. A message that becomes due
/// replaces a message that still waits, as in a real ECU's buffer.
#[derive(Debug)]
pub(super) struct BackgroundTraffic {
    interval: Option<Duration>,
    due: Instant,
    waiting: Option<Instant>,
    counter: u32,
    pub overwritten: u64,
}

impl BackgroundTraffic {
    pub(super) fn new(load: f32, bit_rate: u32, now: Instant) -> Self {
        let interval = (load > 0.0).then(|| {
            let frame = WireLength { nominal_bits: TYPICAL_BITS, data_bits: 0 };
            let settings = CanSettings { bit_rate, data_bit_rate: None, listen_only: false };
            // the load cannot exceed 1, and rounding must not make the distance zero
            frame.duration(&settings).div_f32(load.min(1.0)).max(Duration::from_micros(1))
        });
        Self { interval, due: now, waiting: None, counter: 0, overwritten: 0 }
    }

    /// Whether there is background traffic.
    pub(super) fn is_present(&self) -> bool {
        self.interval.is_some()
    }

    /// When the next message takes part in arbitration.
    pub(super) fn ready_at(&self) -> Option<Instant> {
        self.interval.map(|_| self.waiting.unwrap_or(self.due))
    }

    /// Queues the messages that are due by `now`.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let Some(interval) = self.interval else { return };
        while self.due <= now {
            if self.waiting.is_some() {
                self.overwritten += 1;
                self.counter = self.counter.wrapping_add(1);
            }
            self.waiting = Some(self.due);
            self.due += interval;
        }
    }

    /// The waiting message, if it was ready at `by`.
    pub(super) fn frame(&self, by: Instant) -> Option<CanFrame> {
        self.waiting.filter(|ready| *ready <= by)?;
        let turn = self.counter % MESSAGES;
        let id = CanId::standard_truncated(0x0A0 + (turn * 7 % MESSAGES) * 0x3B);
        // contents change, so that the lengths with stuff bits are those of real traffic
        let contents = (u64::from(self.counter) + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        CanFrame::new(id, &contents.to_be_bytes()).ok()
    }

    pub(super) fn handle_transmitted(&mut self) {
        self.waiting = None;
        self.counter = self.counter.wrapping_add(1);
    }
}
