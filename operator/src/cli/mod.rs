//! The command line `connector-operator`: the subcommands and their output.

mod args;
mod consent;
mod diagnosis;
mod dump;
mod failure;
mod flash;
mod gateways;
mod login;
#[cfg(feature = "openobd")]
mod openobd;
mod progress;
mod tickets;
mod values;

use std::io::Write as _;
use std::time::Duration;

use clap::CommandFactory as _;
use clap_complete::Shell;
use connector_agent::print_error_line;

use crate::client::Connection;

use args::Command;

pub use args::Cli;
pub use failure::{Failure, FailureKind};
pub use progress::FlashProgress;

/// The bus name in all requests of this program.
const BUS: &str = "HS";

/// Runs a subcommand.
///
/// # Errors
///
/// A [`Failure`], which has an exit code and advice for a technician.
pub async fn run(cli: Cli) -> Result<(), Failure> {
    if let Command::Completions { shell } = cli.command {
        print_completions(shell);
        return Ok(());
    }
    #[cfg(feature = "openobd")]
    if let Command::OpenobdGateway(gateway) = &cli.command {
        return openobd::openobd_gateway(&cli.cloud, gateway).await;
    }
    let operator = login::login(&cli.cloud).await?;
    match &cli.command {
        Command::Tickets => return tickets::list(&operator).await,
        Command::Join => return tickets::join(&operator, &cli.ticket).await,
        Command::Complete => return tickets::complete(&operator, &cli.ticket).await,
        Command::Cancel { reason } => return tickets::cancel(&operator, &cli.ticket, reason).await,
        _ => {}
    }
    let connection = tickets::connect(&operator, &cli.ticket).await?;
    if let Some(policy) = &connection.joined().policy {
        print_error_line!("  {policy}");
    }
    let result = tokio::select! {
        result = diagnose(&connection, &cli) => result,
        () = consent::show_policy(connection.policy()) => Ok(()),
    };
    // the result counts even if closing the connection fails
    if let Err(error) = connection.close().await {
        tracing::warn!(%error, "the connection was not closed");
    }
    result
}

/// Runs a subcommand that needs a connection to the vehicle.
async fn diagnose(connection: &Connection, cli: &Cli) -> Result<(), Failure> {
    if let Command::Vin = cli.command {
        return diagnosis::identify(connection).await;
    }
    if let Command::Consent { class, text } = &cli.command {
        return consent::ask(connection, class.name(), text).await;
    }
    let bus = cli.bus.config(BUS);
    if let Command::DoipGateway(gateway) = &cli.command {
        return gateways::doip_gateway(connection, gateway, bus, cli.ecu.p2()).await;
    }
    connection.configure_buses(vec![bus]).await?;
    match &cli.command {
        Command::Read { request } => diagnosis::read(connection, &cli.ecu, &request.0).await,
        Command::Dtcs => diagnosis::list_trouble_codes(connection, &cli.ecu).await,
        Command::Flash { file, address, ask_consent } => {
            if *ask_consent {
                let text = format!("program {} with {}", cli.ecu.request_id, file.display());
                consent::ask(connection, args::ConsentClass::Programming.name(), &text).await?;
            }
            flash::flash_file(connection, &cli.ecu, file, *address).await
        }
        Command::Dump { seconds } => dump::dump(connection, seconds.map(Duration::from_secs)).await,
        Command::CanGateway(gateway) => {
            let fd = cli.bus.data_bit_rate.is_some();
            gateways::can_gateway(connection, gateway, BUS, fd, cli.ecu.p2()).await
        }
        _ => Ok(()),
    }
}

fn print_completions(shell: Shell) {
    let mut command = Cli::command();
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    // a reader that has closed the pipe needs no more
    let _closed_pipe = std::io::stdout().write_all(&script);
}
