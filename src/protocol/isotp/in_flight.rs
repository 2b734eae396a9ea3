//! The frames without an outcome.

use std::collections::VecDeque;

/// The transfer to which a frame belongs. Outcomes of frames of an earlier transfer are ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FrameOwner {
    /// The frame belongs to the sender's transfer with this number.
    Sender(u32),
    /// The frame is a flow control of the reception with this number.
    Receiver(u32),
}

/// Owners of the frames without an outcome, oldest first.
///
/// Frames of abandoned transfers stay in the queue, so that late outcomes are attributed to the right frames.
/// The queue is bounded: an endpoint returns no frames while the queue is full.
#[derive(Debug)]
pub(super) struct InFlight {
    owners: VecDeque<FrameOwner>,
    room: usize,
}

impl InFlight {
    /// Additional room for flow controls when frames of senders have filled the queue: a reception must not
    /// wait until the bus has taken what is being sent.
    const FLOW_CONTROLS: usize = 16;

    pub(super) fn new(room: usize) -> Self {
        Self { owners: VecDeque::new(), room }
    }

    pub(super) fn has_room_for_data(&self) -> bool {
        self.owners.len() < self.room
    }

    pub(super) fn has_room_for_flow_control(&self) -> bool {
        self.owners.len() < self.room.saturating_add(Self::FLOW_CONTROLS)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.owners.len()
    }

    pub(super) fn push(&mut self, owner: FrameOwner) {
        self.owners.push_back(owner);
    }

    pub(super) fn pop(&mut self) -> Option<FrameOwner> {
        self.owners.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.owners.clear();
    }
}
