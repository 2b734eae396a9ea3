//! The cloud: logging in, the REST resources, and the websocket link.
//!
//! [`auth`], [`reconnect`] and [`liveness`] decide, without I/O or clock; [`Authenticator`], [`Cloud`] and [`Link`]
//! do.

pub mod auth;
mod authenticator;
pub mod backoff;
mod connect;
mod core_dump;
mod error;
mod keeper;
mod kept;
mod link;
pub mod liveness;
mod patient_verifier;
pub mod reconnect;
mod resources;
mod rest;
mod retry_after;
mod socket;
mod status;
pub mod tls;
mod tokens;
mod transport;

pub use authenticator::Authenticator;
pub use core_dump::disable_core_dumps;
pub use error::{Chain, RestError};
pub use kept::{KeepError, Kept, KeptLogin, KeptRejections};
pub use link::{DownReason, Link, LinkEvent, LinkSettings, Outgoing};
pub use resources::{ActiveTicket, ConnectorRecord, differences};
pub use rest::{Cloud, Rest};
pub use status::{CloudState, CloudStatus, LoginState};
pub use tokens::{AccessToken, Tokens};
