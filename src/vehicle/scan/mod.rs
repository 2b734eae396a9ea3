//! Looking for a vehicle's ECUs, on CAN buses and behind DoIP gateways.

pub mod can;
pub mod doip;
pub mod outcome;
pub mod report;

pub use can::{ScanEnd, ScanError, ScanSettings, Scanner, scan};
pub use doip::{DoipScanEnd, EcuSearch, scan_network};
pub use outcome::{ScanObserver, ScanOutcome, ScanProgress};
pub use report::{EcuFound, FoundEcu, ScanProtocol, ScanReport};
