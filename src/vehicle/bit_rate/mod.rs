//! Finding the bit rate of a CAN bus.

mod probed_bus;
mod search;

pub(crate) use probed_bus::{Exchanged, Listened, ProbeSettings, ProbedBus};
pub use search::GiveUp;
