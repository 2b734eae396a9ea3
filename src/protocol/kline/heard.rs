//! Bytes that were received, for error messages.

use std::fmt;

/// The first bytes that were received, for an error message.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    bytes: [u8; Self::MAX],
    len: usize,
}

impl Heard {
    /// Number of bytes that are kept.
    const MAX: usize = 8;

    /// Keeps the first of these bytes.
    pub fn new(bytes: &[u8]) -> Self {
        let mut heard = Self { len: bytes.len(), ..Self::default() };
        heard.bytes.iter_mut().zip(bytes).for_each(|(kept, byte)| *kept = *byte);
        heard
    }
}

/// Prints the bytes as `55 EF 8F`, and an ellipsis for further ones.
impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, byte) in self.bytes.iter().take(self.len).enumerate() {
            let space = if index > 0 { " " } else { "" };
            write!(f, "{space}{byte:02X}")?;
        }
        f.write_str(if self.len > Self::MAX { " …" } else { "" })
    }
}

impl fmt::Debug for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Heard({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_heard_is_printed_up_to_eight_bytes() {
        assert_eq!(Heard::new(&[]).to_string(), "");
        assert_eq!(Heard::new(&[0x55, 0xEF, 0x8F]).to_string(), "55 EF 8F");
        assert_eq!(Heard::new(&[1; 9]).to_string(), "01 01 01 01 01 01 01 01 …");
    }
}
