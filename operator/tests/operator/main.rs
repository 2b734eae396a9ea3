//! The operator's software: its client library in virtual time, its command line as a process, and its
//! gateways with tools that are not ours.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[path = "../../../tests/agent_support/mod.rs"]
mod agent_support;
mod can_gateway;
mod client;
mod command;
mod doip_gateway;
#[path = "../../../tests/sim/tests/doip_support/mod.rs"]
mod doip_support;
#[path = "../../../tests/peer_support/mod.rs"]
mod peer_support;
#[path = "../../../tests/sim/tests/vehicle_support/mod.rs"]
mod vehicle_support;
