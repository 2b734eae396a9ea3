//! The agent on a connector: it reads the VIN, keeps the connector online, and relays diagnostic sessions between the
//! vehicle's buses and a remote operator.

pub mod agent;
pub mod cli;
pub mod cloud;
pub mod config;
pub mod policy;
pub mod protocol;
pub mod relay;
pub mod tls;
pub mod vehicle;

#[cfg(test)]
mod layer_tests;
