//! Which log lines are written: a level, or directives.

use tracing_subscriber::filter::{LevelFilter, Targets};

/// Reads a level such as `info`, or directives such as `info,connector_agent::relay=debug`.
///
/// Every directive without `=` must be a level: otherwise a typo such as `inof` would name a target, and nothing else would
/// be logged.
pub(crate) fn log_filter(directives: &str) -> Option<Targets> {
    let is_level = |directive: &str| directive.parse::<LevelFilter>().is_ok();
    let parts: Vec<&str> = directives.split(',').map(str::trim).filter(|part| !part.is_empty()).collect();
    let are_known = parts.iter().all(|part| match part.split_once('=') {
        Some((target, level)) => !target.is_empty() && is_level(level),
        None => is_level(part),
    });
    are_known.then(|| parts.join(",").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use tracing::Level;

    use super::*;

    #[test]
    fn levels_and_directives_are_read() {
        let filter = log_filter("info, connector_agent::relay=debug").unwrap();
        assert!(filter.would_enable("connector_agent::relay::link", &Level::DEBUG));
        assert!(filter.would_enable("connector_agent::agent", &Level::INFO));
        assert!(!filter.would_enable("connector_agent::agent", &Level::DEBUG));
        assert!(log_filter("off").is_some() && log_filter("TRACE").is_some());
    }

    #[test]
    fn a_typo_is_no_directive() {
        for typo in ["inof", "info,connector_agent", "connector_agent::relay=debgu", "=debug", "info debug"] {
            assert!(log_filter(typo).is_none(), "{typo}");
        }
    }
}
