//! The relay's error vocabulary: the type, status and title of every problem on the relay's websockets, and
//! the peers that report it.

use std::fmt;

use crate::protocol::problem::Problem;

/// A peer of the relay that reports problems.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Reporter {
    /// The connector.
    Connector,
    /// The cloud.
    Cloud,
    /// The operator's software, to its user.
    Operator,
}

impl fmt::Display for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connector => "connector",
            Self::Cloud => "cloud",
            Self::Operator => "operator",
        })
    }
}

const CONNECTOR: &[Reporter] = &[Reporter::Connector];
const CLOUD: &[Reporter] = &[Reporter::Cloud];
const CONNECTOR_AND_CLOUD: &[Reporter] = &[Reporter::Connector, Reporter::Cloud];
const CLOUD_AND_OPERATOR: &[Reporter] = &[Reporter::Cloud, Reporter::Operator];

/// The kind of a problem (relay protocol, section 1): its type, HTTP status and title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProblemKind {
    /// The connector or the cloud sent an error without a valid problem.
    BadAnswer,
    /// A bus has no usable device, is off, or cannot be reached.
    BusUnavailable,
    /// The connector is already handling such a request, or too many requests wait.
    Busy,
    /// The connection cannot be resumed from the number that the operator reports.
    CannotResume,
    /// A channel was closed while it was being opened.
    ChannelClosed,
    /// Another channel has this number.
    ChannelInUse,
    /// The connection was closed while the request waited.
    ConnectionClosed,
    /// Another operator, or another link of this operator, joined the connection.
    ConnectionInUse,
    /// The connector did not keep the connection that the operator wants to resume.
    ConnectionLost,
    /// Another connection is open.
    ConnectionOpen,
    /// The connector is not connected to the cloud.
    ConnectorOffline,
    /// Another channel uses this ECU.
    EcuInUse,
    /// The ECU on a K-line did not answer.
    EcuNotAnswering,
    /// The ECU refused the channel.
    EcuRefused,
    /// The ECU did not answer the channel set-up of TP2.0.
    EcuSilent,
    /// The token does not permit the request.
    Forbidden,
    /// The DoIP gateway refused the routing activation.
    GatewayRefused,
    /// No connection to the DoIP gateway could be made.
    GatewayUnreachable,
    /// A connector sent another message before `connectorHello`.
    HelloFirst,
    /// The ignition was switched off during a scan.
    IgnitionOff,
    /// The cloud failed to handle the request.
    Internal,
    /// A connection took the buses while the VIN was being read.
    Interrupted,
    /// A binary message cannot be decoded.
    InvalidBinaryMessage,
    /// A text message cannot be decoded, or has an invalid field.
    InvalidMessage,
    /// The operator has muted what the connector sends on its own account.
    LocalsMuted,
    /// A text message is not an object with an action.
    Malformed,
    /// The link of the request has not joined the connection.
    NotJoined,
    /// Another tester is in use on the bus.
    OtherTester,
    /// Two buses need the same pin or device.
    PinsInUse,
    /// The connector's policy refuses the request.
    RefusedByPolicy,
    /// The buses were configured again during a scan.
    ScanStopped,
    /// A binary message is missing before this one.
    SequenceGap,
    /// The connector did not answer in time.
    Timeout,
    /// A text message is longer than the cloud accepts.
    TooLong,
    /// No more channels can be opened.
    TooManyChannels,
    /// Too many requests wait, or the link has joined too many connections.
    TooManyRequests,
    /// The action is not known.
    UnknownAction,
    /// No bus has this name.
    UnknownBus,
    /// No channel has this number.
    UnknownChannel,
    /// No connection has this UUID.
    UnknownConnection,
    /// No DoIP gateway has this address.
    UnknownGateway,
    /// No bus of this kind is at these pins.
    UnknownPins,
    /// The connector does not support the request.
    Unsupported,
    /// The cloud does not support the connector's version of the protocol.
    UnsupportedProtocol,
    /// No ECU reports that the vehicle stands, so that it cannot be scanned without consent.
    VehicleMayMove,
    /// The vehicle is moving, so that it cannot be scanned.
    VehicleMoving,
    /// A message to the cloud has invalid fields.
    Violations,
    /// The bus is in use at another bit rate.
    WrongBitRate,
    /// The bus has no channels of this kind.
    WrongBusKind,
    /// The ECU sent key bytes other than those that the channel requires.
    WrongKeyBytes,
    /// The vehicle's VIN differs from the VIN in the request.
    WrongVehicle,
}

impl ProblemKind {
    /// All kinds, in the order of the enum.
    const ALL: [Self; 51] = [
        Self::BadAnswer,
        Self::BusUnavailable,
        Self::Busy,
        Self::CannotResume,
        Self::ChannelClosed,
        Self::ChannelInUse,
        Self::ConnectionClosed,
        Self::ConnectionInUse,
        Self::ConnectionLost,
        Self::ConnectionOpen,
        Self::ConnectorOffline,
        Self::EcuInUse,
        Self::EcuNotAnswering,
        Self::EcuRefused,
        Self::EcuSilent,
        Self::Forbidden,
        Self::GatewayRefused,
        Self::GatewayUnreachable,
        Self::HelloFirst,
        Self::IgnitionOff,
        Self::Internal,
        Self::Interrupted,
        Self::InvalidBinaryMessage,
        Self::InvalidMessage,
        Self::LocalsMuted,
        Self::Malformed,
        Self::NotJoined,
        Self::OtherTester,
        Self::PinsInUse,
        Self::RefusedByPolicy,
        Self::ScanStopped,
        Self::SequenceGap,
        Self::Timeout,
        Self::TooLong,
        Self::TooManyChannels,
        Self::TooManyRequests,
        Self::UnknownAction,
        Self::UnknownBus,
        Self::UnknownChannel,
        Self::UnknownConnection,
        Self::UnknownGateway,
        Self::UnknownPins,
        Self::Unsupported,
        Self::UnsupportedProtocol,
        Self::VehicleMayMove,
        Self::VehicleMoving,
        Self::Violations,
        Self::WrongBitRate,
        Self::WrongBusKind,
        Self::WrongKeyBytes,
        Self::WrongVehicle,
    ];

    /// The kind of this problem, if the problem's type is in the relay's vocabulary.
    pub fn of(problem: &Problem) -> Option<Self> {
        let slug = problem.kind.strip_prefix("/problems/")?;
        Self::ALL.into_iter().find(|kind| kind.slug() == slug)
    }

    /// A problem of this kind. `detail` describes the error and its place.
    pub fn problem(self, detail: impl Into<String>) -> Problem {
        let (slug, status, title, _) = self.entry();
        Problem::new(status, slug, title, detail)
    }

    /// The type, without `/problems/`.
    const fn slug(self) -> &'static str {
        self.entry().0
    }

    /// The type (behind `/problems/`), HTTP status and title of this kind, and the peers that report it.
    const fn entry(self) -> (&'static str, u16, &'static str, &'static [Reporter]) {
        match self {
            Self::BadAnswer => ("bad-answer", 502, "Bad answer", CLOUD_AND_OPERATOR),
            Self::BusUnavailable => ("bus-unavailable", 503, "Bus unavailable", CONNECTOR),
            Self::Busy => ("busy", 429, "Busy", CONNECTOR),
            Self::CannotResume => ("cannot-resume", 409, "Cannot resume", CONNECTOR),
            Self::ChannelClosed => ("channel-closed", 409, "Channel closed", CONNECTOR),
            Self::ChannelInUse => ("channel-in-use", 409, "Channel in use", CONNECTOR),
            Self::ConnectionClosed => ("connection-closed", 409, "Connection closed", CONNECTOR_AND_CLOUD),
            Self::ConnectionInUse => ("connection-in-use", 409, "Connection in use", CLOUD),
            Self::ConnectionLost => ("connection-lost", 409, "Connection lost", CLOUD),
            Self::ConnectionOpen => ("connection-open", 409, "Another connection is open", CONNECTOR),
            Self::ConnectorOffline => ("connector-offline", 503, "Connector offline", CLOUD),
            Self::EcuInUse => ("ecu-in-use", 409, "ECU in use", CONNECTOR),
            Self::EcuNotAnswering => ("ecu-not-answering", 504, "ECU not answering", CONNECTOR),
            Self::EcuRefused => ("ecu-refused", 409, "Refused by the ECU", CONNECTOR),
            Self::EcuSilent => ("ecu-silent", 504, "No answer from the ECU", CONNECTOR),
            Self::Forbidden => ("forbidden", 403, "Forbidden", CLOUD),
            Self::GatewayRefused => ("gateway-refused", 409, "Gateway refused", CONNECTOR),
            Self::GatewayUnreachable => ("gateway-unreachable", 504, "Gateway unreachable", CONNECTOR),
            Self::HelloFirst => ("hello-first", 409, "Hello first", CLOUD),
            Self::IgnitionOff => ("ignition-off", 409, "The ignition is off", CONNECTOR),
            Self::Internal => ("internal", 500, "Internal error", CLOUD),
            Self::Interrupted => ("interrupted", 409, "Interrupted", CONNECTOR),
            Self::InvalidBinaryMessage => {
                ("invalid-binary-message", 400, "Invalid binary message", CONNECTOR)
            }
            Self::InvalidMessage => ("invalid-message", 400, "Invalid message", CONNECTOR),
            Self::LocalsMuted => ("locals-muted", 409, "Locals are muted", CONNECTOR),
            Self::Malformed => ("malformed", 400, "Malformed message", CLOUD),
            Self::NotJoined => ("not-joined", 403, "Not joined", CLOUD),
            Self::OtherTester => ("other-tester", 409, "Another tester is in use", CONNECTOR),
            Self::PinsInUse => ("pins-in-use", 409, "Pins in use", CONNECTOR),
            Self::RefusedByPolicy => ("refused-by-policy", 403, "Refused by the policy", CONNECTOR),
            Self::ScanStopped => ("scan-stopped", 409, "Scan stopped", CONNECTOR),
            Self::SequenceGap => ("sequence-gap", 409, "Invalid binary message", CONNECTOR),
            Self::Timeout => ("timeout", 504, "No answer", CLOUD),
            Self::TooLong => ("too-long", 413, "Message too long", CONNECTOR_AND_CLOUD),
            Self::TooManyChannels => ("too-many-channels", 409, "Too many channels", CONNECTOR),
            Self::TooManyRequests => ("too-many-requests", 429, "Too many requests", CLOUD),
            Self::UnknownAction => ("unknown-action", 404, "Unknown action", CONNECTOR_AND_CLOUD),
            Self::UnknownBus => ("unknown-bus", 404, "Unknown bus", CONNECTOR),
            Self::UnknownChannel => ("unknown-channel", 404, "Unknown channel", CONNECTOR),
            Self::UnknownConnection => ("unknown-connection", 404, "Unknown connection", CONNECTOR_AND_CLOUD),
            Self::UnknownGateway => ("unknown-gateway", 404, "Unknown gateway", CONNECTOR),
            Self::UnknownPins => ("unknown-pins", 404, "Unknown pins", CONNECTOR),
            Self::Unsupported => ("unsupported", 501, "Not supported", CONNECTOR),
            Self::UnsupportedProtocol => ("unsupported-protocol", 400, "Unsupported protocol", CLOUD),
            Self::VehicleMayMove => ("vehicle-may-move", 409, "The vehicle may move", CONNECTOR),
            Self::VehicleMoving => ("vehicle-moving", 409, "The vehicle moves", CONNECTOR),
            Self::Violations => ("violations", 400, "The message has invalid fields", CLOUD),
            Self::WrongBitRate => ("wrong-bit-rate", 409, "Wrong bit rate", CONNECTOR),
            Self::WrongBusKind => ("wrong-bus-kind", 409, "Wrong kind of bus", CONNECTOR),
            Self::WrongKeyBytes => ("wrong-key-bytes", 409, "Wrong key bytes", CONNECTOR),
            Self::WrongVehicle => ("wrong-vehicle", 409, "Wrong vehicle", CONNECTOR),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_has_its_own_type() {
        let slugs: std::collections::BTreeSet<_> = ProblemKind::ALL.iter().map(|kind| kind.slug()).collect();
        assert_eq!(slugs.len(), ProblemKind::ALL.len());
        for (index, kind) in ProblemKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
        }
        assert_eq!(ProblemKind::WrongVehicle as usize + 1, ProblemKind::ALL.len());
    }

    #[test]
    fn a_problem_has_the_kind_that_made_it() {
        for kind in ProblemKind::ALL {
            assert_eq!(ProblemKind::of(&kind.problem("")), Some(kind));
        }
        let foreign = Problem::new(418, "teapot", "A teapot", "It makes no coffee.");
        assert_eq!(ProblemKind::of(&foreign), None);
    }

    #[test]
    fn the_documentation_lists_every_kind() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/behaviour/relay.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, section) = text.split_once("## Problems").unwrap();
        let documented: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let rows = ProblemKind::ALL.map(|kind| {
            let (slug, status, title, reporters) = kind.entry();
            let reporters: Vec<_> = reporters.iter().map(ToString::to_string).collect();
            format!("| `{slug}` | {status} | {title} | {} |", reporters.join(", "))
        });
        assert_eq!(documented, rows);
    }
}
