//! DoIP networks: interfaces and addresses, discovery, and connections with gateways.

pub mod client;
pub mod explorer;
pub mod linux;
pub mod network;
