//! The vehicle identification number (ISO 3779).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The number of characters of a VIN.
const LENGTH: usize = 17;
/// Some ECUs put the VIN's length in front of the VIN.
const LENGTH_BYTE: u8 = 17;

/// A vehicle identification number: 17 characters of A–Z and 0–9 without I, O and Q (ISO 3779).
///
/// Letters in lower case count as those in upper case. One character repeated 17 times is a placeholder, not a VIN.
/// Every constructor refuses it.
///
/// Personal data: log it at DEBUG or below.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Vin([u8; LENGTH]);

/// The reason why text or bytes are not a VIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VinError {
    /// The field contains only null bytes: the ECU was never programmed with a VIN.
    #[error("the VIN is empty")]
    Empty,
    /// One character 17 times, such as the zeros of an ECU that was never programmed with a VIN.
    #[error("the VIN is a placeholder")]
    Placeholder,
    /// Not 17 characters.
    #[error("a VIN has 17 characters, not {0}")]
    Length(usize),
    /// A character that VINs do not contain.
    #[error("a VIN has no character 0x{byte:02X} (at position {position})")]
    Character {
        /// The invalid byte.
        byte: u8,
        /// The byte's position, counted from 1.
        position: usize,
    },
}

impl Vin {
    /// Reads the VIN from a message field, which may be longer than the VIN.
    ///
    /// A length byte in front of the VIN is removed, and so is padding on either side: null bytes, and
    /// besides them either spaces or 0xFF.
    ///
    /// # Errors
    ///
    /// The field contains no VIN, a placeholder, or anything besides the VIN and its padding.
    pub(crate) fn from_field(field: &[u8]) -> Result<Self, VinError> {
        let unpadded = |padding| {
            let field = trim(field, padding);
            match field {
                [LENGTH_BYTE, rest @ ..] => trim(rest, padding),
                _ => field,
            }
        };
        let field = unpadded(0x00);
        if field.is_empty() {
            return Err(VinError::Empty);
        }
        let vin = [b' ', 0xFF].map(unpadded).into_iter().find(|vin| vin.len() == LENGTH).unwrap_or(field);
        Self::try_from(vin)
    }

    /// The VIN's characters.
    pub fn as_str(&self) -> &str {
        // only ASCII is ever stored
        std::str::from_utf8(&self.0).unwrap_or_default()
    }

    /// Whether this text is the VIN, in capital or small letters.
    pub(crate) fn is_written(&self, text: &str) -> bool {
        text.trim().eq_ignore_ascii_case(self.as_str())
    }

    /// Whether the check digit at position 9 is right (49 CFR 565.15; vehicles outside North America need
    /// none).
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

/// Removes null bytes and this byte from both ends.
fn trim(mut field: &[u8], padding: u8) -> &[u8] {
    let is_padding = |byte: u8| byte == 0 || byte == padding;
    loop {
        field = match field {
            [first, rest @ ..] if is_padding(*first) => rest,
            [rest @ .., last] if is_padding(*last) => rest,
            _ => return field,
        };
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
        let mut array: [u8; LENGTH] = bytes.try_into().map_err(|_| VinError::Length(bytes.len()))?;
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() && !b"IOQioq".contains(byte);
        if let Some((index, byte)) = array.iter().enumerate().find(|(_, byte)| !allowed(byte)) {
            return Err(VinError::Character { byte: *byte, position: index + 1 });
        }
        array.make_ascii_uppercase();
        let [first, rest @ ..] = &array;
        if rest.iter().all(|byte| byte == first) { Err(VinError::Placeholder) } else { Ok(Self(array)) }
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
    fn a_vin_reports_whether_its_check_digit_is_right() {
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

    #[test]
    fn a_vin_in_lower_case_is_the_same_vin() {
        let vin: Vin = "1M8GDM9AXKP042788".parse().unwrap();
        for text in ["1m8gdm9axkp042788", "1M8GDM9aXKP042788"] {
            assert_eq!(text.parse(), Ok(vin));
            assert_eq!(Vin::try_from(text.as_bytes()), Ok(vin));
            assert_eq!(Vin::from_field(text.as_bytes()), Ok(vin));
            assert_eq!(serde_json::from_str::<Vin>(&format!("\"{text}\"")).unwrap(), vin);
        }
        assert_eq!("a".repeat(17).parse::<Vin>(), Err(VinError::Placeholder));
        let error = "1m8gdm9axkpo42788".parse::<Vin>().unwrap_err();
        assert_eq!(error, VinError::Character { byte: b'o', position: 12 });
    }

    #[test]
    fn no_constructor_takes_a_placeholder_for_a_vin() {
        for character in ["0", "1", "A", "X"] {
            let text = character.repeat(17);
            assert_eq!(text.parse::<Vin>(), Err(VinError::Placeholder));
            assert_eq!(Vin::try_from(text.as_bytes()), Err(VinError::Placeholder));
            assert_eq!(Vin::from_field(text.as_bytes()), Err(VinError::Placeholder));
            assert!(serde_json::from_str::<Vin>(&format!("\"{text}\"")).is_err());
        }
        assert!("00000000000000001".parse::<Vin>().is_ok());
    }

    #[test]
    fn a_padded_placeholder_is_still_a_placeholder() {
        for padding in [0x00, 0xFF, b' '] {
            let field = [&[padding; 2][..], &[b'0'; 17], &[padding; 2]].concat();
            assert_eq!(Vin::from_field(&field), Err(VinError::Placeholder), "0x{padding:02X}");
        }
    }

    #[test]
    fn a_field_of_padding_alone_has_no_vin() {
        for padding in [0x00, 0xFF, b' '] {
            for length in [1, 16, 17, 18, 24, 40] {
                assert!(Vin::from_field(&vec![padding; length]).is_err(), "{length} times 0x{padding:02X}");
            }
        }
        assert_eq!(Vin::from_field(&[]), Err(VinError::Empty));
    }

    #[test]
    fn padding_on_either_side_is_removed_and_mixed_padding_is_not() {
        let vin = "1M8GDM9AXKP042788";
        let field = |before: &[u8], after: &[u8]| Vin::from_field(&[before, vin.as_bytes(), after].concat());
        for padding in [0x00, 0xFF, b' '] {
            for (before, after) in [(0, 0), (0, 7), (7, 0), (1, 1), (3, 40)] {
                let found = field(&vec![padding; before], &vec![padding; after]);
                assert_eq!(found.unwrap().as_str(), vin, "{before} and {after} times 0x{padding:02X}");
            }
        }
        for (before, after) in [(&b" \0 "[..], &b"\0 \0"[..]), (b"\0 \x11", b" \0"), (b"\x11  ", b"")] {
            assert_eq!(field(before, after).unwrap().as_str(), vin, "{before:02X?} {after:02X?}");
        }
        assert!(field(b" ", b"\xFF").is_err());
        assert!(field(b"", b" \xFF").is_err());
        assert!(field(b"1", b"").is_err());
        assert!(field(b" ", b" 1").is_err());
    }
}
