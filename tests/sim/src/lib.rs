//! Simulated vehicle, sandbox cloud and operator for connector-agent: all that surrounds it, on one machine.

pub mod cli;
pub mod cloud;
pub mod demo;
pub mod network;
pub mod trials;
pub mod vehicle;
