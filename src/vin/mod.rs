//! Reading the VIN: what to ask, how to understand the answers, and how to do both without upsetting a vehicle.

mod answer;
mod beside;
pub mod command;
mod gateway_question;
pub mod kline;
mod number;
mod read;
mod reader;
mod report;
mod search;
mod watch;

pub use answer::{Answer, Service};
pub use beside::{BesideCan, by_doip};
pub use gateway_question::{GatewayQuestion, NoVinReason};
pub use number::{Vin, VinError};
pub use read::{BusEnd, BusReading, VinReading, VinSettings, read, read_beside};
pub use reader::{LATENCY_ALLOWANCE, Outcome, P2, P2_STAR, Reader, ReaderEvent, ReaderSettings, Timer};
pub use report::{Candidate, EcuAddress, VinReport, VinSource};
pub use search::{BitRateSearch, GiveUp, SearchSettings, Step};
pub use watch::{DEFAULT_SILENCE, WakeReason, WakeWatch};
