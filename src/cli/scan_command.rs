//! `connector-agent scan`: looks for a vehicle's ECUs, and prints them.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use connector_hal::can::CanBus;
use connector_hal::timer::TimerKind;
use serde_json::json;

use crate::config::DoipPort;
use crate::vehicle::bit_rate::GiveUp;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::scan::run::{ScanError, Surroundings};
use crate::vehicle::scan::{DoipScanEnd, FoundEcu, Progress, ScanEnd, ScanOutcome, scan, scan_network};

/// The exit status when no ECU answered.
pub const NO_ECU_STATUS: u8 = 4;
/// The exit status when the scan was not brought to its end: the vehicle moves, or the ignition is off.
pub const STOPPED_STATUS: u8 = 5;

/// Looks for the ECUs on a CAN bus or behind a DoIP gateway, and prints them.
///
/// On CAN, each identifier that may be an ECU's gets one TesterPresent, each ECU a second one to be sure: 11-bit 0x600 to 0x7FF
/// and 0x241 to 0x25F, 29-bit 0x18DAxxF1, extended addresses at 0x6F1 and 0x750; then TP2.0 channels are asked for at
/// all logical addresses, and closed at once. A vehicle that moves is not scanned. By DoIP, addresses near the gateway's,
/// 0x1000 to 0x1FFF and 0x0001 to 0x0DFF get one TesterPresent, as far as 10 s allow.
///
/// Exit status: 0 ECUs were found; 4 none answered, nobody is on the bus, or there is no gateway; 5 the vehicle moves, or the ignition was
/// switched off; 1 an adapter failed or could not be opened; 2 the command line is wrong.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct ScanArgs {
    /// The bus: can0, slcan:/dev/ttyACM0, doip:eth0, one gateway as doip:192.168.7.2, or the name of a configured one;
    /// without it, all configured ones
    #[arg(long, value_name = "BUS")]
    pub bus: Vec<String>,
    /// Print one JSON object a bus: bus_name, bit_rate, outcome, elapsed_ms, and ecus as ecusFound has them
    #[arg(long)]
    pub json: bool,
    /// A bit rate to try, in bit/s, the likeliest first; may be given several times [default: the configured ones, or
    /// 500000, 250000]
    #[arg(long, value_name = "BIT/S", value_parser = clap::value_parser!(u32).range(5_000..=1_000_000))]
    pub bit_rate: Vec<u32>,
}

/// A bus to scan.
pub struct ScanBus {
    /// What the user calls it.
    pub name: String,
    /// What it is.
    pub target: ScanTarget,
}

/// What is scanned.
pub enum ScanTarget {
    /// A CAN bus.
    Can {
        /// The bit rates to try, in bit/s.
        bit_rates: Vec<u32>,
        /// The bus, opened.
        bus: Box<dyn CanBus>,
    },
    /// A DoIP network.
    Doip(DoipPort),
}

/// How a scan of either kind ended.
struct End {
    outcome: ScanOutcome,
    ecus: Vec<FoundEcu>,
    /// A CAN bus's, in bit/s.
    bit_rate: Option<u32>,
    elapsed: Duration,
}

impl From<ScanEnd> for End {
    fn from(end: ScanEnd) -> Self {
        let ScanEnd { outcome, ecus, bit_rate, elapsed } = end;
        let ecus = ecus.into_iter().map(FoundEcu::Can).collect();
        Self { outcome, ecus, bit_rate: Some(bit_rate), elapsed }
    }
}

impl From<DoipScanEnd> for End {
    fn from(end: DoipScanEnd) -> Self {
        let DoipScanEnd { outcome, ecus, elapsed } = end;
        Self { outcome, ecus, bit_rate: None, elapsed }
    }
}

/// Scans the buses one after the other, and prints what was found; the progress bar goes to standard error, where that
/// is a terminal.
///
/// # Errors
///
/// An adapter or a network fails, or standard output does.
pub async fn run(
    args: &ScanArgs,
    buses: Vec<ScanBus>,
    hardware: &Hardware,
    ignition: impl Fn() -> Option<bool>,
) -> anyhow::Result<ExitCode> {
    let mut status = if buses.is_empty() { 0 } else { NO_ECU_STATUS };
    for ScanBus { name, target } in buses {
        let mut terminal = Terminal { bar: Bar::new(&name), ignition: &ignition };
        let end = match target {
            ScanTarget::Can { bit_rates, mut bus } => {
                scan(bus.as_mut(), &bit_rates, TimerKind::Runtime, &mut terminal).await.map(End::from)
            }
            ScanTarget::Doip(port) => {
                let end = scan_network(hardware, &port, &mut terminal).await;
                Ok(end.with_context(|| format!("cannot scan {name}"))?.into())
            }
        };
        terminal.bar.clear();
        let end = match end {
            Ok(end) => end,
            Err(ScanError::GivenUp(why)) => {
                print(&if args.json {
                    given_up_json(&name, why)
                } else {
                    format!("{name}: {}.", describe(why))
                })?;
                continue;
            }
            Err(ScanError::Can(error)) => {
                return Err(anyhow::Error::from(error).context(format!("cannot scan {name}")));
            }
        };
        print(&if args.json { in_json(&name, &end) } else { in_words(&name, &end) })?;
        status = match (end.outcome, end.ecus.is_empty()) {
            (ScanOutcome::VehicleMoves | ScanOutcome::IgnitionOff, _) => STOPPED_STATUS,
            (_, false) if status != STOPPED_STATUS => 0,
            _ => status,
        };
    }
    Ok(ExitCode::from(status))
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

fn describe(why: GiveUp) -> &'static str {
    match why {
        GiveUp::NoNode => "nobody is on the bus: is the plug in, and the ignition on?",
        GiveUp::UnknownBitRate => {
            "the bus has none of the bit rates that were tried, so nothing was sent; try --bit-rate"
        }
        GiveUp::Refused => "the adapter can be set to none of the bit rates",
    }
}

fn outcome_name(outcome: ScanOutcome) -> &'static str {
    match outcome {
        ScanOutcome::Done => "done",
        ScanOutcome::VehicleMoves => "vehicle-moves",
        ScanOutcome::IgnitionOff => "ignition-off",
        ScanOutcome::NotAcknowledged => "nobody-on-bus",
        ScanOutcome::BusOff => "bus-off",
    }
}

fn given_up_json(name: &str, why: GiveUp) -> String {
    let outcome = match why {
        GiveUp::NoNode => "nobody-on-bus",
        GiveUp::UnknownBitRate => "unknown-bit-rate",
        GiveUp::Refused => "bit-rate-refused",
    };
    json!({"bus_name": name, "bit_rate": null, "outcome": outcome, "elapsed_ms": null, "ecus": []})
        .to_string()
}

fn in_json(name: &str, end: &End) -> String {
    let elapsed = u64::try_from(end.elapsed.as_millis()).unwrap_or(u64::MAX);
    json!({"bus_name": name, "bit_rate": end.bit_rate, "outcome": outcome_name(end.outcome), "elapsed_ms": elapsed,
           "ecus": end.ecus})
    .to_string()
}

fn in_words(name: &str, end: &End) -> String {
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
        other => format!("{name}: {count} until the scan was stopped after {seconds:.1} s: {other}."),
    });
    lines.join("\n")
}

/// How often the bar is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(100);
const BAR_WIDTH: u32 = 30;

struct Terminal<'a, I> {
    bar: Bar,
    ignition: &'a I,
}

impl<I: Fn() -> Option<bool>> Surroundings for Terminal<'_, I> {
    fn ignition(&self) -> Option<bool> {
        (self.ignition)()
    }

    fn tell(&mut self, progress: Progress) {
        self.bar.draw(progress);
    }
}

/// A progress bar on standard error, where that is a terminal.
struct Bar {
    name: String,
    is_shown: bool,
    drawn_at: Option<Instant>,
}

impl Bar {
    fn new(name: &str) -> Self {
        Self { name: name.to_owned(), is_shown: io::stderr().is_terminal(), drawn_at: None }
    }

    fn draw(&mut self, progress: Progress) {
        let is_due = self.drawn_at.is_none_or(|at| at.elapsed() >= DRAW_EVERY);
        if self.is_shown && is_due {
            self.drawn_at = Some(Instant::now());
            // a bar that cannot be drawn is no reason to stop
            let _ = write!(io::stderr().lock(), "\r{}", bar(&self.name, progress));
        }
    }

    fn clear(&self) {
        if self.is_shown {
            let _ = write!(io::stderr().lock(), "\r\x1b[K");
        }
    }
}

fn bar(name: &str, progress: Progress) -> String {
    let Progress { done, total, found } = progress;
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

    fn end(outcome: ScanOutcome) -> End {
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
    fn a_person_gets_a_line_an_ecu_and_a_program_an_object() {
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
    fn a_network_has_no_bit_rate_and_ecus_are_behind_gateways() {
        let [gateway, ecu] = [0x4010, 0x4011].map(LogicalAddress::new);
        let ecus = vec![FoundEcu::Doip { gateway, ecu }];
        let elapsed = Duration::from_millis(1500);
        let end = End::from(DoipScanEnd { outcome: ScanOutcome::Done, ecus, elapsed });
        assert_eq!(in_words("doip:eth0", &end), "0x4011 behind 0x4010, DoIP\ndoip:eth0: 1 ECU, in 1.5 s.");
        let object: serde_json::Value = serde_json::from_str(&in_json("doip:eth0", &end)).unwrap();
        assert_eq!(object["bit_rate"], json!(null));
        assert_eq!(
            object["ecus"],
            json!([{"request_id": 0x4011, "response_id": 0x4011, "gateway_id": 0x4010, "protocol": "doip"}])
        );
        let nobody = DoipScanEnd { outcome: ScanOutcome::NotAcknowledged, ecus: Vec::new(), elapsed };
        assert!(in_words("doip:eth0", &nobody.into()).starts_with("doip:eth0: no DoIP gateway answered"));
    }

    #[test]
    fn the_bar_fills_as_the_scan_goes_on() {
        let progress = |done| Progress { done, total: 200, found: 3 };
        assert_eq!(bar("can0", progress(0)), format!("can0 [{}]   0 %, 3 found", "-".repeat(30)));
        assert_eq!(
            bar("can0", progress(100)),
            format!("can0 [{}{}]  50 %, 3 found", "#".repeat(15), "-".repeat(15))
        );
        assert_eq!(bar("can0", progress(300)), format!("can0 [{}] 100 %, 3 found", "#".repeat(30)));
    }
}
