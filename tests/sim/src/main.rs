//! The binary `connector-sim`.

use std::process::ExitCode;

use clap::Parser;
use connector_agent::print_error_line;
use connector_sim::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            print_error_line!("Error: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
