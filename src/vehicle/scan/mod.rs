//! Looking for a vehicle's ECUs, on CAN buses and behind DoIP gateways.

pub(crate) mod can;
pub(crate) mod doip;
pub(crate) mod outcome;
pub(crate) mod report;
pub(crate) mod request;
mod standing;

pub use can::{ScanEnd, ScanError, ScanSettings, Scanner, scan};
pub(crate) use doip::{DoipScanEnd, EcuSearch, scan_network};
pub use outcome::{ScanObserver, ScanOutcome, ScanProgress};
pub(crate) use report::ScanReport;
pub use report::{EcuFound, FoundEcu, ScanProtocol};
pub use request::{IdRange, RangeError, ScanRequest};
