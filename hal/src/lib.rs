//! The connector's hardware: CAN buses, K-lines, Ethernet interfaces and the board, each with a simulation.
//!
//! Code above this crate uses the traits [`can::CanBus`], [`kline::KLine`] and [`board::Board`]. The
//! configuration alone selects the device behind each of them.

pub mod board;
pub mod bus;
pub mod can;
pub mod clock;
pub mod ethernet;
pub mod future;
pub mod kline;
#[cfg(feature = "sim")]
mod pty;
mod system;
pub mod timer;
