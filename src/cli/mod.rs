//! The command line: `connector-agent run|vin|scan|check|policy|audit`.

mod audit;
mod buses;
mod check;
mod core_dump;
mod exit_status;
mod log_line;
mod logging;
#[cfg(test)]
mod manual_tests;
mod output;
mod policy;
mod run;
mod scan;
mod scan_output;
mod vin;
mod vin_output;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::audit::AuditArgs;
use self::policy::PolicyArgs;
use self::scan::ScanArgs;
use self::vin::VinArgs;
use crate::config::LogFormat;
use crate::print_error_line;
use crate::vehicle::doip_network::linux::wait_for_removals;

pub use log_line::{LineFormat, clean};
pub use output::{has_colors, write_line};

/// The version of the workspace's programs, and in a release build the commit of their sources.
pub const VERSION: &str = env!("CONNECTOR_AGENT_VERSION");

/// Connector-side agent for remote vehicle diagnostics.
///
/// Exit status: 0 success, or ended by SIGTERM; 1 failure; 2 wrong command line; 3 `vin` read no VIN; 4
/// `scan` found no ECU; 5 `scan` was stopped; 78 unusable configuration.
#[derive(Debug, Parser)]
#[command(name = "connector-agent", version = VERSION)]
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
    /// Explain what may be sent to the vehicle, and when
    Policy(PolicyArgs),
    /// Check or print the record of refusals, consent and programming
    Audit(AuditArgs),
}

/// How long the process waits at its end until its addresses on the vehicle's network are gone: ten times as long as
/// the kernel is usually busy with another interface.
const REMOVAL_TIME: Duration = Duration::from_secs(1);

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
            print_error_line!("connector-agent: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            CliCommand::Run => run::run(&cli.config, format).await,
            CliCommand::Vin(args) => vin::run(&args, &cli.config, format).await,
            CliCommand::Scan(args) => scan::run(&args, &cli.config, format).await,
            CliCommand::Check => check::run(&cli.config),
            CliCommand::Policy(args) => policy::run(&args, &cli.config),
            CliCommand::Audit(args) => audit::run(&args, &cli.config),
        }
    });
    // a thread that hangs in a device must not keep the process alive
    runtime.shutdown_background();
    wait_for_removals(REMOVAL_TIME);
    outcome.unwrap_or_else(|error| {
        print_error_line!("connector-agent: {}", in_one_line(&error));
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
