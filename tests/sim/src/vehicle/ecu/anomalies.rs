//! What an ECU got that no faultless tool and bus would have given it.

/// Counts of what should not have happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anomalies {
    /// Blocks of a download that came again under the same counter.
    pub repeated_blocks: u64,
    /// Those of them that carried other bytes than the first time.
    pub repeated_blocks_that_differ: u64,
    /// Blocks of a download that came out of order.
    pub wrong_block_counters: u64,
    /// Requests that came while the ECU was working on another one and could not be kept for later.
    pub requests_while_busy: u64,
    /// Requests that came while the ECU was restarting.
    pub requests_while_resetting: u64,
    /// Requests that were given up half received.
    pub broken_receptions: u64,
    /// Responses that did not get out on the bus.
    pub lost_responses: u64,
    /// Requests that the recording does not have, or has at another place.
    pub unrecorded_requests: u64,
}

impl Anomalies {
    /// Whether nothing strange happened.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
