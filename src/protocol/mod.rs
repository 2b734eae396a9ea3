//! What standards define: pure state machines and types, without I/O, runtime or clock.

pub mod doip;
pub mod isotp;
pub mod kline;
pub mod problem;
pub mod tp20;
pub mod vin;
