//! What the policy has to send to the vehicle.

use std::time::Instant;

use crate::policy::Return;

/// What the policy has to send to the vehicle.
#[derive(Debug, Default)]
pub(super) struct PolicyWork {
    /// Requests that give inputs and outputs back to their ECUs, and until when.
    pub(super) returns: Vec<(Return, Instant)>,
    pub(super) look_at: Option<Instant>,
}
