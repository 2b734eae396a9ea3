//! Simulated K-line ECUs (ISO 14230): woken by a pulse or by their address, strict about the tester's times.
//!
//! Written from the standard, and not with the agent's own codec: what the two agree upon is not only one's opinion.

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
