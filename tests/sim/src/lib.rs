//! Simulators for `connector-agent`: a vehicle and a sandbox cloud, a demo of a whole diagnostic session, and trials of
//! the agent's binary.

pub mod cli;
pub mod cloud;
mod demo;
pub mod network;
mod scenario;
mod trials;
pub mod vehicle;
