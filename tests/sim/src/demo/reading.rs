//! Reading one ECU: all that the real one was asked, and its trouble codes.

use std::time::Duration;

use connector_agent::relay::request::Switch;
use tokio::time::Instant;

use crate::operator::client::{Channel, Connection, ExchangeError, Timing};
use crate::operator::isotp;
use crate::operator::uds::{TroubleCode, trouble_codes};
use crate::vehicle::catalogue::{EcuAddress, EcuRecord};
use crate::vehicle::hex;

/// What the operator calls the bus.
pub(super) const BUS: &str = "HS";
/// How many digits of a PDU are shown.
const SHOWN_DIGITS: usize = 32;

/// What an ECU said.
pub(super) struct Reading {
    pub(super) lines: Vec<String>,
    /// How many of its answers are those of the real one.
    pub(super) right: usize,
    pub(super) codes: Vec<TroubleCode>,
}

impl Reading {
    pub(super) async fn take(connection: &Connection, ecu: &EcuRecord) -> anyhow::Result<Self> {
        let channel = open(connection, &ecu.address, Switch::Disabled).await?;
        let mut reading = Self { lines: Vec::new(), right: 0, codes: Vec::new() };
        for exchange in &ecu.exchanges {
            reading.ask(&channel, ecu, &exchange.request).await;
        }
        let response = channel.request(&[0x19, 0x02, 0xFF], &Timing::default()).await?;
        reading.codes = trouble_codes(&response.data).unwrap_or_default();
        for code in &reading.codes {
            reading.lines.push(format!(
                "{} {}: {code}, {}",
                ecu.name,
                ecu.address.request,
                code.status_in_words()
            ));
        }
        connection.close_channel(channel).await?;
        Ok(reading)
    }

    async fn ask(&mut self, channel: &Channel, ecu: &EcuRecord, request: &[u8]) {
        // the same request may be recorded twice: the simulated ECU answers as it did first
        let expected = ecu.exchanges.iter().find(|exchange| exchange.request == request);
        let expected = expected.map(|exchange| exchange.response.as_slice()).unwrap_or_default();
        let start = Instant::now();
        let response = channel.request(request, &Timing::default()).await;
        let is_right = match &response {
            Ok(response) => response.data == expected,
            // a refusal may be what was recorded
            Err(ExchangeError::Negative { service, code }) => expected == [0x7F, *service, *code],
            Err(_) => false,
        };
        self.right += usize::from(is_right);
        let answer = match &response {
            Ok(response) => shorten(&hex::format(&response.data)),
            Err(error) => error.to_string(),
        };
        self.lines.push(format!(
            "{} {}: {} -> {answer}, {}",
            ecu.name,
            ecu.address.request,
            shorten(&hex::format(request)),
            brief(start.elapsed())
        ));
    }
}

/// Opens a channel to an ECU.
pub(super) async fn open(
    connection: &Connection,
    ecu: &EcuAddress,
    keep_alive: Switch,
) -> anyhow::Result<Channel> {
    let config = isotp(BUS, ecu.request, Some(ecu.response), ecu.extended, keep_alive);
    Ok(connection.open_isotp(config).await?)
}

fn shorten(digits: &str) -> String {
    match digits.get(..SHOWN_DIGITS) {
        Some(start) if digits.len() > SHOWN_DIGITS => format!("{start}..."),
        _ => digits.to_owned(),
    }
}

/// A duration for people: `34 ms`, `2.1 s`.
pub(super) fn brief(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
