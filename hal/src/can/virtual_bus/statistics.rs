//! The counters of a virtual bus.

/// The counters of a bus since its creation.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BusStatistics {
    /// Acknowledged frames, background traffic included.
    pub frames: u64,
    /// Acknowledged frames of the background traffic.
    pub background_frames: u64,
    /// Background messages that were replaced before they could be sent.
    pub background_overwritten: u64,
    /// Attempts that ended in an error frame.
    pub error_frames: u64,
    /// Attempts that a node with another bit rate or frame format disturbed, or made itself.
    pub disturbances: u64,
    /// The counters of each node, in the order of attachment.
    pub nodes: Vec<NodeStatistics>,
}

/// The counters of a node since its attachment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatistics {
    /// The name of the node.
    pub name: String,
    /// Frames of this node that were acknowledged.
    pub sent: u64,
    /// Attempts of this node that ended in an error frame.
    pub failed_attempts: u64,
    /// Received frames that passed the node's filters.
    pub received: u64,
    /// Error frames that the node saw.
    pub errors_seen: u64,
}
