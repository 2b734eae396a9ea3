//! A DoIP entity (ISO 13400-2:2012 and 2019), which serves testers on behalf of ECUs.
//!
//! [`Entity`] is the protocol without any I/O; [`Server`] is its sockets. The gateway for DoIP tools and the
//! simulated vehicle use both.

mod activation;
mod config;
mod connection;
mod entity;
mod server;
pub mod tls;

pub use config::no_vin;
pub use config::{ActivationPolicy, Answer, Confirmation, EntityConfig, Timeouts};
pub use connection::ConnectionId;
pub use entity::{Entity, EntityTimer, Event, Output};
pub use server::{ListenConfig, Server, ServerAddresses};
