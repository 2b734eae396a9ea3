//! The command line: one subcommand a simulator, each with its own arguments.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{cloud, demo, trials, vehicle};

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
    /// Everything at once: vehicle, cloud, the agent and an operator, told step by step.
    Demo(demo::Args),
    /// Trials of the agent's own binary: killed, without disk space, without network, with a wrong clock.
    Trials(trials::Args),
    /// A vehicle, or a recording of one, behind an SLCAN adapter on a pseudo-terminal.
    Vehicle(Box<vehicle::Args>),
    /// The agent's own command line, for the demo.
    #[command(hide = true, disable_help_flag = true)]
    Agent {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
}

impl Cli {
    /// Servers tell what they do; what a person reads is not to be mixed with that.
    fn default_log_level(&self) -> &'static str {
        match self.command {
            Command::Cloud(_) | Command::Vehicle(_) => "info",
            Command::Demo(_) | Command::Trials(_) | Command::Agent { .. } => "error",
        }
    }

    /// Runs the chosen simulator until it ends.
    ///
    /// # Errors
    ///
    /// What made the simulator give up.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let log_level = self.default_log_level();
        let command = match self.command {
            // it has a log and a runtime of its own
            Command::Agent { arguments } => return Ok(demo::agent::main(arguments)),
            command => command,
        };
        tracing_subscriber::fmt()
            .with_env_filter(
                tracing_subscriber::EnvFilter::try_from_default_env()
                    .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(log_level)),
            )
            .with_writer(std::io::stderr)
            .init();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(async {
            match command {
                Command::Cloud(args) => cloud::run(args).await,
                Command::Demo(args) => demo::run(args).await,
                Command::Trials(args) => trials::run(args).await,
                Command::Vehicle(args) => vehicle::run(*args).await,
                Command::Agent { .. } => Ok(()),
            }
        })?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The exit code of a failed command, which each documents in its help.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    let demo = error.downcast_ref::<demo::DemoError>().map(|error| error.exit_code());
    demo.or_else(|| {
        error.downcast_ref::<connector_operator::Failure>().map(connector_operator::Failure::exit_code)
    })
    .unwrap_or(1)
}
