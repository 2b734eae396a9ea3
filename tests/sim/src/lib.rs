//! Simulated vehicle and sandbox cloud for connector-agent, a demo of everything together, and trials of the agent's binary.

pub mod cli;
pub mod cloud;
pub mod demo;
pub mod network;
pub mod trials;
pub mod vehicle;
