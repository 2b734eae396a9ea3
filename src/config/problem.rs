//! What is wrong with a configuration, said so that it can be put right.

use std::fmt;
use std::path::{Path, PathBuf};

/// How much a [`Problem`] matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// It works, but is unwise, or leaves something out.
    Warning,
    /// What is configured does not work, or means nothing.
    Error,
}

/// One thing that is wrong, where, and what to do about it. Never contains a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How much it matters.
    pub severity: Severity,
    /// The configuration file, or the file or device that is at fault.
    pub path: Option<PathBuf>,
    /// The line in the configuration file, counted from 1.
    pub line: Option<usize>,
    /// The key, with its tables: `cloud.api_url`, `bus[1].pins`.
    pub key: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do about it.
    pub fix: String,
}

impl Problem {
    /// A problem that something does not work for.
    pub fn error(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            path: None,
            line: None,
            key: None,
            what: what.into(),
            fix: fix.into(),
        }
    }

    /// A problem that everything works with.
    pub fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(what, fix) }
    }

    /// Whether everything works all the same.
    pub fn is_warning(&self) -> bool {
        self.severity == Severity::Warning
    }

    /// The same, at this file or device.
    #[must_use]
    pub fn at_path(mut self, path: &Path) -> Self {
        self.path = Some(path.to_owned());
        self
    }

    /// The same, at this key of the configuration.
    #[must_use]
    pub fn at_key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same, at this line of the configuration file.
    #[must_use]
    pub fn at_line(mut self, line: Option<usize>) -> Self {
        self.line = line;
        self
    }
}

/// `/etc/connector-agent.toml:12: cloud.api_url: what is wrong; what to do`.
impl fmt::Display for Problem {
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
        /// Why.
        source: std::io::Error,
    },
    /// The file says something that cannot be; all of it, in the order of the file.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Problem>),
}

struct Lines<'a>(&'a [Problem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{problem}")?;
        }
        Ok(())
    }
}
