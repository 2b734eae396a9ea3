//! The lines, JSON objects and progress bar that `connector-agent scan` prints.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant};

use serde_json::json;

use super::vin_output::give_up_reason;
use crate::vehicle::bit_rate::GiveUp;
use crate::vehicle::scan::{DoipScanEnd, FoundEcu, ScanEnd, ScanOutcome, ScanProgress};

/// The end of a scan of either kind.
pub(super) struct PrintedScan {
    pub(super) outcome: ScanOutcome,
    pub(super) ecus: Vec<FoundEcu>,
    /// The bit rate of a CAN bus, in bit/s.
    bit_rate: Option<u32>,
    elapsed: Duration,
}

impl From<ScanEnd> for PrintedScan {
    fn from(end: ScanEnd) -> Self {
        let ScanEnd { outcome, ecus, bit_rate, elapsed } = end;
        let ecus = ecus.into_iter().map(FoundEcu::Can).collect();
        Self { outcome, ecus, bit_rate: Some(bit_rate), elapsed }
    }
}

impl From<DoipScanEnd> for PrintedScan {
    fn from(end: DoipScanEnd) -> Self {
        let DoipScanEnd { outcome, ecus, elapsed } = end;
        Self { outcome, ecus, bit_rate: None, elapsed }
    }
}

pub(super) fn given_up_in_words(name: &str, why: GiveUp) -> String {
    format!("{name}: {}.", give_up_reason(why))
}

fn outcome_name(outcome: ScanOutcome) -> &'static str {
    match outcome {
        ScanOutcome::Done => "done",
        ScanOutcome::OutOfTime => "out-of-time",
        ScanOutcome::VehicleMoves => "vehicle-moves",
        ScanOutcome::MayMove => "vehicle-may-move",
        ScanOutcome::OtherTester => "other-tester",
        ScanOutcome::IgnitionOff => "ignition-off",
        ScanOutcome::NotAcknowledged => "no-node",
        ScanOutcome::FellAsleep => "bus-asleep",
        ScanOutcome::BusOff => "bus-off",
    }
}

pub(super) fn given_up_in_json(name: &str, why: GiveUp) -> String {
    let outcome = match why {
        GiveUp::NoNode => "no-node",
        GiveUp::UnknownBitRate => "unknown-bit-rate",
        GiveUp::Refused => "bit-rate-refused",
    };
    json!({"bus_name": name, "bit_rate": null, "outcome": outcome, "elapsed_ms": null, "ecus": []})
        .to_string()
}

pub(super) fn in_json(name: &str, end: &PrintedScan) -> String {
    let elapsed = u64::try_from(end.elapsed.as_millis()).unwrap_or(u64::MAX);
    json!({"bus_name": name, "bit_rate": end.bit_rate, "outcome": outcome_name(end.outcome), "elapsed_ms": elapsed,
           "ecus": end.ecus})
    .to_string()
}

pub(super) fn in_words(name: &str, end: &PrintedScan) -> String {
    if end.bit_rate.is_none() && end.outcome == ScanOutcome::NotAcknowledged {
        return format!("{name}: no DoIP gateway answered: is it connected, and awake?");
    }
    let mut lines: Vec<String> = end.ecus.iter().map(FoundEcu::to_string).collect();
    let seconds = end.elapsed.as_secs_f64();
    let count = match end.ecus.len() {
        1 => "1 ECU".to_owned(),
        count => format!("{count} ECUs"),
    };
    let bit_rate = end
        .bit_rate
        .map_or_else(String::new, |bit_rate| format!(" at {} kbit/s", f64::from(bit_rate) / 1000.0));
    lines.push(match end.outcome {
        ScanOutcome::Done => format!("{name}: {count}{bit_rate}, in {seconds:.1} s."),
        other => format!("{name}: {count} until the scan stopped after {seconds:.1} s: {other}."),
    });
    if end.outcome == ScanOutcome::MayMove {
        lines.push(format!("{name}: if you made sure that the vehicle stands, add --vehicle-stands."));
    }
    lines.join("\n")
}

/// The interval at which the bar is drawn: the bar moves smoothly, and a terminal over a slow line keeps up.
const DRAW_EVERY: Duration = Duration::from_millis(100);
const BAR_WIDTH: u32 = 30;

/// A progress bar on standard error, where that is a terminal.
pub(super) struct ProgressBar {
    name: String,
    is_shown: bool,
    drawn_at: Option<Instant>,
}

impl ProgressBar {
    pub(super) fn new(name: &str) -> Self {
        Self { name: name.to_owned(), is_shown: io::stderr().is_terminal(), drawn_at: None }
    }

    pub(super) fn draw(&mut self, progress: ScanProgress) {
        let is_due = self.drawn_at.is_none_or(|at| at.elapsed() >= DRAW_EVERY);
        if self.is_shown && is_due {
            self.drawn_at = Some(Instant::now());
            // a bar that cannot be drawn is no reason to stop
            let _ = write!(io::stderr().lock(), "\r{}", bar(&self.name, progress));
        }
    }

    pub(super) fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn bar(name: &str, progress: ScanProgress) -> String {
    let ScanProgress { done, total, found } = progress;
    let total = total.max(1);
    let filled =
        usize::try_from(u64::from(BAR_WIDTH) * u64::from(done.min(total)) / u64::from(total)).unwrap_or(0);
    let width = usize::try_from(BAR_WIDTH).unwrap_or(0);
    let percent = u64::from(done.min(total)) * 100 / u64::from(total);
    let (full, empty) = ("#".repeat(filled), "-".repeat(width.saturating_sub(filled)));
    format!("{name} [{full}{empty}] {percent:>3} %, {found} found")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::doip::LogicalAddress;
    use crate::vehicle::scan::{EcuFound, ScanProtocol};
    use connector_hal::can::CanId;

    fn end(outcome: ScanOutcome) -> PrintedScan {
        let standard = CanId::standard_truncated;
        let isotp = EcuFound {
            request: standard(0x750),
            response: standard(0x758),
            extended_request_address: Some(0x0F),
            extended_response_address: Some(0x0F),
            protocol: ScanProtocol::Isotp,
        };
        let tp20 = EcuFound {
            request: standard(0x200),
            response: standard(0x209),
            extended_request_address: None,
            extended_response_address: None,
            protocol: ScanProtocol::Tp20,
        };
        let elapsed = Duration::from_millis(4210);
        ScanEnd { outcome, ecus: vec![isotp, tp20], bit_rate: 500_000, elapsed }.into()
    }

    #[test]
    fn text_output_has_a_line_per_ecu_and_json_an_object() {
        assert_eq!(
            in_words("can0", &end(ScanOutcome::Done)),
            "0x750 -> 0x758, extended address 0x0F, ISO-TP\n\
             0x200 -> 0x209, logical address 0x09, TP2.0\n\
             can0: 2 ECUs at 500 kbit/s, in 4.2 s."
        );
        assert!(
            in_words("can0", &end(ScanOutcome::VehicleMoves)).ends_with("after 4.2 s: the vehicle moves.")
        );
        let object: serde_json::Value =
            serde_json::from_str(&in_json("can0", &end(ScanOutcome::Done))).unwrap();
        assert_eq!(
            object,
            json!({"bus_name": "can0", "bit_rate": 500_000, "outcome": "done", "elapsed_ms": 4210, "ecus": [
                {"request_id": 0x750, "response_id": 0x758, "extended_request_address": 15,
                 "extended_response_address": 15, "protocol": "isotp"},
                {"request_id": 0x200, "response_id": 0x209, "logical_address": 9, "protocol": "tp20"},
            ]})
        );
    }

    #[test]
    fn a_network_has_no_bit_rate_and_names_the_gateway_of_each_ecu() {
        let [gateway, ecu] = [0x4010, 0x4011].map(LogicalAddress::new);
        let ecus = vec![FoundEcu::Doip { gateway, ecu }];
        let elapsed = Duration::from_millis(1500);
        let end = PrintedScan::from(DoipScanEnd { outcome: ScanOutcome::Done, ecus, elapsed });
        assert_eq!(in_words("doip:eth0", &end), "0x4011 behind 0x4010, DoIP\ndoip:eth0: 1 ECU, in 1.5 s.");
        let object: serde_json::Value = serde_json::from_str(&in_json("doip:eth0", &end)).unwrap();
        assert_eq!(object["bit_rate"], json!(null));
        assert_eq!(
            object["ecus"],
            json!([{"request_id": 0x4011, "response_id": 0x4011, "gateway_id": 0x4010, "protocol": "doip"}])
        );
        let no_gateway = DoipScanEnd { outcome: ScanOutcome::NotAcknowledged, ecus: Vec::new(), elapsed };
        assert!(in_words("doip:eth0", &no_gateway.into()).starts_with("doip:eth0: no DoIP gateway answered"));
    }

    #[test]
    fn the_progress_bar_fills_during_the_scan() {
        let progress = |done| ScanProgress { done, total: 200, found: 3 };
        assert_eq!(bar("can0", progress(0)), format!("can0 [{}]   0 %, 3 found", "-".repeat(30)));
        assert_eq!(
            bar("can0", progress(100)),
            format!("can0 [{}{}]  50 %, 3 found", "#".repeat(15), "-".repeat(15))
        );
        assert_eq!(bar("can0", progress(300)), format!("can0 [{}] 100 %, 3 found", "#".repeat(30)));
    }
}
