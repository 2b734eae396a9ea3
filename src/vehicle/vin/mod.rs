//! Reading the VIN from a vehicle without disturbing the vehicle: what to ask, and how to read the answers.

pub(crate) mod answer;
pub(crate) mod can;
pub(crate) mod doip;
pub mod kline;
pub(crate) mod report;
pub(crate) mod vehicle;

pub use answer::{Service, VinAnswer};
pub use can::{BusEnd, BusReading, ReaderEvent, ReaderOutcome, ReaderSettings, ReaderTimer, VinReader};
pub use report::{Candidate, EcuAddress, VinReport, VinSource};
pub use vehicle::{ParallelReading, networks_to_read, read, read_can_and_doip};
pub(crate) use vehicle::{VehicleReading, read_vehicle};
