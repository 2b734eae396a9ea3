//! The websocket to the cloud: connecting, connecting again, and detecting a dead link.

mod connect;
mod link;
pub mod liveness;
pub mod reconnect;
mod socket;

pub use link::{DownReason, Link, LinkEvent, LinkSettings, Outgoing};
