//! The relay, `connector-relay.v1`: the wire between connector, cloud and operator, and the connector's part.

pub mod buses;
pub mod channel;
pub mod connection;
pub mod limits;
pub mod link;
pub mod wire;
