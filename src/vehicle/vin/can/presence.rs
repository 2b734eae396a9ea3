//! Whether another node is on the bus, and with it, whether the bit rate is right.

use std::time::{Duration, Instant};

use super::timing::LATENCY_ALLOWANCE;

/// N_As of a tester that does not know yet whether another node is on the bus (ISO 15765-4), with the time
/// that the adapter may add.
const FIRST_ACK_TIME: Duration = Duration::from_millis(25).saturating_add(LATENCY_ALLOWANCE);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NodePresence {
    /// Nothing was heard, and no frame was sent.
    Unknown,
    /// The first frame must be acknowledged until this time.
    FirstFrame { ack_by: Instant },
    /// The adapter took the first frame, and cannot say whether a node acknowledged it.
    Taken,
    /// A node was heard, or acknowledged a frame.
    Alive,
}

/// What a reader knows about the other nodes of its bus.
#[derive(Debug)]
pub(super) struct Presence {
    nodes: NodePresence,
    /// A frame was sent.
    has_transmitted: bool,
    /// Silence is no sign of a wrong bit rate. Errors after the first frame end that.
    is_trusted: bool,
}

impl Presence {
    pub(super) fn new(is_alive: bool) -> Self {
        let nodes = if is_alive { NodePresence::Alive } else { NodePresence::Unknown };
        Self { nodes, has_transmitted: false, is_trusted: false }
    }

    /// The configured bit rate is right even if the bus is silent.
    pub(super) fn trust(&mut self) {
        self.is_trusted = true;
    }

    /// An error was seen after the first frame.
    pub(super) fn doubt(&mut self) {
        self.is_trusted = false;
    }

    pub(super) fn is_trusted(&self) -> bool {
        self.is_trusted
    }

    /// A node was heard, or the bit rate is taken as right.
    pub(super) fn set_alive(&mut self) {
        self.nodes = NodePresence::Alive;
    }

    pub(super) fn is_alive(&self) -> bool {
        self.nodes == NodePresence::Alive
    }

    pub(super) fn has_transmitted(&self) -> bool {
        self.has_transmitted
    }

    /// A frame was handed to the adapter.
    pub(super) fn handle_given(&mut self, now: Instant) {
        if self.nodes == NodePresence::Unknown {
            self.nodes = NodePresence::FirstFrame { ack_by: now + FIRST_ACK_TIME };
        }
    }

    /// A frame was acknowledged, or by an adapter that does not confirm, taken.
    pub(super) fn handle_transmitted(&mut self, is_confirmed: bool) {
        self.has_transmitted = true;
        match self.nodes {
            _ if is_confirmed => self.nodes = NodePresence::Alive,
            NodePresence::FirstFrame { .. } => self.nodes = NodePresence::Taken,
            NodePresence::Unknown | NodePresence::Taken | NodePresence::Alive => {}
        }
    }

    /// The time until which the first frame must be acknowledged, while the acknowledgement is awaited.
    pub(super) fn first_ack_by(&self) -> Option<Instant> {
        match self.nodes {
            NodePresence::FirstFrame { ack_by } => Some(ack_by),
            NodePresence::Unknown | NodePresence::Taken | NodePresence::Alive => None,
        }
    }
}
