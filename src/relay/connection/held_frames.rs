//! Raw frames of the operator that arrived before their age could be measured (relay protocol, section 4.4).

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

/// The longest time that a frame is held (relay protocol, section 4.4).
const MAX_HOLD: Duration = Duration::from_secs(1);
/// The number of frames that are held; further frames are refused. Operators seldom send more in the first second.
const MAX_FRAMES: usize = 512;

/// A frame that is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct HeldFrame {
    pub(super) channel: u16,
    pub(super) frame: CanFrame,
    /// The operator's clock when the frame was ready, in µs.
    pub(super) time: u64,
}

/// The frames that are held, in order.
///
/// An operator who sends no clock would find every first frame too old after a whole second. Until the operator has
/// sent a `clock` record, a frame is therefore held for half of its maximum age only.
#[derive(Debug, Default)]
pub(super) struct HeldFrames {
    frames: VecDeque<HeldFrame>,
    /// Until when the frames are held for an operator who sends clocks, and for another one.
    until: Option<[Instant; 2]>,
    /// Frames were held long enough once for this clock. Later ones are measured by what is known.
    is_over: bool,
}

impl HeldFrames {
    /// Whether a frame that arrives now has to be held.
    pub(super) fn is_holding(&self) -> bool {
        !self.is_over
    }

    /// The operator's clock is another one, of which nothing is known yet.
    pub(super) fn handle_other_clock(&mut self) {
        self.is_over = false;
    }

    /// Holds a frame that counts as `left` younger than its maximum age. Returns false if there is no room.
    pub(super) fn push(&mut self, now: Instant, held: HeldFrame, left: Duration) -> bool {
        if self.frames.len() >= MAX_FRAMES {
            return false;
        }
        let until = [now + MAX_HOLD, now + MAX_HOLD.min(left / 2)];
        self.until = Some(self.until.map_or(until, |[one, two]| [one.min(until[0]), two.min(until[1])]));
        self.frames.push_back(held);
        true
    }

    /// Discards the frames of a channel that is closed.
    pub(super) fn discard(&mut self, channel: u16) {
        self.frames.retain(|held| held.channel != channel);
        if self.frames.is_empty() {
            self.until = None;
        }
    }

    /// When the frames are released at the latest.
    pub(super) fn due(&self, has_clock: bool) -> Option<Instant> {
        let [with_clock, without_clock] = self.until?;
        Some(if has_clock { with_clock } else { without_clock })
    }

    /// The frames, when the age can be measured or the time is over.
    pub(super) fn release(
        &mut self,
        now: Instant,
        has_clock: bool,
        is_measured: bool,
    ) -> VecDeque<HeldFrame> {
        let is_due = self.due(has_clock).is_some_and(|due| due <= now);
        if !is_measured && !is_due {
            return VecDeque::new();
        }
        self.is_over = true;
        self.until = None;
        std::mem::take(&mut self.frames)
    }
}
