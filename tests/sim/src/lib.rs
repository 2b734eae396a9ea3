//! Everything that surrounds `connector-agent`, on one machine: a simulated vehicle, a sandbox cloud and an
//! operator.

pub mod cli;
pub mod cloud;
mod demo;
pub mod doip;
pub mod network;
pub mod operator;
mod scenario;
mod trials;
pub mod vehicle;
