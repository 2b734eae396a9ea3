//! Reading the VIN: what to ask, how to understand the answers, and how to do both without upsetting a vehicle.

mod answer;
mod number;
mod report;
mod search;
mod watch;

pub use answer::{Answer, NoVin, Service};
pub use number::{Vin, VinError};
pub use report::{Candidate, VinReport, VinSource};
pub use search::{BitRateSearch, GiveUp, SearchSettings, Step};
pub use watch::{DEFAULT_SILENCE, WakeReason, WakeWatch};
