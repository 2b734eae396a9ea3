//! `connector-agent scan`: looks for a vehicle's ECUs, and prints them.

use std::cell::RefCell;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use connector_hal::board::{Board, LinuxBoard};
use connector_hal::can::CanBus;
use connector_hal::timer::TimerKind;

use super::buses::{NamedBus, NamedBusKind, can_error, open_can};
use super::exit_status::CONFIG_STATUS;
use super::logging;
use super::scan_output::{PrintedScan, ProgressBar, given_up_in_json, given_up_in_words, in_json, in_words};
use crate::config::{BusKind, Config, ConfiguredBus, DoipPort, LogFormat, VinSettings};
use crate::print_error_line;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::scan::{
    IdRange, ScanError, ScanObserver, ScanOutcome, ScanProgress, ScanRequest, scan, scan_network,
};

/// The exit status when no ECU answered.
const NO_ECU_STATUS: u8 = 4;
/// The exit status when the scan was stopped: the vehicle moves or may move, or the ignition is off.
const STOPPED_STATUS: u8 = 5;

/// Looks for the ECUs on a CAN bus or behind a DoIP gateway, and prints them.
///
/// On CAN, the scan listens for 3 s. Then it sends one TesterPresent to each identifier that may be an ECU's,
/// and a second one to each ECU that answered: 11-bit 0x700 to 0x7FF and 0x241 to 0x25F, 29-bit 0x18DAxxF1,
/// extended addresses at 0x750. Then the scan asks for a TP2.0 channel at every logical address, and closes the
/// channel immediately. That takes at most 15 s. By DoIP, the scan sends one TesterPresent to addresses near the
/// gateway's, to 0x1000 to 0x1FFF and to 0x0001 to 0x0DFF, for up to 10 s.
///
/// A vehicle that moves is not scanned. The scan needs an ECU that reports a speed of 0, or the option
/// --vehicle-stands: ECUs on a bench, electric vehicles and vehicles with the ignition off may report no speed.
///
/// Exit status: 0 ECUs were found; 4 no ECU answered, no other node is on the bus, or there is no gateway; 5
/// the vehicle moves or may move, or the ignition was switched off; 1 an adapter failed or could not be
/// opened; 2 the command line is wrong.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(super) struct ScanArgs {
    /// A bus to scan: can0, slcan:/dev/ttyACM0, doip:eth0, doip:192.168.7.2 for one gateway, or the name of a
    /// configured bus; may be given several times [default: all configured buses]
    #[arg(long, value_name = "BUS")]
    bus: Vec<String>,
    /// Print one JSON object for each bus: bus_name, bit_rate, outcome, elapsed_ms, and ecus as in ecusFound
    #[arg(long)]
    json: bool,
    /// A bit rate to try, in bit/s, the likeliest first; may be given several times [default: the configured
    /// bit rates, or 500000, 250000]
    #[arg(long, value_name = "BIT/S", value_parser = clap::value_parser!(u32).range(5_000..=1_000_000))]
    bit_rate: Vec<u32>,
    /// Scan although no ECU reports that the vehicle stands. You must have made sure that it does
    #[arg(long)]
    vehicle_stands: bool,
    /// Further 11-bit identifiers to ask, such as 0x600-0x6FF or 0x6F1; may be given several times. Most vehicles
    /// use these identifiers for other messages
    #[arg(long, value_name = "FROM-TO", value_delimiter = ',')]
    ranges: Vec<IdRange>,
}

impl ScanArgs {
    fn request(&self) -> ScanRequest {
        ScanRequest { vehicle_stands: self.vehicle_stands, ranges: self.ranges.clone() }
    }
}

/// A bus to scan.
struct ScanBus {
    /// The name that the user knows.
    name: String,
    target: ScanTarget,
}

enum ScanTarget {
    Can {
        /// The bit rates to try, in bit/s.
        bit_rates: Vec<u32>,
        bus: Box<dyn CanBus>,
    },
    Doip(DoipPort),
}

/// Scans the buses that are named, or else the configured ones.
pub(super) async fn run(args: &ScanArgs, path: &Path, format: Option<LogFormat>) -> anyhow::Result<ExitCode> {
    logging::init("warn", format.unwrap_or(LogFormat::Text))?;
    // a bus that is named by its device needs no configuration
    let config = match Config::load(path) {
        Ok(config) => Some(config),
        Err(error) if args.bus.is_empty() => {
            print_error_line!("{error}");
            print_error_line!("connector-agent: or name a bus: connector-agent scan --bus can0");
            return Ok(ExitCode::from(CONFIG_STATUS));
        }
        Err(_) => None,
    };
    let buses = open(args, config.as_ref())?;
    let board = config.as_ref().map(|config| LinuxBoard::open(&config.board));
    let activation = board.as_ref().and_then(Board::doip_activation);
    let doip = config.map(|config| config.doip).unwrap_or_default();
    let hardware = Hardware::new([]).with_doip([], doip, activation);
    let board = RefCell::new(board);
    let ignition = || board.borrow_mut().as_mut().and_then(Board::ignition);
    scan_and_print(args, buses, &hardware, ignition).await
}

/// Opens the buses. The error names the bus that cannot be opened, and says what to do.
fn open(args: &ScanArgs, config: Option<&Config>) -> anyhow::Result<Vec<ScanBus>> {
    let buses = config.iter().flat_map(|config| &config.buses);
    let configured: Vec<ConfiguredBus> = buses.filter(|bus| bus.kind != BusKind::Kline).cloned().collect();
    let named: Vec<(String, anyhow::Result<NamedBus>)> = if args.bus.is_empty() {
        let name = |bus: &ConfiguredBus| bus.name.clone().unwrap_or_else(|| bus.device.clone());
        configured.iter().map(|bus| (name(bus), NamedBus::configured(bus))).collect()
    } else {
        args.bus.iter().map(|name| (name.clone(), NamedBus::find(name, &configured))).collect()
    };
    let open = |(name, bus): (String, anyhow::Result<NamedBus>)| {
        let bus = bus.with_context(|| failed(&name))?;
        let target = target(args, &bus)?;
        Ok(ScanBus { name: bus.name, target })
    };
    named.into_iter().map(open).collect()
}

fn target(args: &ScanArgs, bus: &NamedBus) -> anyhow::Result<ScanTarget> {
    match &bus.kind {
        NamedBusKind::Can(device) => {
            let usual = || bus.bit_rates.clone().unwrap_or_else(|| VinSettings::default().bit_rates);
            let bit_rates = if args.bit_rate.is_empty() { usual() } else { args.bit_rate.clone() };
            Ok(ScanTarget::Can { bit_rates, bus: open_can(device, &failed(&bus.name))? })
        }
        NamedBusKind::Doip(port) => Ok(ScanTarget::Doip(port.clone())),
        NamedBusKind::Kline(_) => {
            Err(anyhow::anyhow!("a K-line cannot be scanned").context(failed(&bus.name)))
        }
    }
}

fn failed(name: &str) -> String {
    format!("cannot scan {name}")
}

/// Scans the buses one after the other, and prints the ECUs. The progress bar goes to standard error, if that
/// is a terminal.
///
/// # Errors
///
/// An adapter or a network fails, or standard output does.
async fn scan_and_print(
    args: &ScanArgs,
    buses: Vec<ScanBus>,
    hardware: &Hardware,
    ignition: impl Fn() -> Option<bool>,
) -> anyhow::Result<ExitCode> {
    let request = args.request();
    let mut status = if buses.is_empty() { 0 } else { NO_ECU_STATUS };
    for ScanBus { name, target } in buses {
        let mut terminal = Terminal { bar: ProgressBar::new(&name), ignition: &ignition };
        let scanned = match target {
            ScanTarget::Can { bit_rates, mut bus } => {
                scan(bus.as_mut(), &bit_rates, &request, TimerKind::Runtime, &mut terminal)
                    .await
                    .map(PrintedScan::from)
            }
            ScanTarget::Doip(port) => {
                let end = scan_network(hardware, &port, &request, &mut terminal).await;
                Ok(end.with_context(|| failed(&name))?.into())
            }
        };
        terminal.bar.clear();
        let end = match scanned {
            Ok(end) => end,
            Err(ScanError::GivenUp(why)) => {
                print(&if args.json { given_up_in_json(&name, why) } else { given_up_in_words(&name, why) })?;
                continue;
            }
            Err(ScanError::Can(error)) => return Err(can_error(error, &failed(&name))),
        };
        print(&if args.json { in_json(&name, &end) } else { in_words(&name, &end) })?;
        status = match (end.outcome, end.ecus.is_empty()) {
            (
                ScanOutcome::VehicleMoves
                | ScanOutcome::MayMove
                | ScanOutcome::OtherTester
                | ScanOutcome::IgnitionOff,
                _,
            ) => STOPPED_STATUS,
            (_, false) if status != STOPPED_STATUS => 0,
            _ => status,
        };
    }
    Ok(ExitCode::from(status))
}

fn print(text: &str) -> io::Result<()> {
    writeln!(io::stdout().lock(), "{text}")
}

struct Terminal<'a, I> {
    bar: ProgressBar,
    ignition: &'a I,
}

impl<I: Fn() -> Option<bool>> ScanObserver for Terminal<'_, I> {
    fn ignition(&self) -> Option<bool> {
        (self.ignition)()
    }

    fn handle_progress(&mut self, progress: ScanProgress) {
        self.bar.draw(progress);
    }
}
