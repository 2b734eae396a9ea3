//! A remote operator: a library, and a command line on top of it.

mod args;
pub mod client;
mod commands;
mod failure;
pub mod flash;
pub mod gateway;
mod progress;
pub mod uds;

pub use args::Args;
pub(crate) use commands::isotp;
pub use failure::{Failure, FailureKind};
pub use progress::FlashProgress;

/// Runs `connector-sim operator`.
///
/// # Errors
///
/// A [`Failure`], with an exit code and words for a technician.
pub async fn run(args: Args) -> anyhow::Result<()> {
    Ok(commands::run(args).await?)
}
