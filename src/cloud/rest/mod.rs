//! The REST API: requests, answers, and errors.

mod client;
mod error;
mod http_client;
mod resources;
mod tokens;

pub(crate) use client::USER_AGENT_NAME;

pub use client::Rest;
pub use error::{ErrorChain, RestError};
pub use resources::{ActiveTicket, ConnectorRecord, differences};
pub use tokens::{AccessToken, Tokens};
