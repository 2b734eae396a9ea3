//! The binary `connector-sim`.

use std::process::ExitCode;

use clap::Parser;
use connector_sim::cli::{self, Cli};

fn main() -> ExitCode {
    match Cli::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::from(cli::exit_code(&error))
        }
    }
}
