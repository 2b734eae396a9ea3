//! A remote operator: a library, and a command line on top of it.

mod args;
pub mod client;
mod commands;
pub mod doip_entity;
mod ecu_address;
mod failure;
pub mod flash;
pub mod gateway;
pub mod hex;
mod progress;
pub mod uds;

pub use args::Args;
pub use commands::isotp;
pub use ecu_address::EcuAddress;
pub use failure::{Failure, FailureKind};
pub use progress::FlashProgress;

/// Runs a subcommand.
///
/// # Errors
///
/// A [`Failure`], with an exit code and words for a technician.
pub async fn run(args: Args) -> anyhow::Result<()> {
    Ok(commands::run(args).await?)
}
