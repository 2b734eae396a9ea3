//! The envelope of every text message, and the problem object of every error (relay protocol, section 1).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A text message: `{"action": …, "message": {…}, "request_id": …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// What it is about.
    pub action: String,
    /// Its content; an empty object where there is none.
    #[serde(default = "empty_object")]
    pub message: Value,
    /// Chosen by the asking side and echoed in the reply.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

fn empty_object() -> Value {
    Value::Object(serde_json::Map::new())
}

impl Envelope {
    /// An envelope around `message`, which must serialize to a JSON object.
    pub fn new(action: impl Into<String>, message: &impl Serialize) -> Self {
        let message = serde_json::to_value(message).unwrap_or_else(|_| empty_object());
        Self { action: action.into(), message, request_id: None }
    }

    /// The same as an answer to the request with this id.
    #[must_use]
    pub fn in_reply_to(mut self, request_id: Option<String>) -> Self {
        self.request_id = request_id;
        self
    }

    /// The error that answers a request.
    pub fn error(problem: &Problem, request_id: Option<String>) -> Self {
        Self::new("error", problem).in_reply_to(request_id)
    }

    /// The text that goes over the websocket.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

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
