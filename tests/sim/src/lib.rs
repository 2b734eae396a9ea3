//! Everything that surrounds `connector-agent`, on one machine: a simulated vehicle, a sandbox cloud, a demo with
//! an operator, and trials of the agent's binary.

pub mod cli;
pub mod cloud;
mod demo;
pub mod network;
mod scenario;
mod trials;
pub mod vehicle;
