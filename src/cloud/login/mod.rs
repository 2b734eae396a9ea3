//! Logging in: obtaining access tokens, refreshing them, and storing them across restarts.
//!
//! [`auth`] decides when to log in and when to refresh, and `login_task` carries that out. [`Authenticator`]
//! is the handle of that task. [`LoginStore`] is the login on disk; `store_task` saves to it in the
//! background.

pub(crate) mod auth;
mod authenticator;
mod login_task;
mod store;
mod store_task;
mod token_reports;

pub use authenticator::Authenticator;
pub use store::{LoginStore, StoredLogin};
