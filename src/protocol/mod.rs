//! Protocols and types that standards define, as pure state machines without I/O, runtime or clock.

pub mod doip;
pub mod isotp;
pub mod kline;
pub mod problem;
pub mod tp20;
pub(crate) mod uds;
pub mod vin;
