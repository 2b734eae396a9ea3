//! Transports to the cloud, for REST and websocket: name resolution, TCP and TLS.
//!
//! [`Dialer`] makes a transport. `happy_eyeballs` decides when to try which address, and `address_book` keeps
//! what is known about them.

mod address_book;
mod dialer;
mod error;
mod happy_eyeballs;
mod resolver;
mod transport;

pub use dialer::Dialer;
pub use error::DialError;
pub(in crate::cloud) use transport::SocketTransport;
