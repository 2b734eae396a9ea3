//! The operator's software: its client library in virtual time, its command line as a process, and its
//! gateways with tools that are not ours.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod can_gateway;
mod client;
mod command;
mod doip_gateway;
