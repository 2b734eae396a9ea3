//! The connection's clock, and the measurement of the peer's clock (relay protocol, section 4.4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::peer_clock::Echo;
use super::{CLOCK_EVERY, Link};

impl Link {
    /// The smallest round trip to the peer in the last minute; `None` if the peer sends no `clock` records.
    pub fn round_trip(&self, now: Instant) -> Option<Duration> {
        self.peer_clock.round_trip(self.clock(now))
    }

    /// The last ten round trips to the peer, in µs, the newest last.
    pub(crate) fn recent_round_trips(&self) -> &VecDeque<u64> {
        self.peer_clock.recent_round_trips()
    }

    /// Whether the difference of the clocks was measured, so that ages are known from the first message on.
    pub(crate) fn has_measured_clock(&self) -> bool {
        self.peer_clock.is_measured()
    }

    /// Whether the peer has sent a `clock` record.
    pub(crate) fn has_received_clock(&self) -> bool {
        self.peer_clock.has_sent_clock()
    }

    /// Whether the peer's clock has been another one since the last call of this method, of which nothing was known.
    pub(crate) fn take_other_clock(&mut self) -> bool {
        std::mem::take(&mut self.has_other_clock)
    }

    /// How long ago the peer's clock was `time`, in µs, by what is known now.
    pub(crate) fn age(&self, now: Instant, time: u64) -> Duration {
        self.peer_clock.age(self.clock(now), time)
    }

    /// Sends a `clock` record although there is nothing else to send, unless one was sent on this websocket. The
    /// peer's first message then shows how old it is.
    pub fn announce_clock(&mut self) {
        self.is_clock_announced |= self.clock_sent.is_none();
    }

    /// The connection's clock, in µs. It is never 0, which is no echo in a `clock` record.
    pub(super) fn clock(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.opened).as_micros();
        u64::try_from(elapsed).unwrap_or(u64::MAX).max(1)
    }

    /// The content of the `clock` record in the message that is sent now, if one is due.
    pub(super) fn take_echo(&mut self, now: Instant) -> Option<Echo> {
        let is_due = self.clock_sent.is_none_or(|at| now.saturating_duration_since(at) >= CLOCK_EVERY);
        if !is_due {
            return None;
        }
        self.clock_sent = Some(now);
        self.is_clock_announced = false;
        Some(self.peer_clock.echo(self.clock(now)))
    }
}
