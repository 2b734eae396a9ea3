//! The command line: one subcommand a simulator, each with its own arguments.

use clap::{Parser, Subcommand};

use crate::{cloud, operator, vehicle};

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
    /// A remote operator: tickets, and diagnostics of the vehicle through the relay.
    Operator(Box<operator::Args>),
    /// A vehicle, or a recording of one, behind an SLCAN adapter on a pseudo-terminal.
    Vehicle(vehicle::Args),
}

impl Cli {
    /// Servers tell what they do; what a person reads is not to be mixed with that.
    fn default_log_level(&self) -> &'static str {
        match self.command {
            Command::Cloud(_) | Command::Vehicle(_) => "info",
            Command::Operator(_) => "error",
        }
    }

    /// Runs the chosen simulator until it ends.
    ///
    /// # Errors
    ///
    /// What made the simulator give up.
    pub fn run(self) -> anyhow::Result<()> {
        tracing_subscriber::fmt()
            .with_env_filter(
                tracing_subscriber::EnvFilter::try_from_default_env()
                    .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(self.default_log_level())),
            )
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match self.command {
                Command::Cloud(args) => cloud::run(args).await,
                Command::Operator(args) => operator::run(*args).await,
                Command::Vehicle(args) => vehicle::run(args).await,
            }
        })
    }
}

/// The exit code of a failed command, which each documents in its help.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    error.downcast_ref::<operator::Failure>().map_or(1, operator::Failure::exit_code)
}
