//! A DoIP entity (ISO 13400-2:2012 and 2019): what answers a tester, in front of whatever ECUs.
//!
//! [`Entity`] is the protocol without any I/O; [`Server`] is the sockets around it. The simulated vehicle and the
//! operator's gateway are both built on them.

mod activation;
mod config;
mod connection;
mod entity;
mod server;
pub mod tls;

pub use config::{ActivationPolicy, Answer, Confirmation, EntityConfig, Timeouts, no_vin};
pub use connection::ConnectionId;
pub use entity::{Entity, Event, Output, Timer};
pub use server::{ListenConfig, Server, ServerAddresses};
