//! The relay's error vocabulary: the type, status and title of every problem that the connector reports.

use crate::protocol::problem::Problem;

/// The kind of a problem (relay protocol, section 1): its type, HTTP status and title.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProblemKind {
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
    /// Another connection is open.
    ConnectionOpen,
    /// Another channel uses this ECU.
    EcuInUse,
    /// The ECU on a K-line did not answer.
    EcuNotAnswering,
    /// The ECU refused the channel.
    EcuRefused,
    /// The ECU did not answer the channel set-up of TP2.0.
    EcuSilent,
    /// The DoIP gateway refused the routing activation.
    GatewayRefused,
    /// No connection to the DoIP gateway could be made.
    GatewayUnreachable,
    /// The ignition was switched off during a scan.
    IgnitionOff,
    /// A connection took the buses while the VIN was being read.
    Interrupted,
    /// A binary message cannot be decoded.
    InvalidBinaryMessage,
    /// A text message cannot be decoded, or has an invalid field.
    InvalidMessage,
    /// Two buses need the same pin or device.
    PinsInUse,
    /// The buses were configured again during a scan.
    ScanStopped,
    /// A binary message is missing before this one.
    SequenceGap,
    /// No more channels can be opened.
    TooManyChannels,
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
    /// The vehicle is moving, so that it cannot be scanned.
    VehicleMoving,
    /// The bus has no channels of this kind.
    WrongBusKind,
    /// The ECU sent key bytes other than those that the channel requires.
    WrongKeyBytes,
    /// The vehicle's VIN differs from the VIN in the request.
    WrongVehicle,
}

impl ProblemKind {
    /// All kinds, in the order of the enum.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 32] = [
        Self::BusUnavailable,
        Self::Busy,
        Self::CannotResume,
        Self::ChannelClosed,
        Self::ChannelInUse,
        Self::ConnectionClosed,
        Self::ConnectionOpen,
        Self::EcuInUse,
        Self::EcuNotAnswering,
        Self::EcuRefused,
        Self::EcuSilent,
        Self::GatewayRefused,
        Self::GatewayUnreachable,
        Self::IgnitionOff,
        Self::Interrupted,
        Self::InvalidBinaryMessage,
        Self::InvalidMessage,
        Self::PinsInUse,
        Self::ScanStopped,
        Self::SequenceGap,
        Self::TooManyChannels,
        Self::UnknownAction,
        Self::UnknownBus,
        Self::UnknownChannel,
        Self::UnknownConnection,
        Self::UnknownGateway,
        Self::UnknownPins,
        Self::Unsupported,
        Self::VehicleMoving,
        Self::WrongBusKind,
        Self::WrongKeyBytes,
        Self::WrongVehicle,
    ];

    /// The type (behind `/problems/`), HTTP status and title of this kind.
    pub(crate) const fn entry(self) -> (&'static str, u16, &'static str) {
        match self {
            Self::BusUnavailable => ("bus-unavailable", 503, "Bus unavailable"),
            Self::Busy => ("busy", 429, "Busy"),
            Self::CannotResume => ("cannot-resume", 409, "Cannot resume"),
            Self::ChannelClosed => ("channel-closed", 409, "Channel closed"),
            Self::ChannelInUse => ("channel-in-use", 409, "Channel in use"),
            Self::ConnectionClosed => ("connection-closed", 409, "Connection closed"),
            Self::ConnectionOpen => ("connection-open", 409, "Another connection is open"),
            Self::EcuInUse => ("ecu-in-use", 409, "ECU in use"),
            Self::EcuNotAnswering => ("ecu-not-answering", 504, "ECU not answering"),
            Self::EcuRefused => ("ecu-refused", 409, "Refused by the ECU"),
            Self::EcuSilent => ("ecu-silent", 504, "No answer from the ECU"),
            Self::GatewayRefused => ("gateway-refused", 409, "Gateway refused"),
            Self::GatewayUnreachable => ("gateway-unreachable", 504, "Gateway unreachable"),
            Self::IgnitionOff => ("ignition-off", 409, "The ignition is off"),
            Self::Interrupted => ("interrupted", 409, "Interrupted"),
            Self::InvalidBinaryMessage => ("invalid-binary-message", 400, "Invalid binary message"),
            Self::InvalidMessage => ("invalid-message", 400, "Invalid message"),
            Self::PinsInUse => ("pins-in-use", 409, "Pins in use"),
            Self::ScanStopped => ("scan-stopped", 409, "Scan stopped"),
            Self::SequenceGap => ("sequence-gap", 409, "Invalid binary message"),
            Self::TooManyChannels => ("too-many-channels", 409, "Too many channels"),
            Self::UnknownAction => ("unknown-action", 404, "Unknown action"),
            Self::UnknownBus => ("unknown-bus", 404, "Unknown bus"),
            Self::UnknownChannel => ("unknown-channel", 404, "Unknown channel"),
            Self::UnknownConnection => ("unknown-connection", 404, "Unknown connection"),
            Self::UnknownGateway => ("unknown-gateway", 404, "Unknown gateway"),
            Self::UnknownPins => ("unknown-pins", 404, "Unknown pins"),
            Self::Unsupported => ("unsupported", 501, "Not supported"),
            Self::VehicleMoving => ("vehicle-moving", 409, "The vehicle moves"),
            Self::WrongBusKind => ("wrong-bus-kind", 409, "Wrong kind of bus"),
            Self::WrongKeyBytes => ("wrong-key-bytes", 409, "Wrong key bytes"),
            Self::WrongVehicle => ("wrong-vehicle", 409, "Wrong vehicle"),
        }
    }

    /// A problem of this kind. `detail` describes the error and its place.
    pub(crate) fn problem(self, detail: impl Into<String>) -> Problem {
        let (slug, status, title) = self.entry();
        Problem::new(status, slug, title, detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_is_listed_once_and_has_its_own_type() {
        let slugs: std::collections::BTreeSet<_> =
            ProblemKind::ALL.iter().map(|kind| kind.entry().0).collect();
        assert_eq!(slugs.len(), ProblemKind::ALL.len());
        for (index, kind) in ProblemKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, index, "{kind:?}");
        }
        assert_eq!(ProblemKind::WrongVehicle as usize + 1, ProblemKind::ALL.len());
    }

    #[test]
    fn the_documentation_lists_every_kind() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/behaviour/relay.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (_, section) = text.split_once("## Problems that the connector reports").unwrap();
        let documented: Vec<&str> = section.lines().filter(|line| line.starts_with("| `")).collect();
        let rows = ProblemKind::ALL.map(|kind| {
            let (slug, status, title) = kind.entry();
            format!("| `{slug}` | {status} | {title} |")
        });
        assert_eq!(documented, rows);
    }
}
