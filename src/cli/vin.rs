//! `connector-agent vin`: reads the VIN once, and prints it.

use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use connector_hal::can::{CanBus, CanError};
use connector_hal::future::BoxFuture;
use connector_hal::kline::{self as hal_kline, KLineError};
use connector_hal::timer::TimerKind;

use crate::config::DoipPort;
use crate::config::KLINE_BIT_RATES;
use crate::config::VinSettings;
use crate::vehicle::bit_rate::GiveUp;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::doip::DoipReading;
use crate::vehicle::vin::kline;
use crate::vehicle::vin::kline::{LineReading, LineToAsk};
use crate::vehicle::vin::{BusEnd, BusReading, Candidate, VinReading, VinReport, by_doip, read_beside};

/// The exit status when no VIN can be read from the vehicle; other errors have the status of `main`.
pub const NO_VIN_STATUS: u8 = 3;

/// Reads the VIN once, and prints it.
///
/// Exit status: 0 the VIN was read; 3 the vehicle tells none, or there is no vehicle; 1 an adapter failed or could not
/// be opened; 2 the command line is wrong.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct VinArgs {
    /// A bus to read from, instead of the configured ones: can0, slcan:/dev/ttyACM0, kline:/dev/ttyUSB0, doip:eth0 or,
    /// to ask one gateway, doip:192.168.7.2; may be given several times
    #[arg(long, value_name = "DEVICE")]
    pub bus: Vec<String>,
    /// Print one JSON object: vin_number, source, address, elapsed_ms, and conflict if ECUs disagree
    #[arg(long)]
    pub json: bool,
    /// The time reading may take, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 1500, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub budget_ms: u64,
    /// The time reading may take on a K-line, where CAN told none, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 12_000, value_parser = clap::value_parser!(u64).range(100..=60_000))]
    pub kline_budget_ms: u64,
    /// A bit rate to try, in bit/s, the likeliest first; may be given several times [default: 500000, 250000; on K-lines
    /// 10400, 9600, 15625]
    #[arg(long, value_name = "BIT/S", value_parser = clap::value_parser!(u32).range(5_000..=1_000_000))]
    pub bit_rate: Vec<u32>,
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

    /// The bit rates named for K-lines, which are none of CAN's; `None`: none was.
    pub fn kline_bit_rates(&self) -> Option<Vec<u32>> {
        self.bit_rates(|rate| KLINE_BIT_RATES.contains(rate))
    }

    fn bit_rates(&self, is_meant: impl Fn(&u32) -> bool) -> Option<Vec<u32>> {
        let rates: Vec<u32> = self.bit_rate.iter().copied().filter(is_meant).collect();
        (!rates.is_empty()).then_some(rates)
    }
}

/// Opens the buses of these names; the error names the bus that can't be opened, and what to do about it.
pub async fn open_buses<F>(names: &[String], open: F) -> anyhow::Result<Vec<Box<dyn CanBus>>>
where
    F: Fn(&str) -> BoxFuture<'static, Result<Box<dyn CanBus>, CanError>>,
{
    let mut buses = Vec::new();
    for name in names {
        buses.push(open(name).await.map_err(|error| with_advice(name, error))?);
    }
    Ok(buses)
}

/// Reads the VIN from these CAN buses and K-lines, and from the hardware's DoIP networks, and prints it; an error if no
/// VIN was read and an adapter failed.
pub async fn run(
    args: &VinArgs,
    buses: Vec<Box<dyn CanBus>>,
    lines: Vec<LineToAsk>,
    hardware: &Hardware,
) -> anyhow::Result<ExitCode> {
    let networks = &hardware.doip_ports;
    if buses.is_empty() && lines.is_empty() && networks.is_empty() {
        bail!(
            "there is no bus to read the VIN from: name one with --bus, e.g. --bus can0, or in the configuration"
        );
    }
    let settings = args.settings();
    let reading = read_beside(buses, by_doip(hardware, settings.budget), &settings).await;
    let VinReading { mut report, buses, others } = reading;
    let mut line_readings = Vec::new();
    if report.vin.is_none()
        && let Some((read, readings)) =
            kline::read(lines, settings.kline_budget, report.elapsed, TimerKind::Precise).await
    {
        (report, line_readings) = (read, readings);
    }
    let is_known = report.vin.is_some();
    let networks: Vec<(&DoipPort, &DoipReading)> = networks.iter().zip(&others).collect();
    let in_words = describe(&report, &buses, &networks, &line_readings);
    let text = if args.json { serde_json::to_string(&report)? } else { in_words.clone() };
    for reading in line_readings {
        if let (Some(error), false) = (reading.error, is_known) {
            return Err(line_advice(&reading.device, error));
        }
    }
    for bus in buses {
        let device = bus.bus.device().to_owned();
        if let BusEnd::Failed(error) = bus.end {
            let error = with_advice(&device, error);
            if !is_known {
                return Err(error);
            }
            tracing::warn!("{error:#}");
        }
    }
    print(&text).context("cannot print the VIN")?;
    if args.json && !is_known {
        // the object has no place for the reason
        eprintln!("connector-agent: {in_words}");
    }
    Ok(if is_known { ExitCode::SUCCESS } else { ExitCode::from(NO_VIN_STATUS) })
}

fn print(text: &str) -> io::Result<()> {
    use std::io::Write as _;
    writeln!(io::stdout().lock(), "{text}")
}

/// What to tell a person.
fn describe(
    report: &VinReport,
    buses: &[BusReading],
    networks: &[(&DoipPort, &DoipReading)],
    lines: &[LineReading],
) -> String {
    let elapsed = report.elapsed.as_millis();
    let (Some(vin), Some(source), Some(address)) = (report.vin, report.source, report.address) else {
        return format!("No VIN can be read ({elapsed} ms): {}", why_not(buses, networks, lines));
    };
    let mut text = format!("The VIN is {vin}; the ECU at {address} told it by {source}, in {elapsed} ms.");
    let others: Vec<&Candidate> = report.conflict.iter().filter(|candidate| candidate.vin != vin).collect();
    for other in others {
        // writing to a String cannot fail
        let _ = write!(text, "\nThe ECU at {} disagrees: {}, by {}.", other.address, other.vin, other.source);
    }
    text
}

fn why_not(buses: &[BusReading], networks: &[(&DoipPort, &DoipReading)], lines: &[LineReading]) -> String {
    let reasons = buses.iter().map(|bus| {
        let reason = match &bus.end {
            BusEnd::Told | BusEnd::NotTold => "the vehicle's ECUs tell none".to_owned(),
            BusEnd::GivenUp(GiveUp::NoNode) => {
                "nobody is on the bus: is the plug in, and the ignition on?".to_owned()
            }
            BusEnd::GivenUp(GiveUp::UnknownBitRate) => {
                "the bus has none of the bit rates that were tried, so nothing was sent; try --bit-rate"
                    .to_owned()
            }
            BusEnd::GivenUp(GiveUp::Refused) => "the adapter can be set to none of the bit rates".to_owned(),
            BusEnd::Stopped => "the time was up".to_owned(),
            BusEnd::Failed(error) => error.to_string(),
        };
        format!("on {}, {reason}", bus.bus.device())
    });
    let lines = lines.iter().map(|line| {
        let reason = match &line.error {
            Some(error) => error.to_string(),
            None => "no ECU tells one: is the plug in, and the ignition on?".to_owned(),
        };
        format!("on {}, {reason}", line.device)
    });
    let by_doip = networks.iter().map(|(port, reading)| {
        let advice = if reading.late.is_some() { "; --budget-ms gives it more" } else { "" };
        format!("on {}, {}{advice}", port.device, reading.why_not)
    });
    reasons.chain(lines).chain(by_doip).collect::<Vec<_>>().join("; ")
}

/// Opens the K-lines of these names, each to be asked at its bit rates; the error names the one that can't be opened,
/// and what to do about it.
pub fn open_lines(lines: Vec<(String, Vec<u32>)>) -> anyhow::Result<Vec<LineToAsk>> {
    let open = |(name, bit_rates): (String, Vec<u32>)| {
        let line = hal_kline::open(&name).map_err(|error| line_advice(&name, error))?;
        Ok(LineToAsk { line, bit_rates })
    };
    lines.into_iter().map(open).collect()
}

fn line_advice(name: &str, error: KLineError) -> anyhow::Error {
    let kind = match &error {
        KLineError::Device { source, .. } => Some(source.kind()),
        _ => None,
    };
    let advice = match (&error, kind) {
        (KLineError::Name(_), _) => "",
        (_, Some(io::ErrorKind::NotFound)) => {
            ": it is not there; is it plugged in? `ls /dev/tty*` lists serial devices"
        }
        (_, Some(io::ErrorKind::PermissionDenied)) => {
            ": no permission; run as root, or join the group that owns the device (often dialout)"
        }
        (_, Some(io::ErrorKind::ResourceBusy)) => ": another program uses it; end that first",
        (KLineError::Device { .. }, _) => ": is it plugged in, and does no other program use it?",
        (KLineError::Unsupported { .. }, _) => ": take an adapter with a UART that can do any bit rate",
    };
    anyhow!(error).context(format!("cannot read the VIN from {name}{advice}"))
}

/// The error with what to do about it.
fn with_advice(name: &str, error: CanError) -> anyhow::Error {
    let kind = match &error {
        CanError::Device { source, .. } => Some(source.kind()),
        _ => None,
    };
    let advice = match (&error, kind) {
        (CanError::Name(_), _) => "",
        (_, Some(io::ErrorKind::NotFound)) => {
            ": it is not there; is it plugged in? `ip link` lists CAN interfaces, `ls /dev/tty*` serial adapters"
        }
        (_, Some(io::ErrorKind::PermissionDenied)) => {
            ": no permission; run as root, or join the group that owns the device (often dialout)"
        }
        (_, Some(io::ErrorKind::NetworkDown)) => {
            ": the interface is down; bring it up with `ip link set DEVICE up type can bitrate 500000`"
        }
        (_, Some(io::ErrorKind::ResourceBusy)) => ": another program uses it; end that first",
        (CanError::Device { .. }, _) => ": is it plugged in, and does no other program use it?",
        (CanError::Protocol { .. }, _) => ": is it an SLCAN adapter? Unplug it, and plug it in again",
        (CanError::Unsupported { .. }, _) => ": choose a bit rate that it can do with --bit-rate",
    };
    anyhow!(error).context(format!("cannot read the VIN from {name}{advice}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use connector_hal::can::CanId;
    use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};

    use super::*;
    use crate::vehicle::vin::{VinSource, read};

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

    fn candidate(vin: &str, address: u32) -> Candidate {
        let address = CanId::try_from(address).unwrap().into();
        Candidate { vin: vin.parse().unwrap(), source: VinSource::Obd, address }
    }

    #[test]
    fn a_person_is_told_in_a_sentence() {
        let told = [candidate("1M8GDM9AXKP042788", 0x7E8), candidate("WVWZZZ1KZ6W000001", 0x7EA)];
        let one = VinReport::from_candidates(&told[..1], Duration::from_millis(84));
        assert_eq!(
            describe(&one, &[], &[], &[]),
            "The VIN is 1M8GDM9AXKP042788; the ECU at 0x7E8 told it by OBD, in 84 ms."
        );
        let two = VinReport::from_candidates(&told, Duration::from_millis(84));
        assert_eq!(
            describe(&two, &[], &[], &[]),
            "The VIN is 1M8GDM9AXKP042788; the ECU at 0x7E8 told it by OBD, in 84 ms.\n\
             The ECU at 0x7EA disagrees: WVWZZZ1KZ6W000001, by OBD."
        );
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_bus_is_no_error_but_has_its_own_exit_status() {
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let open = |name: &str| -> BoxFuture<'static, Result<Box<dyn CanBus>, CanError>> {
            let adapter = bus.attach_adapter(name, VirtualBus::full_capabilities());
            Box::pin(async move { Ok(Box::new(adapter) as Box<dyn CanBus>) })
        };
        let buses = open_buses(&["can0".to_owned()], open).await.unwrap();
        let reading = read(buses, &VinSettings::default()).await;
        assert_eq!(
            describe(&reading.report, &reading.buses, &[], &[]),
            format!(
                "No VIN can be read ({} ms): on can0, nobody is on the bus: is the plug in, and the ignition on?",
                reading.report.elapsed.as_millis()
            )
        );
        let buses = open_buses(&["can0".to_owned()], open).await.unwrap();
        let status = run(&parse("vin").unwrap(), buses, vec![], &no_doip()).await.unwrap();
        assert_eq!(format!("{status:?}"), format!("{:?}", ExitCode::from(3)));
    }

    #[tokio::test]
    async fn a_bus_that_cannot_be_opened_is_named_with_what_to_do() {
        let open = |name: &str| -> BoxFuture<'static, Result<Box<dyn CanBus>, CanError>> {
            let source = io::Error::from(io::ErrorKind::NotFound);
            let error = CanError::Device { device: name.to_owned(), source };
            Box::pin(async move { Err(error) })
        };
        let error = open_buses(&["can7".to_owned()], open).await.err().unwrap();
        let text = format!("{error:#}");
        assert!(text.contains("from can7") && text.contains("ip link"), "{text}");
    }

    #[tokio::test]
    async fn without_any_bus_the_error_says_how_to_name_one() {
        let error = run(&parse("vin").unwrap(), vec![], vec![], &no_doip()).await.unwrap_err();
        assert!(error.to_string().contains("--bus can0"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_adapter_that_fails_is_an_error_if_no_vin_was_read() {
        let bus = VirtualBus::new(VirtualBusConfig::default());
        let adapter = bus.attach_adapter("can0", VirtualBus::full_capabilities());
        bus.unplug("can0");
        let error =
            run(&parse("vin").unwrap(), vec![Box::new(adapter)], vec![], &no_doip()).await.unwrap_err();
        assert!(format!("{error:#}").contains("can0"), "{error:#}");
    }
}
