//! Reading one ECU: all that the real one was asked, and its trouble codes.

use std::time::Duration;

use connector_agent::relay::wire::request::Switch;
use tokio::time::Instant;

use super::plugged::Plugged;
use crate::operator::client::{Channel, Connection, ExchangeError, Timing};
use crate::operator::uds::{TroubleCode, trouble_codes};
use crate::vehicle::catalogue::EcuRecord;
use crate::vehicle::hex;

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
    pub(super) async fn take(
        connection: &Connection,
        plugged: &Plugged,
        place: usize,
        ecu: &EcuRecord,
    ) -> anyhow::Result<Self> {
        let channel = plugged.open(connection, place, ecu, Switch::Disabled).await?;
        let who = format!("{} {}", ecu.name, plugged.name(place, ecu));
        let mut reading = Self { lines: Vec::new(), right: 0, codes: Vec::new() };
        for exchange in &ecu.exchanges {
            reading.ask(&channel, ecu, &who, &exchange.request).await;
        }
        let response = channel.request(&[0x19, 0x02, 0xFF], &Timing::default()).await?;
        reading.codes = trouble_codes(&response.data).unwrap_or_default();
        for code in &reading.codes {
            reading.lines.push(format!("{who}: {code}, {}", code.status_in_words()));
        }
        connection.close_channel(channel).await?;
        Ok(reading)
    }

    async fn ask(&mut self, channel: &Channel, ecu: &EcuRecord, who: &str, request: &[u8]) {
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
            "{who}: {} -> {answer}, {}",
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

/// A duration for people: `34 ms`, `2.1 s`.
pub(super) fn brief(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
