//! The operator's software: the client library in virtual time, the command line as a process, and the
//! gateways with independent tools.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "tests"
)]

mod can_gateway;
mod client;
mod command;
mod doip_gateway;
mod openobd;
