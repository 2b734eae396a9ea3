//! A tester's TCP connection in the entity's table of sockets (ISO 13400-2, 7.2.4).

use std::time::Instant;

use connector_agent::protocol::doip::codec::StreamDecoder;
use connector_agent::protocol::doip::{ActivationRequest, LogicalAddress};

/// Identifies a connection; never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// The state of routing activation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Routing {
    /// Not requested.
    Initialized,
    /// The request waits for alive checks of other connections.
    Checking { request: ActivationRequest, until: Instant },
    /// The request waits for a confirmation in the vehicle.
    Unconfirmed { tester: LogicalAddress, until: Instant },
    /// Messages are passed on.
    Active { tester: LogicalAddress },
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) decoder: StreamDecoder,
    pub(super) tls: bool,
    pub(super) routing: Routing,
    /// When the connection is closed if nothing is received.
    pub(super) idle_at: Instant,
    /// An alive check was sent, and not answered.
    pub(super) asked_alive: bool,
}

impl Connection {
    /// The tester for which the connection is registered.
    pub(super) fn tester(&self) -> Option<LogicalAddress> {
        match self.routing {
            Routing::Active { tester } | Routing::Unconfirmed { tester, .. } => Some(tester),
            Routing::Initialized | Routing::Checking { .. } => None,
        }
    }
}
