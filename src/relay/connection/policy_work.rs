//! The requests that the policy itself sends to the vehicle.

use std::time::Instant;

use crate::policy::Return;

/// The requests that the policy itself sends to the vehicle.
#[derive(Debug, Default)]
pub(super) struct PolicyWork {
    /// Requests that return control of inputs and outputs to their ECUs, and the time until which each is tried.
    pub(super) returns: Vec<(Return, Instant)>,
    pub(super) look_at: Option<Instant>,
    /// Requests of the operator wait for the speed.
    pub(super) is_waiting: bool,
}
