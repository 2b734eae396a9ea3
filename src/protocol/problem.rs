//! The problem object of every error (RFC 9457).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A problem object, as the REST API and the websocket report errors (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// What kind of problem: a path such as `/problems/unknown-bus`.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// The kind in words.
    #[serde(default)]
    pub title: String,
    /// The HTTP status that fits.
    #[serde(default)]
    pub status: u16,
    /// What exactly is wrong, naming what and where.
    #[serde(default)]
    pub detail: String,
    /// The action that it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<String>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// A problem of the kind `/problems/<slug>`.
    pub fn new(status: u16, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{slug}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            in_reply_to: None,
        }
    }

    /// The same, naming the action that it answers.
    #[must_use]
    pub fn answering(mut self, action: &str) -> Self {
        self.in_reply_to = Some(action.to_owned());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.title, self.detail)
    }
}

impl std::error::Error for Problem {}
