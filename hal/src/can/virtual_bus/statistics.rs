//! What a virtual bus counts.

/// What happened on the bus since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct BusStatistics {
    /// Frames acknowledged, background traffic included.
    pub frames: u64,
    /// Of these, background traffic.
    pub background_frames: u64,
    /// Background messages overwritten before they could be sent.
    pub background_overwritten: u64,
    /// Attempts that ended in an error frame.
    pub error_frames: u64,
    /// Attempts that went wrong, or out, because a node had a bit rate or frame format that is not the bus's.
    pub disturbances: u64,
    /// What each node did, in the order of attachment.
    pub nodes: Vec<NodeStatistics>,
}

/// What a node did since it was attached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeStatistics {
    /// The name it was attached by.
    pub name: String,
    /// Its frames that were acknowledged.
    pub sent: u64,
    /// Its attempts that ended in an error frame.
    pub failed_attempts: u64,
    /// Frames it received, after its filters.
    pub received: u64,
    /// Error frames it saw.
    pub errors_seen: u64,
}
