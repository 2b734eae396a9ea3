//! Simulated K-line ECUs (ISO 14230). A pulse or their address initialises them, and they check the tester's
//! times.
//!
//! They are written from the standard and do not use the agent's codec, so that one error cannot hide in
//! both.

mod anomaly;
mod command;
mod config;
mod ecu;
mod initialisation;
mod messages;
mod phase;
mod services;
mod timing;
mod vehicle;

pub use anomaly::Anomaly;
pub use command::{KlineArgs, RunningKline};
pub use config::{AnswerScript, DEFAULT_VIN, KlineEcuConfig, Misbehaviour};
pub use ecu::KlineEcu;
pub use vehicle::KlineVehicle;
