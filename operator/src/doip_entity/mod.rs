//! A DoIP entity (ISO 13400-2:2012 and 2019), which answers testers in front of ECUs.
//!
//! [`Entity`] is the protocol without I/O, and [`Server`] adds the sockets and the connections of testers.
//! The gateway for DoIP tools and the simulated vehicle use both.

mod activation;
mod config;
mod connection;
mod entity;
mod server;
mod sockets;
mod testers;
pub mod tls;

pub use config::{ActivationPolicy, Answer, Confirmation, EntityConfig, Timeouts, no_vin};
pub use connection::ConnectionId;
pub use entity::{Entity, Event, Output, Timer};
pub use server::Server;
pub use sockets::{ListenConfig, ServerAddresses};
