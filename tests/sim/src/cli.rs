//! The command line: one subcommand a simulator, each with its own arguments.

use clap::{Parser, Subcommand};

use crate::{cloud, vehicle};

/// Simulated vehicle, sandbox cloud and operator for connector-agent.
#[derive(Debug, Parser)]
#[command(version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The sandbox cloud: REST, websocket and relay on one TLS port, with its own certificate authority.
    Cloud(cloud::Args),
    /// A vehicle, or a recording of one, behind an SLCAN adapter on a pseudo-terminal.
    Vehicle(vehicle::Args),
}

impl Cli {
    /// Runs the chosen simulator until it ends.
    ///
    /// # Errors
    ///
    /// What made the simulator give up.
    pub fn run(self) -> anyhow::Result<()> {
        tracing_subscriber::fmt()
            .with_env_filter(
                tracing_subscriber::EnvFilter::try_from_default_env()
                    .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info")),
            )
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match self.command {
                Command::Cloud(args) => cloud::run(args).await,
                Command::Vehicle(args) => vehicle::run(args).await,
            }
        })
    }
}
