//! The secrets that no log line may contain: the pincode, the proxy's password, and the tokens in use.
//!
//! A log line may quote what a peer sent, and a peer may send back a secret. The log therefore removes every
//! secret that this process knows, whatever line it is in.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use secrecy::{ExposeSecret, SecretString};

/// The number of known tokens: the three of the present login, and those that they have replaced.
const MAX_TOKENS: usize = 12;
/// The number of known pincodes: a reloaded configuration may have another one.
const MAX_PINCODES: usize = 2;
/// The number of known passwords. A proxy's password counts twice: as it is written, and as it is sent.
const MAX_PASSWORDS: usize = 4;
/// A shorter secret is removed only where it stands alone: four digits may be part of any number.
const MIN_INSIDE: usize = 8;
/// What stands for a secret.
const REDACTED: &str = "[redacted]";

/// The secrets of this process.
static SECRETS: Mutex<Secrets> = Mutex::new(Secrets::new());

/// The known secrets, the newest last.
#[derive(Debug)]
struct Secrets {
    pincodes: VecDeque<SecretString>,
    passwords: VecDeque<SecretString>,
    tokens: VecDeque<SecretString>,
}

impl Secrets {
    const fn new() -> Self {
        Self { pincodes: VecDeque::new(), passwords: VecDeque::new(), tokens: VecDeque::new() }
    }

    fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for secret in self.pincodes.iter().chain(&self.passwords).chain(&self.tokens) {
            if let Some(redacted) = without(&text, secret.expose_secret()) {
                text = Cow::Owned(redacted);
            }
        }
        text
    }
}

/// Makes a pincode known.
pub(crate) fn remember_pincode(pincode: &str) {
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    remember(&mut secrets.pincodes, pincode, MAX_PINCODES);
}

/// Makes a password known.
pub(crate) fn remember_password(password: &str) {
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    remember(&mut secrets.passwords, password, MAX_PASSWORDS);
}

/// Makes a token known.
pub(crate) fn remember_token(token: &SecretString) {
    let mut secrets = SECRETS.lock().unwrap_or_else(PoisonError::into_inner);
    remember(&mut secrets.tokens, token.expose_secret(), MAX_TOKENS);
}

/// The text without the known secrets.
pub(crate) fn redact(text: &str) -> Cow<'_, str> {
    SECRETS.lock().unwrap_or_else(PoisonError::into_inner).redact(text)
}

fn remember(secrets: &mut VecDeque<SecretString>, secret: &str, max: usize) {
    if secret.is_empty() || secrets.iter().any(|known| known.expose_secret() == secret) {
        return;
    }
    if secrets.len() >= max {
        secrets.pop_front();
    }
    secrets.push_back(secret.into());
}

/// The text without the secret; `None` if the text does not contain it.
fn without(text: &str, secret: &str) -> Option<String> {
    let is_word = |character: Option<char>| character.is_some_and(char::is_alphanumeric);
    let mut result = String::new();
    let (mut copied, mut from) = (0, 0);
    while let Some(found) = text.get(from..).and_then(|rest| rest.find(secret)) {
        let (start, end) = (from + found, from + found + secret.len());
        let (before, after) = (text.get(copied..start)?, text.get(end..)?);
        let is_inside = is_word(text.get(..start)?.chars().next_back()) || is_word(after.chars().next());
        if secret.len() >= MIN_INSIDE || !is_inside {
            result.push_str(before);
            result.push_str(REDACTED);
            copied = end;
        }
        from = end;
    }
    (copied > 0).then(|| result + text.get(copied..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(pincodes: &[&str], tokens: &[&str]) -> Secrets {
        let mut secrets = Secrets::new();
        for pincode in pincodes {
            remember(&mut secrets.pincodes, pincode, MAX_PINCODES);
        }
        for token in tokens {
            remember(&mut secrets.tokens, token, MAX_TOKENS);
        }
        secrets
    }

    #[test]
    fn a_token_is_removed_wherever_it_stands() {
        let secrets = secrets(&[], &["eyJ.token.sig"]);
        for (text, redacted) in [
            ("Bearer eyJ.token.sig", "Bearer [redacted]"),
            ("xeyJ.token.sigeyJ.token.sigx", "x[redacted][redacted]x"),
            ("eyJ.token.si", "eyJ.token.si"),
            ("", ""),
        ] {
            assert_eq!(secrets.redact(text), redacted);
        }
    }

    #[test]
    fn a_short_pincode_is_removed_where_it_stands_alone() {
        let secrets = secrets(&["1234"], &[]);
        for (text, redacted) in [
            ("wrong pincode \"1234\"", "wrong pincode \"[redacted]\""),
            ("1234", "[redacted]"),
            ("pin=1234, 1234 and 12345", "pin=[redacted], [redacted] and 12345"),
            ("412340 ms on port 41234", "412340 ms on port 41234"),
            ("ä1234 1234ä", "ä1234 1234ä"),
        ] {
            assert_eq!(secrets.redact(text), redacted);
        }
    }

    #[test]
    fn only_the_newest_secrets_are_kept_and_pincodes_outlast_tokens() {
        let tokens: Vec<_> = (0..20).map(|number| format!("token-number-{number:02}")).collect();
        let tokens: Vec<_> = tokens.iter().map(String::as_str).collect();
        let secrets = secrets(&["9876", ""], &tokens);
        assert_eq!(secrets.redact("9876 token-number-19"), "[redacted] [redacted]");
        assert_eq!(secrets.redact("token-number-7"), "token-number-7");
        assert_eq!((secrets.pincodes.len(), secrets.tokens.len()), (1, MAX_TOKENS));
        assert!(!format!("{secrets:?}").contains("9876"));
    }
}
