//! The frames given out whose outcome is not known yet.

use std::collections::VecDeque;

/// Which transfer a frame belongs to; an outcome for one that is over is nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    /// The transfer of this number, being sent.
    Sender(u32),
    /// The reception of this number, which sent a flow control.
    Receiver(u32),
}

/// Owners of the frames without outcome, oldest first.
///
/// Also holds the frames of transfers long given up, so that an adapter which confirms late confirms the right ones;
/// it is bounded in that nothing more is given out once it is full.
#[derive(Debug)]
pub(super) struct InFlight {
    owners: VecDeque<Owner>,
    room: usize,
}

impl InFlight {
    /// Flow controls that go out although the senders' frames have filled it.
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

    pub(super) fn push(&mut self, owner: Owner) {
        self.owners.push_back(owner);
    }

    pub(super) fn pop(&mut self) -> Option<Owner> {
        self.owners.pop_front()
    }

    pub(super) fn clear(&mut self) {
        self.owners.clear();
    }
}
