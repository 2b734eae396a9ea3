//! The relay, `connector-relay.v1`: its messages, and the connection, channels and buses on the connector.

pub mod buses;
pub mod channel;
pub mod connection;
pub mod limits;
pub mod link;
pub mod wire;
