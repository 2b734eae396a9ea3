//! Reads any text as the agent's configuration.

use std::path::Path;

use connector_agent::config::{Config, ConfigError};

/// A rejected configuration comes with at least one problem, and each problem with a text.
pub(super) fn drive(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    match Config::parse(text, Path::new("/etc/connector-agent.toml")) {
        Ok(_) | Err(ConfigError::Read { .. }) => {}
        Err(ConfigError::Invalid(problems)) => {
            assert!(!problems.is_empty());
            problems.iter().for_each(|problem| assert!(!problem.to_string().is_empty()));
        }
    }
}
