//! Finding the bit rate of a CAN bus.

mod probe;
mod probed_bus;
mod search;

pub(crate) use probe::ProbeSettings;
pub(crate) use probed_bus::{Exchanged, Listened, ProbedBus};
pub use search::GiveUp;
