//! A DoIP channel, and the problems of opening one.

use std::time::Instant;

use super::transport::DoipTransport;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::ConnectionError;
use crate::protocol::doip::discovery::Gateway;
use crate::protocol::problem::Problem;
use crate::relay::channel::PduChannel;
use crate::relay::wire::ProblemKind;
use crate::vehicle::doip_network::client::ClientError;

/// A connection of one tester with one gateway: the addresses of gateway and tester.
pub(super) type ConnectionKey = (LogicalAddress, LogicalAddress);

/// A channel to one ECU, or a group of them, behind a gateway.
pub(super) struct DoipChannel {
    pub(super) gateway: LogicalAddress,
    pub(super) tester: LogicalAddress,
    pub(super) pdus: PduChannel<DoipTransport>,
    /// While the channel is being opened: the time until which the gateway must activate routing.
    pub(super) opening: Option<Instant>,
    /// Whether the connection is lost.
    pub(super) is_down: bool,
    pub(super) max_pdu: usize,
}

impl DoipChannel {
    /// The connection that the channel uses.
    pub(super) fn key(&self) -> ConnectionKey {
        (self.gateway, self.tester)
    }
}

/// The problem that no gateway with this address was found, or that it did not activate routing, in time.
pub(super) fn unknown_gateway(bus: &str, wanted: LogicalAddress, found: &[Gateway]) -> Problem {
    if found.iter().any(|gateway| gateway.announcement.address == wanted) {
        let detail = format!("The gateway {wanted} was found, but did not activate routing in time.");
        return ProblemKind::GatewayUnreachable.problem(detail);
    }
    let found: Vec<_> = found
        .iter()
        .map(|gateway| format!("{} at {}", gateway.announcement.address, gateway.address.ip()))
        .collect();
    let found = if found.is_empty() {
        "no gateway answered".to_owned()
    } else {
        format!("found: {}", found.join(", "))
    };
    let detail = format!("Bus {bus:?}: no gateway {wanted} was found; {found}.");
    ProblemKind::UnknownGateway.problem(detail)
}

/// The problem that the gateway refuses the connection or cannot be reached.
pub(super) fn refused((gateway, tester): ConnectionKey, error: &ClientError) -> Problem {
    let detail = format!("Gateway {gateway}, tester {tester}: {error}.");
    match error {
        ClientError::Connection(
            ConnectionError::Denied(_)
            | ConnectionError::ActivationRefused(_)
            | ConnectionError::ConfirmationTimeout(_)
            | ConnectionError::OtherTester { .. },
        ) => ProblemKind::GatewayRefused.problem(detail),
        _ => ProblemKind::GatewayUnreachable.problem(detail),
    }
}
