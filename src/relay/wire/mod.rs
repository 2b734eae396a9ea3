//! The wire, `connector-relay.v1`: what connector, cloud and operator send each other.

pub mod codec;
mod envelope;
mod number;
pub mod request;

pub use envelope::Envelope;
