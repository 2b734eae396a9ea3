//! Looking for ECUs, on a CAN bus: one TesterPresent to each identifier that may be an ECU's, and a second one to be sure.
//!
//! [`Scanner`] is a pure state machine; [`scan`] is the shell around it for a bus of its own, and [`scan_network`] the one
//! for a DoIP network, which [`EcuSearch`](crate::vehicle::scan::ecu_search::EcuSearch) scans. In a session, the bus's
//! frames go through it beside those of the channels.
//!
//! What is asked, in this order:
//!
//! 1. Nothing, for a moment: identifiers that others send with are not used, and what they say is no answer.
//! 2. The vehicle's speed, by OBD: nothing is scanned in a vehicle that moves.
//! 3. `3E 00` to 0x600…0x7FF, but 0x7DF, and to 0x241…0x25F, where a General Motors vehicle has its ECUs. Who answers is
//!    asked again alone, as the answer's identifier may be any.
//! 4. `3E 00` to 0x18DAxxF1, where the answer names the ECU.
//! 5. `3E 00` with every extended address to the two identifiers that are known for it, 0x6F1 and 0x750.
//! 6. A TP2.0 channel to every logical address, closed at once.

mod answer;
mod doip;
pub mod ecu_search;
mod plan;
mod report;
mod resolve;
pub(crate) mod run;
mod scanner;

#[cfg(test)]
mod tests;

pub use doip::{DoipScanEnd, scan_network};
pub use report::{EcuFound, FoundEcu, ScanProtocol, ScanReport};
pub use run::{ScanEnd, ScanError, Surroundings, scan};
pub use scanner::{Progress, ScanOutcome, ScanSettings, Scanner};
