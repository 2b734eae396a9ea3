//! The command line: `connector-agent run|vin|scan|check`.

mod check;
mod core_dump;
mod exit_status;
mod logging;
mod run;
mod scan;
pub mod scan_command;
pub mod vin;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use connector_hal::board::{Board, LinuxBoard};
use connector_hal::future::BoxFuture;
use connector_hal::kline::DEVICE_PREFIX;

use crate::cli::scan_command::ScanArgs;
use crate::config::DoipPort;
use crate::config::KLINE_VIN_BIT_RATES;
use crate::config::doip::DoipConfig;
use crate::config::{BusKind, Config, ConfiguredBus, LogFormat};
use crate::vehicle::hardware::Hardware;
use exit_status::CONFIG_STATUS;
use vin::VinArgs;

/// Connector-side agent for remote vehicle diagnostics.
///
/// Exit status: 0 success, or ended by SIGTERM; 1 failure; 2 wrong command line; 3 `vin` read no VIN; 4
/// `scan` found no ECU; 5 `scan` was stopped; 78 unusable configuration.
#[derive(Debug, Parser)]
#[command(name = "connector-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: CliCommand,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
    /// The format of log lines, instead of the configuration's
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<FormatArg>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum FormatArg {
    /// Text for people
    Text,
    /// One JSON object per line
    Json,
}

#[derive(Debug, Subcommand)]
enum CliCommand {
    /// Keep the connector online and relay diagnostic sessions until SIGTERM
    Run,
    /// Read the VIN once and print it
    Vin(VinArgs),
    /// Scan for the vehicle's ECUs and print them
    Scan(ScanArgs),
    /// Report every problem with configuration and hardware, and its remedy
    Check,
}

/// Runs the command line; the first argument is the program's name.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            let _nowhere_to_print = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    let format = cli.log_format.map(|format| match format {
        FormatArg::Text => LogFormat::Text,
        FormatArg::Json => LogFormat::Json,
    });
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("connector-agent: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            CliCommand::Run => run::run(&cli.config, format).await,
            CliCommand::Vin(args) => vin(&args, &cli.config, format).await,
            CliCommand::Scan(args) => scan::run(&args, &cli.config, format).await,
            CliCommand::Check => check::run(&cli.config),
        }
    });
    // a thread that hangs in a device must not keep the process alive
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        eprintln!("connector-agent: {}", in_one_line(&error));
        ExitCode::FAILURE
    })
}

/// The error with its causes, except those that the error's text already contains.
fn in_one_line(error: &anyhow::Error) -> String {
    error.chain().fold(String::new(), |text, cause| {
        let cause = cause.to_string();
        match text.as_str() {
            "" => cause,
            _ if text.contains(&cause) => text,
            _ => format!("{text}: {cause}"),
        }
    })
}

/// The name of a bus's device, with a prefix for a K-line.
fn device_name(bus: &ConfiguredBus) -> String {
    match bus.kind {
        BusKind::Kline if !bus.device.starts_with(DEVICE_PREFIX) => format!("{DEVICE_PREFIX}{}", bus.device),
        _ => bus.device.clone(),
    }
}

/// `vin`: from the buses named, or else from the configured ones.
async fn vin(args: &VinArgs, path: &Path, format: Option<LogFormat>) -> anyhow::Result<ExitCode> {
    logging::init("warn", format.unwrap_or(LogFormat::Text))?;
    let mut configured = Vec::new();
    let (names, hardware) = if args.bus.is_empty() {
        match Config::load(path) {
            Ok(config) => {
                let can = config.buses.iter().filter(|bus| bus.kind != BusKind::Doip);
                let names = can.map(device_name).collect();
                configured.clone_from(&config.buses);
                let activation = LinuxBoard::open(&config.board).doip_activation();
                (names, Hardware::new([]).with_doip(config.doip_ports(), config.doip, activation))
            }
            Err(error) => {
                eprintln!("{error}");
                eprintln!("connector-agent: or name a bus: connector-agent vin --bus can0");
                return Ok(ExitCode::from(CONFIG_STATUS));
            }
        }
    } else {
        let (doip, can): (Vec<_>, Vec<_>) =
            args.bus.iter().cloned().partition(|name| name.starts_with("doip:"));
        let port = |name: &String| anyhow::Ok(DoipPort { pins: [3, 11], device: name.parse()? });
        let ports = doip.iter().map(port).collect::<anyhow::Result<Vec<_>>>()?;
        (can, Hardware::new([]).with_doip(ports, DoipConfig::default(), None))
    };
    let open = |device: &str| -> BoxFuture<'static, _> {
        let device = device.to_owned();
        Box::pin(async move { connector_hal::can::open(&device) })
    };
    let (klines, names): (Vec<_>, Vec<_>) =
        names.into_iter().partition(|name: &String| name.starts_with(DEVICE_PREFIX));
    let buses = vin::open_buses(&names, open).await?;
    let named = args.kline_bit_rates();
    let with_bit_rates = |name: String| {
        let bus = configured.iter().find(|bus| device_name(bus) == name);
        let usual = || bus.map_or(KLINE_VIN_BIT_RATES.to_vec(), |bus| bus.bit_rates().to_vec());
        let bit_rates = named.clone().unwrap_or_else(usual);
        (name, bit_rates)
    };
    let lines = vin::open_lines(klines.into_iter().map(with_bit_rates).collect())?;
    vin::run(args, buses, lines, &hardware).await
}
