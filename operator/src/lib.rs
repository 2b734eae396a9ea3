//! The remote operator's software: a client library, the command line `connector-operator` on top of it, and
//! gateways that let unmodified diagnostic tools work through the relay.

mod cli;
pub mod client;
pub mod doip_entity;
mod ecu_address;
pub mod flash;
pub mod gateway;
pub mod hex;
#[cfg(feature = "openobd")]
pub mod openobd;
pub mod uds;

pub use cli::{Cli, Failure, FailureKind, FlashProgress, run};
pub use ecu_address::{EcuAddress, EcuAddressError};
