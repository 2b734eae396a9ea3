//! The frames that wait for the adapter or that it holds, and their owners.

use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use crate::protocol::isotp::SendFailure;

/// The number of frames that the adapter may hold without an outcome. The value is a compromise: the frames
/// keep a bus at 500 kbit/s busy for 2 ms, until this process is woken, and a channel that closes leaves few
/// frames behind that could still be sent.
pub(in crate::relay::buses::can) const WINDOW: usize = 8;

/// The owner of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Channel(u16),
    VinReader,
    Scanner,
    /// A channel that was closed since.
    Gone,
}

/// A frame that waits for the adapter to have room.
#[derive(Debug)]
pub(super) struct NextFrame {
    pub(super) owner: Owner,
    pub(super) frame: CanFrame,
    pub(super) since: Instant,
    /// Until when it may be sent, if its channel limits that.
    pub(super) expires: Option<Instant>,
}

/// The time that a frame may wait for the adapter if its channel sets no other: N_As (ISO 15765-2, 9.7), after which
/// the PDU has been reported as failed.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

impl NextFrame {
    /// Whether the frame may no longer be sent.
    pub(super) fn is_stale(&self, now: Instant) -> bool {
        self.expires.map_or(now >= self.since + LONGEST_WAIT, |expires| expires < now)
    }
}

/// A frame that the adapter holds.
#[derive(Debug)]
pub(super) struct OutstandingFrame {
    pub(super) owner: Owner,
    pub(super) since: Instant,
    pub(super) expires: Option<Instant>,
    /// The outcome, while it waits until the outcomes of its owner's older frames are known: the time of the outcome,
    /// and the failure if the frame was not sent.
    pub(super) outcome: Option<(Instant, Option<SendFailure>)>,
}
