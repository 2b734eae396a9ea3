//! The states of tickets that end a connection.

use serde::Deserialize;

/// A ticket's state, in any spelling: `in_progress`, `IN-PROGRESS` and `InProgress` are equal, and so are 7 and "7".
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "Spelling")]
pub struct TicketState(String);

#[derive(Deserialize)]
#[serde(untagged)]
enum Spelling {
    Number(i64),
    Word(String),
}

impl TicketState {
    /// The state with this name or number.
    pub fn new(text: &str) -> Self {
        Self(text.chars().filter(char::is_ascii_alphanumeric).map(|c| c.to_ascii_lowercase()).collect())
    }
}

impl From<Spelling> for TicketState {
    fn from(spelling: Spelling) -> Self {
        match spelling {
            Spelling::Number(number) => Self::new(&number.to_string()),
            Spelling::Word(word) => Self::new(&word),
        }
    }
}
