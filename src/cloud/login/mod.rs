//! Logging in: obtaining access tokens, refreshing them, and storing them across restarts.
//!
//! [`auth`] decides when to log in and when to refresh. [`Authenticator`] carries that out in a task.
//! [`LoginStore`] is the login on disk; `store_task` saves to it in the background.

pub(crate) mod auth;
mod authenticator;
mod store;
mod store_task;

pub use authenticator::Authenticator;
pub use store::{LoginStore, StoreError, StoredLogin};
