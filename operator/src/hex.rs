//! Bytes written as hexadecimal digits.

/// Why a text is not hexadecimal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HexError {
    /// The number of digits is odd.
    #[error("an odd number of hex digits ({0})")]
    OddLength(usize),
    /// A character other than 0-9, a-f, A-F.
    #[error("`{character}` at position {position} is not a hex digit")]
    Digit {
        /// The character.
        character: char,
        /// The position, counted from 1.
        position: usize,
    },
}

/// Reads bytes from hexadecimal digits without separators.
pub fn parse(text: &str) -> Result<Vec<u8>, HexError> {
    let mut bytes = Vec::with_capacity(text.len() / 2);
    let mut first = None;
    for (index, character) in text.chars().enumerate() {
        let Some(nibble) = character.to_digit(16) else {
            return Err(HexError::Digit { character, position: index + 1 });
        };
        match first.take() {
            Some(first) => bytes.push(first << 4 | nibble as u8),
            None => first = Some(nibble as u8),
        }
    }
    match first {
        Some(_) => Err(HexError::OddLength(2 * bytes.len() + 1)),
        None => Ok(bytes),
    }
}

/// Writes bytes as upper-case hexadecimal digits.
pub fn format(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(if nibble < 10 { b'0' + nibble } else { b'A' - 10 + nibble });
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 0x0F));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_in_either_case_and_written_in_upper_case() {
        let bytes = parse("00fFa5").unwrap();
        assert_eq!(bytes, [0x00, 0xFF, 0xA5]);
        assert_eq!(format(&bytes), "00FFA5");
    }

    #[test]
    fn invalid_hex_is_refused_with_its_position() {
        assert_eq!(parse("22f"), Err(HexError::OddLength(3)));
        assert_eq!(parse("22xg"), Err(HexError::Digit { character: 'x', position: 3 }));
        assert_eq!(parse("2é"), Err(HexError::Digit { character: 'é', position: 2 }));
    }
}
