//! Simulators for `connector-agent`: a vehicle and a sandbox cloud, a demo of a whole diagnostic session, and trials of
//! the agent's binary.

#![cfg_attr(
    not(feature = "sandbox"),
    allow(dead_code, reason = "the command line and the demo use the vehicle too")
)]

#[cfg(feature = "sandbox")]
pub mod cli;
#[cfg(feature = "sandbox")]
pub mod cloud;
#[cfg(feature = "sandbox")]
mod demo;
pub mod network;
#[cfg(feature = "sandbox")]
mod scenario;
#[cfg(feature = "sandbox")]
mod trials;
pub mod vehicle;
