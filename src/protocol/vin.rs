//! The vehicle identification number (ISO 3779).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A vehicle identification number: 17 characters of A–Z and 0–9 without I, O and Q (ISO 3779).
///
/// Personal data: log it at DEBUG or below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vin([u8; 17]);

/// Text or bytes that are no VIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VinError {
    /// Not 17 characters.
    #[error("a VIN has 17 characters, not {0}")]
    Length(usize),
    /// A character that VINs don't have.
    #[error("a VIN has no character 0x{byte:02X} (at position {position})")]
    Character {
        /// The byte that was found.
        byte: u8,
        /// Where, counted from 1.
        position: usize,
    },
}

impl Vin {
    /// The VIN's characters.
    pub fn as_str(&self) -> &str {
        // only ASCII is ever stored
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether the check digit at position 9 is right (49 CFR 565.15; vehicles outside North America need none).
    pub fn has_valid_check_digit(&self) -> bool {
        const WEIGHTS: [u32; 17] = [8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2];
        let sum: u32 = self.0.iter().zip(WEIGHTS).map(|(byte, weight)| transliterate(*byte) * weight).sum();
        let expected = match sum % 11 {
            10 => b'X',
            digit => b'0' + digit as u8,
        };
        self.0.get(8) == Some(&expected)
    }
}

/// The value of a character in the check digit's sum.
fn transliterate(byte: u8) -> u32 {
    u32::from(match byte {
        b'0'..=b'9' => byte - b'0',
        b'A'..=b'H' => byte - b'A' + 1,
        b'J'..=b'R' => byte - b'J' + 1,
        b'S'..=b'Z' => byte - b'S' + 2,
        _ => 0,
    })
}

impl TryFrom<&[u8]> for Vin {
    type Error = VinError;

    fn try_from(bytes: &[u8]) -> Result<Self, VinError> {
        let array: [u8; 17] = bytes.try_into().map_err(|_| VinError::Length(bytes.len()))?;
        let allowed =
            |byte: &u8| byte.is_ascii_digit() || byte.is_ascii_uppercase() && !b"IOQ".contains(byte);
        match array.iter().enumerate().find(|(_, byte)| !allowed(byte)) {
            Some((index, byte)) => Err(VinError::Character { byte: *byte, position: index + 1 }),
            None => Ok(Self(array)),
        }
    }
}

impl FromStr for Vin {
    type Err = VinError;

    fn from_str(text: &str) -> Result<Self, VinError> {
        Self::try_from(text.as_bytes())
    }
}

impl fmt::Display for Vin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Vin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Vin {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Vin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vin_with_a_right_check_digit_says_so() {
        let vin: Vin = "1M8GDM9AXKP042788".parse().unwrap();
        assert!(vin.has_valid_check_digit());
        let wrong: Vin = "1M8GDM9A0KP042788".parse().unwrap();
        assert!(!wrong.has_valid_check_digit());
    }

    #[test]
    fn letters_that_look_like_digits_are_refused() {
        let error = "1M8GDM9AXKPO42788".parse::<Vin>().unwrap_err();
        assert_eq!(error, VinError::Character { byte: b'O', position: 12 });
        assert_eq!("WVW".parse::<Vin>().unwrap_err(), VinError::Length(3));
    }
}
