//! The pincode, which is used for the login only.

use std::fmt;

use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::secret_file::SecretFileError;

/// The environment variable of the pincode, which has precedence over the configuration.
pub(crate) const PINCODE_VARIABLE: &str = "CONNECTOR_PINCODE";
/// The systemd credential of the pincode (a file in `$CREDENTIALS_DIRECTORY`).
pub(crate) const PINCODE_CREDENTIAL: &str = "connector-pincode";

/// The file of the pincode, from which the package's unit makes the credential.
pub(super) const PACKAGED_PINCODE: &str = "/etc/connector-pincode";

/// When the source of the pincode was last changed: from it a corrected pincode is noticed, and nothing about the
/// pincode can be learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ChangeTime {
    /// Seconds since 1970.
    pub(super) seconds: i64,
    /// Nanoseconds of the second.
    pub(super) nanoseconds: i64,
}

/// The connector's pincode. `Debug` omits it, and its memory is overwritten when it is dropped.
#[derive(Clone)]
pub struct Pincode(SecretString);

/// Why no pincode can be used.
#[derive(Debug, thiserror::Error)]
pub enum PincodeError {
    /// No source has a pincode.
    #[error(
        "no pincode is configured; set pincode_file in [connector], or the environment variable {PINCODE_VARIABLE}"
    )]
    Missing,
    /// The pincode is empty, too long, or contains control characters or blanks.
    #[error("the pincode in {0} is empty or not a single word; put only the pincode there")]
    Malformed(String),
    /// The file cannot be used.
    #[error(transparent)]
    File(#[from] SecretFileError),
}

impl Pincode {
    /// The pincode in this text, without surrounding white space; `None` if the rest is not a single word.
    pub fn new(text: &str) -> Option<Self> {
        let text = text.trim();
        let is_word = !text.contains(|character: char| character.is_control() || character.is_whitespace());
        (!text.is_empty() && text.len() <= MAX_LENGTH && is_word).then(|| Self(SecretString::from(text)))
    }

    /// The secret; for the login only.
    pub(crate) fn expose(&self) -> &str {
        self.0.expose_secret()
    }
}

/// The longest pincode accepted, in bytes. The cloud's API sets no limit, and its examples have four digits:
/// a longer text is another file or another value.
pub(super) const MAX_LENGTH: usize = 128;

impl fmt::Debug for Pincode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pincode(…)")
    }
}

impl PartialEq for Pincode {
    fn eq(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

impl Eq for Pincode {}

impl<'de> Deserialize<'de> for Pincode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(PincodeVisitor)
    }
}

/// Accepts every kind of scalar, because serde's errors would quote the value.
struct PincodeVisitor;

const MALFORMED: &str = "not a pincode; write it in quotes, without blanks";

impl<'de> Visitor<'de> for PincodeVisitor {
    type Value = Pincode;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pincode in quotes")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Pincode, E> {
        Pincode::new(text).ok_or_else(|| E::custom(MALFORMED))
    }

    fn visit_string<E: de::Error>(self, text: String) -> Result<Pincode, E> {
        self.visit_str(&Zeroizing::new(text))
    }

    fn visit_i64<E: de::Error>(self, _: i64) -> Result<Pincode, E> {
        // a number has lost its leading zeros
        Err(E::custom(MALFORMED))
    }

    fn visit_u64<E: de::Error>(self, _: u64) -> Result<Pincode, E> {
        Err(E::custom(MALFORMED))
    }

    fn visit_f64<E: de::Error>(self, _: f64) -> Result<Pincode, E> {
        Err(E::custom(MALFORMED))
    }

    fn visit_bool<E: de::Error>(self, _: bool) -> Result<Pincode, E> {
        Err(E::custom(MALFORMED))
    }
}
