//! The binary `connector-operator`.

use std::process::ExitCode;

use clap::Parser as _;
use connector_agent::cli::{LineFormat, has_colors};
use connector_agent::config::LogFormat;
use connector_agent::print_error_line;
use connector_operator::{Cli, run};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(has_colors(&std::io::stderr()))
        .event_format(LineFormat(LogFormat::Text))
        .init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print_error_line!("Error: cannot start the asynchronous runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            print_error_line!("Error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
