//! The agent's binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    connector_agent::cli::run(std::env::args_os())
}
