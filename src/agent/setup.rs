//! The parts of an agent, and the handle that controls it.

use connector_hal::board::Board;

use crate::cloud::dial::Dialer;
use crate::cloud::rest::RestError;
use crate::config::{Config, Pincode};
use crate::vehicle::hardware::Hardware;

/// The parts of an agent.
pub struct Setup {
    /// The configuration.
    pub config: Config,
    /// The pincode to log in with.
    pub pincode: Pincode,
    /// The vehicle's buses.
    pub hardware: Hardware,
    /// The board.
    pub board: Box<dyn Board>,
    /// Connects to the cloud.
    pub dialer: Dialer,
    /// The seed of the random waits before retries.
    pub seed: u64,
}

/// A request of the process to the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Close an open connection in good order, and end.
    Shutdown,
    /// End as soon as no connection is open, so that the process can start the agent with another
    /// configuration.
    Restart,
}

/// Why the agent could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The REST client could not be made.
    #[error("cannot set up the client of the cloud")]
    Rest(#[from] RestError),
}
