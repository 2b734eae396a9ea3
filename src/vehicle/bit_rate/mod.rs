//! Finding the bit rate of a CAN bus.

mod probed_bus;
mod search;

pub use probed_bus::{Exchanged, Listened, ProbeSettings, ProbedBus};
pub use search::{BitRateSearch, GiveUp, SearchSettings, SearchStep};
