//! Reading the VIN from a vehicle without disturbing the vehicle: what to ask, and how to read the answers.

pub mod answer;
pub mod can;
pub mod doip;
pub mod kline;
pub mod report;
pub mod vehicle;

pub use answer::{Service, VinAnswer};
pub use can::{
    BusEnd, BusReading, LATENCY_ALLOWANCE, ReaderEvent, ReaderOutcome, ReaderSettings, ReaderTimer, VinReader,
};
pub use report::{Candidate, EcuAddress, VinReport, VinSource};
pub use vehicle::{
    NetworkToRead, ParallelReading, VehicleReading, networks_to_read, read, read_can_and_doip, read_vehicle,
};
