//! Tests that need more of the kernel than an ordinary machine has: CAN interfaces, can-utils, network namespaces.
//! `cross/can-machine` and `cross/doip-link` run them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../agent_support/mod.rs"]
mod agent_support;
mod namespaces;
mod ours;

mod agent;
mod can_utils;
mod ethernet;
mod isotp;
