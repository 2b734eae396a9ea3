//! Reading one ECU: every recorded request, and the trouble codes.

use connector_agent::relay::wire::request::Switch;
use tokio::time::Instant;

use super::demo_vehicle::DemoVehicle;
use super::duration::brief;
use crate::vehicle::catalogue::EcuRecord;
use connector_operator::client::{Channel, Connection, ExchangeError, Timing};
use connector_operator::hex;
use connector_operator::uds::{TroubleCode, trouble_codes};

/// The number of hex digits of a PDU that are shown.
const SHOWN_DIGITS: usize = 32;

/// The answers of one ECU.
pub(super) struct Reading {
    pub(super) lines: Vec<String>,
    /// The number of answers that equal the recorded ones.
    pub(super) right: usize,
    pub(super) codes: Vec<TroubleCode>,
}

impl Reading {
    pub(super) async fn read(
        connection: &Connection,
        vehicle: &DemoVehicle,
        place: usize,
        ecu: &EcuRecord,
    ) -> anyhow::Result<Self> {
        let channel = vehicle.open(connection, place, ecu, Switch::Disabled).await?;
        let label = format!("{} {}", ecu.name, vehicle.name(place, ecu));
        let mut reading = Self { lines: Vec::new(), right: 0, codes: Vec::new() };
        for exchange in &ecu.exchanges {
            reading.ask(&channel, ecu, &label, &exchange.request).await;
        }
        let response = channel.request(&[0x19, 0x02, 0xFF], &Timing::default()).await?;
        reading.codes = trouble_codes(&response.data).unwrap_or_default();
        for code in &reading.codes {
            reading.lines.push(format!("{label}: {code}, {}", code.status_in_words()));
        }
        connection.close_channel(channel).await?;
        Ok(reading)
    }

    async fn ask(&mut self, channel: &Channel, ecu: &EcuRecord, label: &str, request: &[u8]) {
        // a request may be recorded twice: the simulated ECU gives the first answer
        let expected = ecu.exchanges.iter().find(|exchange| exchange.request == request);
        let expected = expected.map(|exchange| exchange.response.as_slice()).unwrap_or_default();
        let start = Instant::now();
        let response = channel.request(request, &Timing::default()).await;
        let is_right = match &response {
            Ok(response) => response.data == expected,
            // the recorded answer may be a negative response
            Err(ExchangeError::Negative { service, code }) => expected == [0x7F, *service, *code],
            Err(_) => false,
        };
        self.right += usize::from(is_right);
        let answer = match &response {
            Ok(response) => shorten(&hex::format(&response.data)),
            Err(error) => error.to_string(),
        };
        self.lines.push(format!(
            "{label}: {} -> {answer}, {}",
            shorten(&hex::format(request)),
            brief(start.elapsed())
        ));
    }
}

fn shorten(digits: &str) -> String {
    match digits.get(..SHOWN_DIGITS) {
        Some(start) if digits.len() > SHOWN_DIGITS => format!("{start}..."),
        _ => digits.to_owned(),
    }
}
