//! A tester's TCP connection in the entity's socket table (ISO 13400-2, 7.2.4).

use std::time::Instant;

use connector_agent::protocol::doip::codec::StreamDecoder;
use connector_agent::protocol::doip::{ActivationRequest, LogicalAddress};

/// Identifies a connection; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The progress of routing activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RoutingState {
    /// The tester has not requested activation.
    Initialized,
    /// The request waits until other testers answer alive checks.
    Checking { request: ActivationRequest, until: Instant },
    /// The request waits for the confirmation in the vehicle.
    Unconfirmed { tester: LogicalAddress, until: Instant },
    /// Routing is active.
    Active { tester: LogicalAddress },
}

/// A tester's connection.
#[derive(Debug)]
pub(super) struct TesterConnection {
    pub(super) decoder: StreamDecoder,
    pub(super) tls: bool,
    pub(super) state: RoutingState,
    /// When the connection is closed if the tester stays silent.
    pub(super) idle_at: Instant,
    /// Whether the tester has not answered an alive check yet.
    pub(super) asked_alive: bool,
}

impl TesterConnection {
    /// The tester that the connection is registered for.
    pub(super) fn tester(&self) -> Option<LogicalAddress> {
        match self.state {
            RoutingState::Active { tester } | RoutingState::Unconfirmed { tester, .. } => Some(tester),
            RoutingState::Initialized | RoutingState::Checking { .. } => None,
        }
    }
}
