//! A DoIP entity (ISO 13400-2:2012 and 2019), which serves testers on behalf of ECUs.
//!
//! [`Entity`] is the protocol without any I/O; [`Server`] is its sockets. The simulated vehicle and the
//! operator's gateway are both built on them.

mod activation;
mod config;
mod connection;
mod entity;
mod server;
pub mod tls;

pub(crate) use config::no_vin;
pub use config::{ActivationPolicy, Answer, Confirmation, EntityConfig, Timeouts};
pub use connection::ConnectionId;
pub use entity::{Entity, EntityTimer, Event, Output};
pub use server::{ListenConfig, Server, ServerAddresses};
