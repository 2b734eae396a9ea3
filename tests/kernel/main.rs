//! Tests that need CAN interfaces, can-utils or network
//! namespaces. `cross/can-machine` and `cross/doip-link` run them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod namespaces;

mod agent;
mod can_utils;
mod ethernet;
mod isotp;
