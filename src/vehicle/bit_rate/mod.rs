//! Finding the bit rate of a CAN bus.

mod search;

pub use search::{BitRateSearch, GiveUp, SearchSettings, Step};
