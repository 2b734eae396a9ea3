//! Events that an ECU never sees with a correct tool and a correct bus.

/// Counters of such events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Anomalies {
    /// Blocks of a download that were repeated with the same counter.
    pub repeated_blocks: u64,
    /// Repeated blocks with other bytes than the first time.
    pub repeated_blocks_that_differ: u64,
    /// Blocks of a download that came out of order.
    pub wrong_block_counters: u64,
    /// Requests that came while the ECU processed another one, and that could not wait.
    pub requests_while_busy: u64,
    /// Requests that came while the ECU restarted.
    pub requests_while_resetting: u64,
    /// Requests that were not received completely.
    pub broken_receptions: u64,
    /// Responses that were not sent.
    pub lost_responses: u64,
    /// Requests that are not in the recording, or are at another position there.
    pub unrecorded_requests: u64,
}

impl Anomalies {
    /// Whether there were no anomalies.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}
