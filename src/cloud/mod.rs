//! The cloud: logging in, the REST resources, and the websocket link.
//!
//! [`login::auth`], [`websocket::reconnect`] and [`websocket::liveness`] decide, without I/O or clock;
//! [`login::Authenticator`], [`Cloud`] and [`websocket::Link`] do.

mod api;
pub mod backoff;
pub mod login;
pub mod rest;
mod status;
pub mod websocket;

pub use api::Cloud;
pub use status::{CloudState, CloudStatus, LoginState};
