//! The command line: one subcommand for each simulator.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{cloud, demo, trials, vehicle};

/// Simulated vehicle, sandbox cloud, demo and trials for connector-agent.
#[derive(Debug, Parser)]
#[command(version = connector_agent::cli::VERSION)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sandbox cloud: REST, websocket and relay on one TLS port, with its own certificate authority.
    Cloud(cloud::Args),
    /// Run a whole diagnostic session: vehicle, cloud, agent and operator, with one line for each step.
    Demo(demo::Args),
    /// Measure the sandbox cloud with many connectors and portals.
    Load(cloud::load::Args),
    /// Test the agent's binary under faults: killed, disk full, network gone, clock wrong.
    Trials(trials::Args),
    /// Simulate a vehicle, or replay a recording of one.
    Vehicle(Box<vehicle::Args>),
    /// The agent's own command line, which the demo starts as a child process.
    #[command(hide = true, disable_help_flag = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

impl Cli {
    /// Servers log at INFO by default. The other commands print for people, so they log errors only.
    fn default_log_level(&self) -> &'static str {
        match self.command {
            Command::Cloud(_) | Command::Vehicle(_) => "info",
            Command::Demo(_) | Command::Load(_) | Command::Trials(_) | Command::Agent { .. } => "error",
        }
    }

    /// Runs the chosen simulator until it ends.
    ///
    /// # Errors
    ///
    /// Returns the error that ended the simulator.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let log_level = self.default_log_level();
        let command = match self.command {
            // the agent sets up its own log and runtime
            Command::Agent { arguments } => return Ok(demo::agent::main(arguments)),
            command => command,
        };
        tracing_subscriber::fmt()
            .with_env_filter(
                tracing_subscriber::EnvFilter::try_from_default_env()
                    .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(log_level)),
            )
            .with_writer(std::io::stderr)
            .with_ansi(connector_agent::cli::has_colors(&std::io::stderr()))
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match command {
                Command::Cloud(args) => cloud::run(args).await,
                Command::Demo(args) => demo::run(args).await,
                Command::Load(args) => cloud::load::run(args).await,
                Command::Trials(args) => trials::run(args).await,
                Command::Vehicle(args) => vehicle::run(*args).await,
                Command::Agent { .. } => Ok(()),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The exit code of a failed command. The help of each command documents its codes.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let demo = error.downcast_ref::<demo::DemoError>().map(|error| error.exit_code());
    demo.or_else(|| {
        error.downcast_ref::<connector_operator::Failure>().map(connector_operator::Failure::exit_code)
    })
    .unwrap_or(1)
}
