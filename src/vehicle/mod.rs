//! The vehicle: its buses' devices, its VIN, and its ECUs.

pub mod bit_rate;
pub mod departures;
pub mod doip_network;
pub mod hardware;
pub(crate) mod reopened;
pub mod scan;
pub(crate) mod tester_traffic;
pub mod vin;
pub(crate) mod wake_watch;
