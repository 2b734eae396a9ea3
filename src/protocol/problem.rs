//! The problem object that reports every error (RFC 9457).

use std::fmt;

use serde::{Deserialize, Serialize};

/// A problem object, as the REST API and the websocket report errors (RFC 9457), or an error of a token endpoint
/// (RFC 6749, 5.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Kind of the problem: a path such as `/problems/unknown-bus`.
    #[serde(rename = "type", default = "about_blank")]
    pub kind: String,
    /// Short text for the kind.
    #[serde(default, alias = "error")]
    pub title: String,
    /// HTTP status code that matches the kind.
    #[serde(default)]
    pub status: u16,
    /// Text for this occurrence, which names the cause and its place.
    #[serde(default, alias = "error_description")]
    pub detail: String,
    /// The action that this problem answers, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_reply_to: Option<String>,
}

fn about_blank() -> String {
    "about:blank".to_owned()
}

impl Problem {
    /// Creates a problem of the kind `/problems/<slug>`.
    pub fn new(status: u16, slug: &str, title: &str, detail: impl Into<String>) -> Self {
        Self {
            kind: format!("/problems/{slug}"),
            title: title.to_owned(),
            status,
            detail: detail.into(),
            in_reply_to: None,
        }
    }

    /// Sets the action that this problem answers.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_a_token_endpoint_is_read_as_a_problem() {
        let text = r#"{"error": "invalid_grant", "error_description": "log in again"}"#;
        let problem: Problem = serde_json::from_str(text).unwrap();
        assert_eq!(problem.to_string(), "invalid_grant: log in again");
    }
}
