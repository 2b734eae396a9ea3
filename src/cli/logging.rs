//! Logging to standard error.

use anyhow::Context;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, fmt, reload};

use super::log_line::LineFormat;
use super::output::has_colors;
use crate::config::{LogFormat, log_filter};

/// Changes the log level while the program runs.
pub(super) struct LogLevel(reload::Handle<Targets, Registry>);

impl LogLevel {
    /// Sets the log level, or directives for it.
    pub(super) fn set(&self, directives: &str) -> anyhow::Result<()> {
        self.0.reload(filter(directives)?).context("cannot change the log level")
    }
}

fn filter(directives: &str) -> anyhow::Result<Targets> {
    log_filter(directives).with_context(|| {
        format!("`{directives}` is not a log level, such as info, nor directives, such as info,connector_agent::relay=debug")
    })
}

/// Starts logging; `RUST_LOG` has precedence over `directives`.
pub(super) fn init(directives: &str, format: LogFormat) -> anyhow::Result<LogLevel> {
    let chosen = std::env::var("RUST_LOG").ok().filter(|value| !value.is_empty());
    let (filter, handle) = reload::Layer::new(filter(chosen.as_deref().unwrap_or(directives))?);
    let registry = tracing_subscriber::registry().with(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(has_colors(&std::io::stderr()));
    let lines = lines.event_format(LineFormat(format));
    registry.with(lines).try_init().context("logging is set up already")?;
    Ok(LogLevel(handle))
}
