//! Reading the VIN: what to ask, how to understand the answers, and how to do both without upsetting a vehicle.

mod answer;
mod beside;
pub mod doip;
pub mod kline;
mod read;
mod reader;
mod report;

pub use answer::{Answer, NoVin, Service};
pub use beside::{BesideCan, by_doip};
pub use read::{BusEnd, BusReading, VinReading, read, read_beside};
pub use reader::{LATENCY_ALLOWANCE, Outcome, Reader, ReaderEvent, ReaderSettings, Timer};
pub use report::{Candidate, EcuAddress, VinReport, VinSource};
