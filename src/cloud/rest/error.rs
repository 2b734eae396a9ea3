//! The errors of REST requests.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::resources::NotATicket;
use crate::cloud::dial::DialError;
use crate::config::AddressError;
use crate::protocol::problem::Problem;

/// Why a REST request failed; never contains a pincode or a token.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// The configured address of the resource is invalid.
    #[error("the address of the resource: {0}")]
    Address(#[from] AddressError),
    /// The answer for the active ticket names no ticket.
    #[error(transparent)]
    NotATicket(#[from] NotATicket),
    /// There was no complete answer: no connection, an untrusted certificate, a timeout, or a broken
    /// transfer.
    #[error("cannot reach the cloud")]
    Transport(#[from] TransportError),
    /// The cloud answered with an error status.
    #[error("the cloud answered {status}{}", in_parentheses(.problem))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The cloud's explanation.
        problem: Option<Box<Problem>>,
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is too long.
    #[error("the answer is longer than {limit} bytes")]
    TooLong {
        /// The longest answer accepted, in bytes.
        limit: usize,
    },
    /// The answer does not have the expected form. The error does not quote it, because it may contain a
    /// token.
    #[error("the answer does not have the expected form, at line {line}, column {column}")]
    Malformed {
        /// The line of the first fault, counted from 1.
        line: usize,
        /// The column of the first fault, counted from 1.
        column: usize,
    },
    /// The answer to a login or a refresh has an empty access token.
    #[error("the cloud's answer has an empty access_token")]
    NoToken,
    /// The token has characters that a header must not contain.
    #[error("the cloud's token has characters that a header must not contain")]
    Token,
}

/// Why there was no complete answer.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The URL of the resource is no address of HTTP.
    #[error("the address of the resource")]
    Url(#[source] http::Error),
    /// There is no connection.
    #[error(transparent)]
    Dial(DialError),
    /// The connection took too long.
    #[error("no connection within {0:?}")]
    Connect(Duration),
    /// The answer took too long.
    #[error("no answer within {0:?}")]
    Answer(Duration),
    /// The connection broke, or what was received is not HTTP.
    #[error("the HTTP exchange failed")]
    Http(#[source] hyper::Error),
}

impl RestError {
    /// Whether the cloud refused the token (401).
    pub fn needs_login(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }

    /// Whether a repetition of the request can succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport(_) | Self::TooLong { .. } | Self::Malformed { .. } | Self::NoToken => true,
            // the token comes from the cloud, which may send another one later
            Self::Token => true,
            Self::Refused { status, .. } => matches!(status, 408 | 425 | 429 | 500..),
            Self::Address(_) | Self::NotATicket(_) => false,
        }
    }

    /// How long the cloud, or a proxy, asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Transport(TransportError::Dial(error)) => error.retry_after(),
            _ => None,
        }
    }

    pub(crate) fn malformed(error: &serde_json::Error) -> Self {
        Self::Malformed { line: error.line(), column: error.column() }
    }
}

fn in_parentheses(problem: &Option<Box<Problem>>) -> String {
    problem.as_ref().map(|problem| format!(" ({problem})")).unwrap_or_default()
}

/// Displays an error with all its sources in one line.
#[derive(Debug)]
pub struct ErrorChain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for ErrorChain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous = self.0.to_string();
        f.write_str(&previous)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            // some errors quote their source
            let text = error.to_string();
            if !previous.contains(&text) {
                write!(f, ": {text}")?;
            }
            previous = text;
            source = error.source();
        }
        Ok(())
    }
}
