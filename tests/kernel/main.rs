//! Tests that need more of the kernel than an ordinary machine has: CAN interfaces, can-utils, network
//! namespaces. `cross/can-machine` and `cross/doip-link` run them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod namespaces;

mod agent;
mod can_utils;
mod ethernet;
mod isotp;
