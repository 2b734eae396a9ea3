//! What can go wrong with a REST request.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::config::AddressError;
use crate::protocol::problem::Problem;

/// Why a REST request failed; never contains a pincode or a token.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The configured address of the resource is none.
    #[error("the resource's address: {0}")]
    Address(#[from] AddressError),
    /// The HTTP client could not be set up.
    #[error("the HTTP client could not be set up")]
    Setup(#[source] reqwest::Error),
    /// No answer: no connection, no trust in the certificate, a timeout, a broken transfer.
    #[error("the cloud cannot be reached")]
    Transport(#[source] reqwest::Error),
    /// The cloud refused.
    #[error("the cloud answered {status}{}", said(.problem))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the cloud says about it.
        problem: Option<Box<Problem>>,
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
    /// More than any such answer can have.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// What was allowed.
        limit: usize,
    },
    /// Not what the resource should answer. What it was is not kept: it may contain a token.
    #[error("the answer is not what it should be, at line {line}, column {column}")]
    Malformed {
        /// Where, counted from 1.
        line: usize,
        /// Where, counted from 1.
        column: usize,
    },
    /// The token has characters that no header can have.
    #[error("the cloud gave a token that cannot be sent")]
    Token,
}

impl RestError {
    /// Whether the token is no good (401).
    pub fn needs_login(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }

    /// Whether the same request can succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport(_) | Self::TooLong { .. } | Self::Malformed { .. } => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Address(_) | Self::Setup(_) | Self::Token => false,
        }
    }

    /// How long the cloud asks to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

fn said(problem: &Option<Box<Problem>>) -> String {
    problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default()
}

/// An error with all its sources, in one line.
#[derive(Debug)]
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut said = self.0.to_string();
        f.write_str(&said)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            // some errors quote their source
            let text = error.to_string();
            if !said.contains(&text) {
                write!(f, ": {text}")?;
            }
            said = text;
            source = error.source();
        }
        Ok(())
    }
}
