//! Simulated K-line ECUs (ISO 14230): woken by a pulse or by their address, strict about the tester's times.
//!
//! They are written from the standard and do not use the agent's codec, so that one error cannot hide in
//! both.

mod command;
mod config;
mod ecu;
mod messages;
mod services;
mod shell;

pub use command::{KlineArgs, RunningKline};
pub use config::{KlineEcuConfig, Misbehaviour};
pub use ecu::{Anomaly, KlineEcu};
pub use shell::KlineVehicle;
