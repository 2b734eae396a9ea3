//! Whether other nodes acknowledge the questions of a scan.

use crate::vehicle::scan::outcome::ScanOutcome;

/// The number of consecutive frames without acknowledgement, after others were acknowledged, that shows that the bus
/// sleeps.
/// One alone may be a lost report of the adapter.
const MAX_FAILURES: u32 = 3;

/// What the outcomes of frames, and the frames of others, show about the other nodes.
#[derive(Debug, Default)]
pub(super) struct Acknowledgement {
    /// A node acknowledged a frame or was heard, so the bit rate is right.
    has_node: bool,
    is_acknowledged: bool,
    /// Frames without acknowledgement since the last one that was acknowledged.
    failures: u32,
}

impl Acknowledgement {
    /// A frame was acknowledged.
    pub(super) fn handle_acknowledged(&mut self) {
        self.has_node = true;
        self.is_acknowledged = true;
        self.failures = 0;
    }

    /// Another node sent a frame.
    pub(super) fn handle_heard(&mut self) {
        self.has_node = true;
    }

    /// No node acknowledged a frame in time. Returns the outcome of the scan if that ends it.
    pub(super) fn handle_failed(&mut self) -> Option<ScanOutcome> {
        self.failures += 1;
        if !self.has_node {
            return Some(ScanOutcome::NotAcknowledged);
        }
        (self.failures >= MAX_FAILURES).then_some(ScanOutcome::FellAsleep)
    }

    pub(super) fn has_node(&self) -> bool {
        self.has_node
    }

    /// Whether only one frame at a time may be without outcome: no node may be on the bus, the bit rate may be
    /// wrong, or the bus may have fallen asleep.
    pub(super) fn is_doubtful(&self) -> bool {
        !self.is_acknowledged || self.failures > 0
    }
}
