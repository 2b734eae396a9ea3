//! `connector-agent vin`: reads the VIN once, and prints it.

use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use connector_hal::board::{Board, LinuxBoard};
use connector_hal::can::CanBus;

use super::buses::{NamedBus, NamedBusKind, can_error, kline_error, open_can, open_kline};
use super::exit_status::CONFIG_STATUS;
use super::logging;
use super::vin_output::in_words;
use crate::config::doip::DoipConfig;
use crate::config::{BusKind, Config, KLINE_BIT_RATES, KLINE_VIN_BIT_RATES, LogFormat, VinSettings};
use crate::print_error_line;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::kline::LineToAsk;
use crate::vehicle::vin::{BusEnd, VehicleReading, read_vehicle};

/// The exit status when no VIN could be read; other errors have the status of `main`.
const NO_VIN_STATUS: u8 = 3;

/// Reads the VIN once, and prints it.
///
/// Exit status: 0 the VIN was read; 3 no VIN could be read; 1 an adapter failed or could not be opened; 2 the
/// command line is wrong.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub(super) struct VinArgs {
    /// A bus to read from, instead of the configured buses: can0, slcan:/dev/ttyACM0, kline:/dev/ttyUSB0,
    /// doip:eth0, or doip:192.168.7.2 to ask one gateway; may be given several times
    #[arg(long, value_name = "DEVICE")]
    bus: Vec<String>,
    /// Print one JSON object: vin_number, source, address, elapsed_ms, and conflict if ECUs disagree
    #[arg(long)]
    json: bool,
    /// The longest time to read on CAN and DoIP, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    budget_ms: u64,
    /// The longest time to read on a K-line, if CAN and DoIP give no VIN, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 12_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    kline_budget_ms: u64,
    /// A bit rate to try, in bit/s, the likeliest first; may be given several times [default: 500000, 250000;
    /// on K-lines 10400, 9600, 15625]
    #[arg(long, value_name = "BIT/S", value_parser = clap::value_parser!(u32).range(5_000..=1_000_000))]
    bit_rate: Vec<u32>,
}

impl VinArgs {
    fn settings(&self) -> VinSettings {
        let mut settings = VinSettings {
            budget: Duration::from_millis(self.budget_ms),
            kline_budget: Duration::from_millis(self.kline_budget_ms),
            ..VinSettings::default()
        };
        let of_can = self.bit_rates(|rate| !KLINE_BIT_RATES.contains(rate));
        settings.bit_rates = of_can.unwrap_or(settings.bit_rates);
        settings
    }

    /// The bit rates that are those of K-lines, not of CAN; `None` if there are none.
    fn kline_bit_rates(&self) -> Option<Vec<u32>> {
        self.bit_rates(|rate| KLINE_BIT_RATES.contains(rate))
    }

    fn bit_rates(&self, is_meant: impl Fn(&u32) -> bool) -> Option<Vec<u32>> {
        let rates: Vec<u32> = self.bit_rate.iter().copied().filter(is_meant).collect();
        (!rates.is_empty()).then_some(rates)
    }
}

/// Reads from the buses that are named, or else from the configured ones.
pub(super) async fn run(args: &VinArgs, path: &Path, format: Option<LogFormat>) -> anyhow::Result<ExitCode> {
    logging::init("warn", format.unwrap_or(LogFormat::Text))?;
    let (buses, hardware) = if args.bus.is_empty() {
        match Config::load(path) {
            Ok(config) => configured(config)?,
            Err(error) => {
                print_error_line!("{error}");
                print_error_line!("connector-agent: or name a bus: connector-agent vin --bus can0");
                return Ok(ExitCode::from(CONFIG_STATUS));
            }
        }
    } else {
        named(&args.bus)?
    };
    let (can, lines) = open(args, buses)?;
    read_and_print(args, can, lines, &hardware).await
}

/// The configured CAN buses and K-lines, and the hardware with the configured DoIP networks.
fn configured(config: Config) -> anyhow::Result<(Vec<NamedBus>, Hardware)> {
    let buses = config.buses.iter().filter(|bus| bus.kind != BusKind::Doip).map(NamedBus::configured);
    let buses = buses.collect::<anyhow::Result<_>>()?;
    let activation = LinuxBoard::open(&config.board).doip_activation();
    Ok((buses, Hardware::new([]).with_doip(config.doip_ports(), config.doip, activation)))
}

/// The CAN buses and K-lines of these names, and the hardware with the DoIP networks of these names.
fn named(names: &[String]) -> anyhow::Result<(Vec<NamedBus>, Hardware)> {
    let mut buses = Vec::new();
    let mut ports = Vec::new();
    for name in names {
        let bus = NamedBus::find(name, &[])?;
        match bus.kind {
            NamedBusKind::Doip(port) => ports.push(port),
            NamedBusKind::Can(_) | NamedBusKind::Kline(_) => buses.push(bus),
        }
    }
    Ok((buses, Hardware::new([]).with_doip(ports, DoipConfig::default(), None)))
}

/// The CAN buses and the K-lines that were opened.
type OpenedBuses = (Vec<Box<dyn CanBus>>, Vec<LineToAsk>);

/// Opens the CAN buses, then the K-lines. The error names the bus that cannot be opened, and says what to do.
fn open(args: &VinArgs, buses: Vec<NamedBus>) -> anyhow::Result<OpenedBuses> {
    let mut can = Vec::new();
    let mut klines = Vec::new();
    for bus in buses {
        match bus.kind {
            NamedBusKind::Can(device) => can.push(open_can(&device, &failed(&device))?),
            NamedBusKind::Kline(device) => klines.push((device, bus.bit_rates)),
            NamedBusKind::Doip(_) => {}
        }
    }
    let mut lines = Vec::new();
    for (device, configured) in klines {
        let line = open_kline(&device, &failed(&device))?;
        let bit_rates = args.kline_bit_rates().or(configured).unwrap_or_else(|| KLINE_VIN_BIT_RATES.to_vec());
        lines.push(LineToAsk { line, bit_rates });
    }
    Ok((can, lines))
}

fn failed(device: &str) -> String {
    format!("cannot read the VIN from {device}")
}

/// Reads the VIN from these CAN buses and K-lines, and from the hardware's DoIP networks, and prints it.
///
/// # Errors
///
/// No VIN was read and an adapter failed, or there is no bus.
async fn read_and_print(
    args: &VinArgs,
    buses: Vec<Box<dyn CanBus>>,
    lines: Vec<LineToAsk>,
    hardware: &Hardware,
) -> anyhow::Result<ExitCode> {
    if buses.is_empty() && lines.is_empty() && hardware.doip_ports.is_empty() {
        bail!(
            "there is no bus to read the VIN from: name one with --bus, e.g. --bus can0, or in the configuration"
        );
    }
    let reading = read_vehicle(hardware, buses, std::future::ready(lines), &args.settings()).await;
    let is_known = reading.report.vin.is_some();
    let words = in_words(&reading, &hardware.doip_ports);
    let text = if args.json { serde_json::to_string(&reading.report)? } else { words.clone() };
    check_devices(reading)?;
    writeln!(io::stdout().lock(), "{text}").context("cannot print the VIN")?;
    if args.json && !is_known {
        // the object has no field for the reason
        print_error_line!("connector-agent: {words}");
    }
    Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::from(NO_VIN_STATUS) })
}

/// The error of a device that failed, if there is no VIN. With a VIN, the error is only logged.
fn check_devices(reading: VehicleReading) -> anyhow::Result<()> {
    let is_known = reading.report.vin.is_some();
    for line in reading.lines {
        if let (Some(error), false) = (line.error, is_known) {
            return Err(kline_error(error, &failed(&line.device)));
        }
    }
    for bus in reading.buses {
        if let BusEnd::Failed(error) = bus.end {
            let error = can_error(error, &failed(bus.bus.device()));
            if !is_known {
                return Err(error);
            }
            tracing::warn!("{error:#}");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};

    use super::*;

    fn no_doip() -> Hardware {
        Hardware::new([])
    }

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        vin: VinArgs,
    }

    fn parse(line: &str) -> Result<VinArgs, clap::Error> {
        Line::try_parse_from(line.split(' ')).map(|line| line.vin)
    }

    #[test]
    fn a_command_line_may_name_buses_and_bit_rates() {
        let args = parse("vin --bus can0 --bus slcan:/dev/ttyACM0 --json --bit-rate 125000").unwrap();
        assert_eq!(args.bus, ["can0", "slcan:/dev/ttyACM0"]);
        assert!(args.json);
        let settings = args.settings();
        assert_eq!((settings.bit_rates, settings.budget), (vec![125_000], Duration::from_millis(1500)));
        assert_eq!(args.kline_bit_rates(), None);
        let args =
            parse("vin --bus can0 --bus kline:/dev/ttyUSB0 --bit-rate 9600 --bit-rate 125000").unwrap();
        assert_eq!((args.settings().bit_rates, args.kline_bit_rates()), (vec![125_000], Some(vec![9_600])));
        assert_eq!(parse("vin").unwrap().settings(), VinSettings::default());
        assert!(parse("vin --budget-ms 5").is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_bus_is_no_error_but_has_its_own_exit_status() {
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let adapter = || -> Vec<Box<dyn CanBus>> {
            vec![Box::new(bus.attach_adapter("can0", VirtualBus::full_capabilities()))]
        };
        let lines = std::future::ready(Vec::new());
        let reading = read_vehicle(&no_doip(), adapter(), lines, &VinSettings::default()).await;
        assert_eq!(
            in_words(&reading, &[]),
            format!(
                "No VIN could be read ({} ms): on can0, no other node is on the bus: is the plug in, and the ignition on?",
                reading.report.elapsed.as_millis()
            )
        );
        drop(reading);
        let status = read_and_print(&parse("vin").unwrap(), adapter(), vec![], &no_doip()).await.unwrap();
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::from(3)));
    }

    #[tokio::test]
    async fn without_any_bus_the_error_says_how_to_name_one() {
        let error = read_and_print(&parse("vin").unwrap(), vec![], vec![], &no_doip()).await.unwrap_err();
        assert!(error.to_string().contains("--bus can0"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_adapter_that_fails_is_an_error_if_no_vin_was_read() {
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let adapter = bus.attach_adapter("can0", VirtualBus::full_capabilities());
        bus.unplug("can0");
        let error = read_and_print(&parse("vin").unwrap(), vec![Box::new(adapter)], vec![], &no_doip())
            .await
            .unwrap_err();
        assert!(format!("{error:#}").contains("can0"), "{error:#}");
    }
}
