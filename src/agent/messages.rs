//! The connector's messages about itself (relay protocol, section 2).

use std::time::Duration;

use serde::{Serialize, Serializer};
use uuid::Uuid;

use crate::config::Config;
use crate::protocol::vin::Vin;
use crate::relay::connection::{BusReport, RelayConnection};
use crate::relay::wire::{Envelope, PolicyReport, PolicyStateReport};
use crate::vehicle::hardware::Hardware;

/// The version of the relay protocol.
const PROTOCOL: u32 = 1;

/// What this agent can do beyond the first version of the relay protocol.
const FEATURES: &[&str] = &["clock", "policy", "configuration", "mute"];

/// `connectorHello`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ConnectorHello<'a> {
    connector_uuid: Uuid,
    protocol: u32,
    agent_version: &'static str,
    features: &'static [&'static str],
    software_version: u32,
    hardware_version: u32,
    hardware_type: &'a str,
    has_wifi: Option<bool>,
    supports_doip: bool,
    buses: Vec<HardwareBus>,
    connections: Vec<HeldConnection>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct HardwareBus {
    kind: &'static str,
    pins: Vec<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fd: Option<bool>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct HeldConnection {
    connection_uuid: Uuid,
    received: u32,
}

impl<'a> ConnectorHello<'a> {
    pub(super) fn new(
        config: &'a Config,
        hardware: &Hardware,
        has_wifi: Option<bool>,
        held: Option<&RelayConnection>,
    ) -> Self {
        let connector = &config.connector;
        let held = held.map(|session| HeldConnection {
            connection_uuid: session.connection_uuid(),
            received: session.received(),
        });
        Self {
            connector_uuid: connector.uuid.get(),
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION"),
            features: FEATURES,
            software_version: connector.software_version,
            hardware_version: connector.hardware_version,
            hardware_type: &connector.hardware_type,
            has_wifi,
            supports_doip: !hardware.doip_ports.is_empty(),
            buses: buses(hardware),
            connections: held.into_iter().collect(),
        }
    }
}

/// The buses of the hardware.
fn buses(hardware: &Hardware) -> Vec<HardwareBus> {
    let can = hardware.can_ports.iter().map(|port| HardwareBus {
        kind: "can",
        pins: port.pins.to_vec(),
        fd: Some(port.fd),
    });
    let kline =
        hardware.kline_ports.iter().map(|port| HardwareBus { kind: "kline", pins: vec![port.pin], fd: None });
    let terminal15 =
        hardware.terminal15.iter().map(|pin| HardwareBus { kind: "terminal15", pins: vec![*pin], fd: None });
    let doip = hardware.doip_ports.iter().map(|port| HardwareBus {
        kind: "doip",
        pins: port.pins.to_vec(),
        fd: None,
    });
    can.chain(kline).chain(doip).chain(terminal15).collect()
}

/// `connectorStatusUpdate`; unknown values are null.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct StatusUpdate {
    pub(super) connector_id: Uuid,
    #[serde(serialize_with = "in_hundredths")]
    pub(super) voltage: Option<f32>,
    pub(super) vin_number: Option<Vin>,
    /// The time since the VIN was read, which may have been before a restart.
    pub(super) vin_age_seconds: Option<u64>,
    pub(super) round_trip_time: Option<u64>,
    pub(super) ignition: Option<bool>,
    pub(super) connection_uuid: Option<Uuid>,
    pub(super) buses: Vec<BusReport>,
    /// The policy's state while a connection is open.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) policy: Option<PolicyStateReport>,
}

/// The longest text in an error, in bytes. An error may quote the request that it refuses.
const MAX_QUOTE: usize = 1000;

/// The text of a message. An error that quotes a very long request is cut, so that no answer is longer than its
/// request.
pub(super) fn bounded_text(envelope: &Envelope) -> String {
    let text = envelope.to_text();
    if envelope.action != "error" || text.len() <= MAX_QUOTE {
        return text;
    }
    let mut envelope = envelope.clone();
    for value in envelope.message.as_object_mut().into_iter().flat_map(|object| object.values_mut()) {
        if let Some(text) = value.as_str().filter(|text| text.len() > MAX_QUOTE) {
            let end = text.floor_char_boundary(MAX_QUOTE);
            *value = format!("{}…", text.get(..end).unwrap_or_default()).into();
        }
    }
    envelope.to_text()
}

/// Serializes volts with at most two decimals. As JSON, an `f32` has the digits of the `f64` next to it, such as
/// 12.600000381469727.
fn in_hundredths<S: Serializer>(volts: &Option<f32>, serializer: S) -> Result<S::Ok, S::Error> {
    volts.map(|volts| (f64::from(volts) * 100.0).round() / 100.0).serialize(serializer)
}

/// A round-trip time in whole milliseconds, rounded.
pub(super) fn whole_milliseconds(round_trip: Duration) -> u64 {
    u64::try_from(round_trip.as_micros().saturating_add(500) / 1000).unwrap_or(u64::MAX)
}

/// `callForAttention`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct CallForAttention {
    pub(super) connector_id: Uuid,
}

/// `connectionOpened`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct ConnectionOpened {
    pub(super) connection_uuid: Uuid,
    pub(super) vin_number: Option<Vin>,
    pub(super) policy: PolicyReport,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::relay::wire::ProblemKind;

    #[test]
    fn the_voltage_is_reported_in_hundredths_of_a_volt() {
        for (volts, expected) in
            [(Some(12.6_f32), "12.6"), (Some(11.999), "12.0"), (Some(0.1 + 0.2), "0.3"), (None, "null")]
        {
            let mut text = Vec::new();
            in_hundredths(&volts, &mut serde_json::Serializer::new(&mut text)).unwrap();
            assert_eq!(String::from_utf8(text).unwrap(), expected);
        }
    }

    #[test]
    fn an_error_that_quotes_a_long_request_is_cut() {
        let name = "ä".repeat(30_000);
        let problem = ProblemKind::UnknownAction.problem(name.clone()).answering(&name);
        let text = bounded_text(&Envelope::error(&problem, Some("7".to_owned())));
        assert!(text.len() < 3 * MAX_QUOTE, "{} bytes", text.len());
        let read = Envelope::read(&text).unwrap();
        assert_eq!(read.request_id.as_deref(), Some("7"));
        assert!(read.message["detail"].as_str().unwrap().ends_with("ä…"));

        let short = Envelope::error(&ProblemKind::UnknownAction.problem("No such action."), None);
        assert_eq!(bounded_text(&short), short.to_text());
    }
}
