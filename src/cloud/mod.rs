//! The cloud: connecting, logging in, the REST resources, and the websocket.
//!
//! `dial::happy_eyeballs`, `login::auth`, `websocket::reconnect` and `websocket::liveness` make the decisions,
//! without I/O or clock. [`dial::Dialer`], [`login::Authenticator`], [`Cloud`] and [`websocket::CloudSocket`]
//! carry them out.

mod api;
mod backoff;
pub mod dial;
pub mod login;
pub mod rest;
mod retry_after;
pub(crate) mod state_file;
mod status;
pub mod websocket;

pub use api::Cloud;
pub use state_file::StateFileError;
pub use status::{CloudState, CloudStatus, LoginState};
