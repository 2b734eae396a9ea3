//! The command line: `connector-agent run|vin|scan|check`.

mod buses;
mod check;
mod core_dump;
mod logging;
mod run;
mod scan;
mod scan_output;
mod vin;
mod vin_output;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use self::scan::ScanArgs;
use self::vin::VinArgs;
use crate::config::LogFormat;

/// The exit status for a configuration that cannot be used (EX_CONFIG of sysexits.h).
const CONFIG_STATUS: u8 = 78;

/// Connector-side agent for remote vehicle diagnostics.
///
/// Exit status: 0 done, or ended by SIGTERM; 1 something failed; 2 the command line is wrong; 3 `vin` found no VIN;
/// 4 `scan` found no ECU, 5 it was stopped; 78 the configuration cannot be used.
#[derive(Debug, Parser)]
#[command(name = "connector-agent", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// The configuration file
    #[arg(long, global = true, value_name = "FILE", default_value = crate::config::DEFAULT_PATH)]
    config: PathBuf,
    /// How log lines look, instead of what the configuration says
    #[arg(long, global = true, value_enum, value_name = "FORMAT")]
    log_format: Option<Format>,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Format {
    /// For people
    Text,
    /// One JSON object a line
    Json,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the connector online and relay diagnostic sessions, until SIGTERM
    Run,
    /// Read the VIN once, and print it
    Vin(VinArgs),
    /// Look for the vehicle's ECUs, and print them
    Scan(ScanArgs),
    /// Name everything wrong in configuration and hardware, with what to do about it
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
        Format::Text => LogFormat::Text,
        Format::Json => LogFormat::Json,
    });
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("connector-agent: the runtime could not be started: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Run => run::run(&cli.config, format).await,
            Command::Vin(args) => vin::run(&args, &cli.config, format).await,
            Command::Scan(args) => scan::run(&args, &cli.config, format).await,
            Command::Check => check::run(&cli.config),
        }
    });
    // a thread that hangs in a device must not keep the process
    runtime.shutdown_background();
    outcome.unwrap_or_else(|error| {
        eprintln!("connector-agent: {}", in_one_line(&error));
        ExitCode::FAILURE
    })
}

/// The error with its causes, but for those that it tells itself.
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
