//! A problem with the configuration, with its place and its remedy.

use std::fmt;
use std::path::{Path, PathBuf};

/// The severity of a [`ConfigProblem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration works, but is unwise or incomplete.
    Warning,
    /// A part of the configuration does not work, or has no meaning.
    Error,
}

/// A problem, its place, and its remedy. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigProblem {
    /// The severity.
    pub severity: Severity,
    /// The configuration file, or the file or device at fault.
    pub path: Option<PathBuf>,
    /// The line in the configuration file, counted from 1.
    pub line: Option<usize>,
    /// The key, with its tables: `cloud.api_url`, `bus[1].pins`.
    pub key: Option<String>,
    /// The problem.
    pub what: String,
    /// The remedy.
    pub fix: String,
}

impl ConfigProblem {
    /// A problem because of which something does not work.
    pub(crate) fn error(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: None,
            line: None,
            key: None,
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// A problem that prevents nothing from working.
    pub(crate) fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(what, fix) }
    }

    /// Whether everything works despite the problem.
    pub(crate) fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }

    /// Sets the file or device.
    #[must_use]
    pub(crate) fn at_path(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// Sets the key of the configuration.
    #[must_use]
    pub(crate) fn at_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the line of the configuration file.
    #[must_use]
    pub(crate) fn at_line(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }
}

/// `/etc/connector-agent.toml:12: cloud.api_url: the problem; the remedy`.
impl fmt::Display for ConfigProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{}:", path.display())?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(key) = &self.key {
            write!(f, "{key}: ")?;
        }
        if self.is_warning() {
            f.write_str("warning: ")?;
        }
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {source}; name another file with --config", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error that caused this.
        source: std::io::Error,
    },
    /// The file has these errors, in the order of the file.
    #[error("{}", ProblemLines(.0))]
    Invalid(Vec<ConfigProblem>),
}

struct ProblemLines<'a>(&'a [ConfigProblem]);

impl fmt::Display for ProblemLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
