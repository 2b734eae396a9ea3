//! Parts of a diagnostic session that the demo and the trials share: the vehicle, the people, the firmware, and
//! the agent's configuration.

mod agent_config;
mod firmware;
mod people;
mod vehicle;

pub(crate) use agent_config::{AgentConfig, toml_string, write_private};
pub(crate) use firmware::{FIRMWARE_ADDRESS, generate_firmware, holds_firmware};
pub(crate) use people::{connect, create_ticket, log_in_customer, log_in_operator};
pub(crate) use vehicle::vehicle;
