//! The simulators' binary.

use clap::Parser;
use connector_sim::cli::Cli;

fn main() -> anyhow::Result<()> {
    Cli::parse().run()
}
