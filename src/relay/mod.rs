//! The relay, `connector-relay.v1`: what connector, cloud and operator say to each other, and the connector's part.

pub mod bus;
pub mod channel;
pub mod codec;
mod envelope;
pub mod kline_bus;
pub mod link;
mod number;
pub mod request;
pub mod session;

pub use envelope::{Envelope, Problem};
