//! Transports to the cloud, for REST and websocket: name resolution, TCP, the tunnel through a proxy, and TLS.
//!
//! [`Dialer`] makes a transport. `happy_eyeballs` decides when to try which address, and `address_book` keeps
//! what is known about them.

mod address_book;
mod dialer;
mod error;
mod happy_eyeballs;
mod head;
mod resolver;
mod transport;
mod tunnel;

pub use dialer::Dialer;
pub use error::{DialError, ProxyError};
pub(in crate::cloud) use head::read_head;
pub(in crate::cloud) use transport::SocketTransport;
