//! A relay session on simulated buses in virtual time, the operator's end of its link, and the vehicle's
//! side.

mod ecu;
mod gateways;
mod rig;

pub use ecu::{Answers, Ecu, Node, positive, silent};
pub use gateways::{Act, Answer, Gateway, Gateways};
pub use rig::{CHAINED, CONFIRM, Got, Heard, Network, PLAIN, Rig, UUID, problem};
