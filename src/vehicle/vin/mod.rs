//! Reading the VIN: what to ask, how to understand the answers, and how to do both without upsetting a vehicle.

mod answer;
mod beside;
pub mod doip;
mod gateway_question;
pub mod kline;
mod read;
mod reader;
mod report;

pub use answer::{Answer, Service};
pub use beside::{BesideCan, by_doip};
pub use gateway_question::{GatewayQuestion, NoVinReason};
pub use read::{BusEnd, BusReading, VinReading, read, read_beside};
pub use reader::{LATENCY_ALLOWANCE, Outcome, P2, P2_STAR, Reader, ReaderEvent, ReaderSettings, Timer};
pub use report::{Candidate, EcuAddress, VinReport, VinSource};
