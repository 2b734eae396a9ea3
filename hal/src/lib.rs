//! What the connector's hardware can do: CAN buses, the board around them, and their simulation.
//!
//! Everything above this crate speaks [`can::CanBus`] and [`board::Board`]; which device stands behind them is
//! decided by the configuration alone.

pub mod board;
pub mod can;
pub mod ethernet;
mod system;
pub mod timer;
