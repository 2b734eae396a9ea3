//! A slow signal on a serial K-line while it is transmitted: its end, its levels and its echo. A pure state
//! machine.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::line::byte_time;

/// How late the echo of a slow byte may arrive after the byte's end: the latency of a USB adapter. The 25 ms
/// of high level in the fast initialisation allow no more.
const ECHO_TIME: Duration = Duration::from_millis(16);
/// How late the echo of a slow byte may arrive on a pseudo-terminal, where another process keeps the time:
/// that process may get no processor time for a while.
const PSEUDO_TERMINAL_ECHO_TIME: Duration = Duration::from_millis(500);

/// A slow signal that is being transmitted.
#[derive(Debug)]
pub(super) enum SlowSignal {
    /// A byte at its own bit rate.
    Byte(SlowByte),
    /// Levels still to set, and the end of the signal.
    Levels { levels: VecDeque<(Instant, bool)>, end: Instant },
}

/// A byte that is transmitted at its own bit rate.
#[derive(Debug)]
pub(super) struct SlowByte {
    byte: u8,
    is_pseudo_terminal: bool,
    /// When the byte's stop bit ends, according to its bit rate.
    over: Instant,
    /// When the byte counts as ended without an echo.
    give_up: Instant,
    /// The time to report as the end of the signal.
    end: Instant,
    is_echoed: bool,
}

/// The next step of a slow signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SlowStep {
    /// Hold the line low, or release it.
    SetBreak(bool),
    /// The signal has ended at this time.
    End(Instant),
}

impl SlowSignal {
    /// A byte whose transmission begins now; its line is low for `low`.
    pub(super) fn byte(
        byte: u8,
        bit_rate: u32,
        low: Duration,
        is_pseudo_terminal: bool,
        now: Instant,
    ) -> Self {
        let over = now + byte_time(bit_rate);
        let echo_time = if is_pseudo_terminal { PSEUDO_TERMINAL_ECHO_TIME } else { ECHO_TIME };
        let (give_up, end) = (over + echo_time, now + low);
        Self::Byte(SlowByte { byte, is_pseudo_terminal, over, give_up, end, is_echoed: false })
    }

    /// Levels at these times from now, each with whether the line is low, until `end` from now.
    pub(super) fn levels(levels: Vec<(Duration, bool)>, end: Duration, now: Instant) -> Self {
        let levels = levels.into_iter().map(|(at, is_low)| (now + at, is_low)).collect();
        Self::Levels { levels, end: now + end }
    }

    /// The next step that is due.
    pub(super) fn poll_step(&mut self, now: Instant) -> Option<SlowStep> {
        match self {
            Self::Byte(byte) => byte.ended_at(now).map(SlowStep::End),
            Self::Levels { levels, end } => {
                let mut due = None;
                while levels.front().is_some_and(|(at, _)| *at <= now) {
                    due = levels.pop_front();
                }
                match due {
                    Some((_, is_low)) => Some(SlowStep::SetBreak(is_low)),
                    None => (*end <= now).then_some(SlowStep::End(*end)),
                }
            }
        }
    }

    /// When to call [`SlowSignal::poll_step`] again if no byte is received until then.
    pub(super) fn poll_timeout(&self) -> Instant {
        match self {
            Self::Byte(byte) => byte.poll_timeout(),
            Self::Levels { levels, end } => levels.front().map_or(*end, |(at, _)| *at),
        }
    }

    /// A byte was received. Returns whether it is the signal's echo, or arrived during the signal.
    pub(super) fn handle_byte(&mut self, now: Instant, received: u8) -> bool {
        match self {
            Self::Byte(byte) => byte.handle_byte(now, received),
            Self::Levels { .. } => true,
        }
    }
}

impl SlowByte {
    fn ended_at(&self, now: Instant) -> Option<Instant> {
        // on a pseudo-terminal another process keeps the time, and its echo marks the end
        let is_over = self.is_echoed && (self.is_pseudo_terminal || self.over <= now) || self.give_up <= now;
        is_over.then_some(if self.is_pseudo_terminal { now } else { self.end })
    }

    fn poll_timeout(&self) -> Instant {
        if self.is_echoed { self.over } else { self.give_up }
    }

    fn handle_byte(&mut self, now: Instant, received: u8) -> bool {
        let is_echo = received == self.byte && !self.is_echoed;
        self.is_echoed |= is_echo;
        if !is_echo && self.over <= now {
            // the line has no echo, and this byte is already the ECU's answer
            self.is_echoed = true;
            return false;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_slow_byte_ends_after_its_echo_and_its_time() {
        let start = Instant::now();
        let mut signal = SlowSignal::byte(0, 360, 25 * MS, false, start);
        assert!(signal.handle_byte(start + 20 * MS, 0));
        assert_eq!(signal.poll_step(start + 20 * MS), None);
        let over = start + byte_time(360);
        assert_eq!(signal.poll_timeout(), over);
        assert_eq!(signal.poll_step(over), Some(SlowStep::End(start + 25 * MS)));
    }

    #[test]
    fn on_a_line_without_an_echo_the_first_late_byte_is_the_answer() {
        let start = Instant::now();
        let mut signal = SlowSignal::byte(0, 360, 25 * MS, false, start);
        let over = start + byte_time(360);
        assert_eq!(signal.poll_step(over), None);
        assert!(!signal.handle_byte(over, 0xC1));
        assert_eq!(signal.poll_step(over), Some(SlowStep::End(start + 25 * MS)));
    }

    #[test]
    fn of_several_levels_that_are_due_only_the_last_one_is_set() {
        let start = Instant::now();
        let levels = vec![(Duration::ZERO, true), (10 * MS, false), (20 * MS, true)];
        let mut signal = SlowSignal::levels(levels, 30 * MS, start);
        assert_eq!(signal.poll_step(start + 15 * MS), Some(SlowStep::SetBreak(false)));
        assert_eq!(signal.poll_step(start + 15 * MS), None);
        assert_eq!(signal.poll_timeout(), start + 20 * MS);
        assert_eq!(signal.poll_step(start + 30 * MS), Some(SlowStep::SetBreak(true)));
        assert_eq!(signal.poll_step(start + 30 * MS), Some(SlowStep::End(start + 30 * MS)));
    }
}
