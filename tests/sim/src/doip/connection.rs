//! A TCP connection of a tester, as the entity's table of sockets knows it (ISO 13400-2, 7.2.4).

use std::time::Instant;

use connector_agent::protocol::doip::codec::StreamDecoder;
use connector_agent::protocol::doip::{ActivationRequest, LogicalAddress};

/// A connection's name; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId(pub u64);

/// How far routing activation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// Not asked for yet.
    Initialized,
    /// Others are being asked whether they are alive; the request waits for that.
    Checking { request: ActivationRequest, until: Instant },
    /// Somebody in the vehicle has to agree.
    Unconfirmed { tester: LogicalAddress, until: Instant },
    /// Messages are passed on.
    Active { tester: LogicalAddress },
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) decoder: StreamDecoder,
    pub(super) tls: bool,
    pub(super) state: State,
    /// When it is closed if nothing comes.
    pub(super) idle_at: Instant,
    /// An alive check was sent, and not answered.
    pub(super) asked_alive: bool,
}

impl Connection {
    /// The tester it is registered for.
    pub(super) fn tester(&self) -> Option<LogicalAddress> {
        match self.state {
            State::Active { tester } | State::Unconfirmed { tester, .. } => Some(tester),
            State::Initialized | State::Checking { .. } => None,
        }
    }
}
