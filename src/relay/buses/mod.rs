//! The buses of a connection, one folder a kind.

pub(in crate::relay) mod bus;
pub mod can;
pub(in crate::relay) mod doip;
pub mod kline;
pub(in crate::relay) mod setup;
pub(in crate::relay) mod terminal15;
