//! The relay, `connector-relay.v1`: what connector, cloud and operator say to each other, and the connector's part.

mod envelope;

pub use envelope::{Envelope, Problem};
