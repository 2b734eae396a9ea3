//! The pause between two questions, which leaves the bus to its other nodes.

use std::time::{Duration, Instant};

use connector_hal::bus::bit_time;
use connector_hal::can::CanFrame;

/// The share of the bus that questions take, unless [`SHARE_OF_FREE`] allows less. A larger share would delay the
/// vehicle's own traffic, a smaller one prolong the scan, which takes 6.8 s at most on a silent bus at 500 kbit/s
/// (docs/adr/0014-scan-budget.md).
const SHARE: f64 = 0.15;
/// The largest share that questions take of the part of the bus that others leave free. On a bus that is 60 %
/// full, the total is 75 % with the scan.
const SHARE_OF_FREE: f64 = 0.4;
/// The largest load by others that counts, so that a scan ends on any bus. At this load, questions take 4 %
/// of the bus, and a scan takes about four times as long as on a silent one.
const MAX_LOAD: f64 = 0.9;
/// The bits of a frame of 8 bytes with an 11-bit identifier and the most stuffing.
const QUESTION_BITS: u32 = 135;
/// The time over which the load is measured. The value is a compromise: most periodic messages of a vehicle
/// occur at least once in this time, and the pause adapts to a change within it.
const LOAD_WINDOW: Duration = Duration::from_millis(100);

/// Measures the load that other nodes put on the bus.
#[derive(Debug)]
pub(super) struct Pacing {
    /// In bit/s.
    bit_rate: u32,
    /// The load of the last window, as a share of the bus.
    load: f64,
    window_start: Instant,
    /// The time that frames of the present window took.
    busy: Duration,
}

impl Pacing {
    pub(super) fn new(bit_rate: u32, now: Instant) -> Self {
        Self { bit_rate, load: 0.0, window_start: now, busy: Duration::ZERO }
    }

    /// A frame of another node.
    pub(super) fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        let bits = if frame.id().is_extended() { 67 } else { 47 } + 9 * frame.len();
        self.busy += bit_time(u32::try_from(bits).unwrap_or(0), self.bit_rate);
        let window = now.saturating_duration_since(self.window_start);
        if window >= LOAD_WINDOW {
            self.load = self.busy.as_secs_f64() / window.as_secs_f64();
            self.busy = Duration::ZERO;
            self.window_start = now;
        }
    }

    /// The time from one question to the next.
    pub(super) fn pause(&self) -> Duration {
        self.pause_at(self.load.min(MAX_LOAD))
    }

    /// The longest time from one question to the next.
    pub(super) fn longest_pause(&self) -> Duration {
        self.pause_at(MAX_LOAD)
    }

    fn pause_at(&self, load: f64) -> Duration {
        bit_time(QUESTION_BITS, self.bit_rate).div_f64(SHARE.min(SHARE_OF_FREE * (1.0 - load)))
    }
}

#[cfg(test)]
mod tests {
    use connector_hal::can::CanId;

    use super::*;

    #[test]
    fn the_pause_grows_with_the_load_and_stays_bounded() {
        let start = Instant::now();
        let frame = CanFrame::new(CanId::standard_truncated(0x123), &[0; 8]).unwrap();
        let pause_after = |frames: u32| {
            let mut pacing = Pacing::new(500_000, start);
            for count in 1..=frames {
                pacing.handle_frame(start + LOAD_WINDOW * count / frames, &frame);
            }
            pacing.pause()
        };
        let idle = pause_after(0);
        assert_eq!(idle, Duration::from_micros(270).div_f64(SHARE));
        assert_eq!(pause_after(10), idle, "a low load leaves enough of the bus");
        assert!(pause_after(350) > 2 * idle);
        assert_eq!(pause_after(4000), pause_after(40_000));
        assert_eq!(pause_after(4000), Pacing::new(500_000, start).longest_pause());
    }
}
