//! Logging in: access tokens, kept fresh and kept across restarts.

pub mod auth;
mod authenticator;
mod keeper;
mod kept;

pub use authenticator::Authenticator;
pub use kept::{KeepError, Kept, KeptLogin, KeptRejections};
