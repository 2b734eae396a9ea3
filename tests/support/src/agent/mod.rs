//! A whole connector in one process: sandbox cloud, agent, board, vehicle on a virtual bus, operator, portal
//! client.

mod portal;
mod rig;
mod sandbox;
mod test_agent;

pub use portal::{Portal, Socket};
pub use rig::{Rig, bus, closed, vehicle};
pub use sandbox::{Connector, Sandbox};
pub use test_agent::{AgentSettings, TestAgent};
