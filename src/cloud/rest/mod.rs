//! The REST API: requests, answers, and errors.

pub(super) mod client;
mod error;
mod resources;
pub(super) mod retry_after;
mod tokens;
pub(super) mod transport;

pub use client::Rest;
pub use error::{Chain, RestError};
pub use resources::{ActiveTicket, ConnectorRecord, differences};
pub use tokens::{AccessToken, Tokens};
