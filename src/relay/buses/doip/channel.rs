//! A DoIP channel, and the problems of opening one.

use std::net::SocketAddr;
use std::time::Instant;

use super::transport::DoipTransport;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::ConnectionError;
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
    /// The time that the gateway has to identify itself; `None` when it is over.
    pub(super) identified_until: Option<Instant>,
    /// Whether the connection is lost.
    pub(super) is_down: bool,
    pub(super) max_pdu: usize,
}

impl DoipChannel {
    /// Whether the gateway has had its time to identify itself.
    pub(super) fn is_overdue(&self) -> bool {
        self.identified_until.is_none()
    }

    /// The connection that the channel uses.
    pub(super) fn key(&self) -> ConnectionKey {
        (self.gateway, self.tester)
    }
}

/// The problem that the gateway was not found in time; `found` describes what was found instead.
pub(super) fn unknown_gateway(bus: &str, wanted: LogicalAddress, found: &str) -> Problem {
    ProblemKind::UnknownGateway.problem(format!("Bus {bus:?}: no gateway {wanted} was found; {found}."))
}

/// The problem that several gateways have the wanted address; `which` names them.
pub(super) fn ambiguous_gateway(bus: &str, which: &str) -> Problem {
    ProblemKind::UnknownGateway.problem(format!("Bus {bus:?}: {which}."))
}

/// The problem that a gateway is there, but did not activate routing in time.
pub(super) fn silent_gateway(wanted: LogicalAddress, silent_host: Option<SocketAddr>) -> Problem {
    let detail = match silent_host {
        Some(host) => format!(
            "{host} does not identify itself by UDP, and did not activate routing as gateway {wanted} in time."
        ),
        None => format!("The gateway {wanted} was found, but did not activate routing in time."),
    };
    ProblemKind::GatewayUnreachable.problem(detail)
}

/// The problem that there is no network to look for a gateway on.
pub(super) fn no_network(bus: &str, wanted: LogicalAddress) -> Problem {
    let detail = format!("Bus {bus:?}: the network is lost, so that gateway {wanted} cannot be looked for.");
    ProblemKind::BusUnavailable.problem(detail)
}

/// The problem that the gateway refuses the connection or cannot be reached. `silent_host` is the configured
/// host, if it has not identified itself.
pub(super) fn refused(
    bus: &str,
    (gateway, tester): ConnectionKey,
    error: &ClientError,
    silent_host: Option<SocketAddr>,
) -> Problem {
    if let (ClientError::Connection(ConnectionError::OtherEntity { answered, .. }), Some(host)) =
        (error, silent_host)
    {
        return unknown_gateway(bus, gateway, &format!("found: {answered} at {}", host.ip()));
    }
    let silent = silent_host.map(|host| format!("; {host} does not identify itself by UDP"));
    let silent = silent.unwrap_or_default();
    let detail = format!("Gateway {gateway}, tester {tester}: {error}{silent}.");
    match error {
        ClientError::Connection(
            ConnectionError::Denied(_)
            | ConnectionError::ActivationRefused(_)
            | ConnectionError::ConfirmationTimeout(_)
            | ConnectionError::OtherTester { .. }
            | ConnectionError::OtherVersion { .. },
        ) => ProblemKind::GatewayRefused.problem(detail),
        _ => ProblemKind::GatewayUnreachable.problem(detail),
    }
}
