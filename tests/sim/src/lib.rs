//! Everything that surrounds `connector-agent`, on one machine: a simulated vehicle, a sandbox cloud and an
//! operator.

pub mod cli;
pub mod cloud;
pub mod demo;
pub mod doip;
pub mod network;
pub mod operator;
mod scenario;
pub mod trials;
pub mod vehicle;
