//! Finding the bit rate of a CAN bus.

mod check;
mod hear_out;
mod probe;
mod probed_bus;
mod search;
mod verify;

pub(crate) use check::CheckVerdict;
pub(crate) use probe::ProbeSettings;
pub(crate) use probed_bus::{Exchanged, Listened, ProbedBus};
pub use search::GiveUp;
pub(crate) use verify::verify_bit_rate;
