//! What the connector's hardware can do: CAN buses, K-lines, the board around them, and their simulation.
//!
//! Everything above this crate speaks [`can::CanBus`], [`kline::KLine`] and [`board::Board`]; which device stands behind them is
//! decided by the configuration alone.

pub mod board;
pub mod can;
pub mod clock;
pub mod ethernet;
pub mod kline;
#[cfg(feature = "sim")]
mod pty;
mod system;
pub mod timer;
