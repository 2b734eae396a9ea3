//! The envelope of every text message (relay protocol, section 1).

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::ProblemKind;
use crate::protocol::problem::Problem;

/// A text message: `{"action": …, "message": {…}, "request_id": …}`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// The action that the message requests, answers or reports.
    pub action: String,
    /// The content; an empty object if the text has none.
    #[serde(default = "empty_object")]
    pub message: Value,
    /// The identifier that the requesting side chose, and that the reply echoes.
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

    /// Makes the message a reply to the request with this `request_id`.
    #[must_use]
    pub fn in_reply_to(mut self, request_id: Option<String>) -> Self {
        self.request_id = request_id;
        self
    }

    /// The error that answers a request.
    pub fn error(problem: &Problem, request_id: Option<String>) -> Self {
        Self::new("error", problem).in_reply_to(request_id)
    }

    /// Decodes a text message.
    ///
    /// # Errors
    ///
    /// The text is not an envelope. The error holds the problem to reply with, and the `request_id` to echo
    /// if there is one.
    pub fn read(text: &str) -> Result<Self, Box<(Problem, Option<String>)>> {
        let refused = |why: &dyn fmt::Display, request_id| {
            let detail = format!("A text message must be a JSON object with an action: {why}.");
            Box::new((ProblemKind::InvalidMessage.problem(detail), request_id))
        };
        let value: Value = serde_json::from_str(text).map_err(|error| refused(&error, None))?;
        let Value::Object(object) = &value else { return Err(refused(&"this is not an object", None)) };
        let request_id = object.get("request_id").and_then(Value::as_str).map(str::to_owned);
        Self::deserialize(value).map_err(|error| refused(&error, request_id))
    }

    /// The text of the message, as the websocket carries it.
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_message_is_an_object_with_an_action_and_optional_fields() {
        let text = r#" { "later" : [1], "request_id" : "7", "message" : {"b":1}, "action" : "x" } "#;
        let read = Envelope::read(text).unwrap();
        assert_eq!((read.action.as_str(), read.request_id.as_deref()), ("x", Some("7")));
        assert_eq!(Envelope::read(r#"{"action":"x"}"#).unwrap().message, serde_json::json!({}));
        for none in ["", "null", "5", "[]", r#"["x",{},"7"]"#, r#"{"action":"x"} {}"#] {
            let (problem, request_id) = *Envelope::read(none).unwrap_err();
            assert_eq!((problem.status, request_id), (400, None), "{none}");
        }
    }

    #[test]
    fn the_error_to_an_invalid_request_echoes_its_request_id() {
        for text in [r#"{"request_id":"7"}"#, r#"{"action":5,"request_id":"7"}"#] {
            let (problem, request_id) = *Envelope::read(text).unwrap_err();
            assert_eq!((problem.status, request_id.as_deref()), (400, Some("7")), "{text}");
        }
    }
}
