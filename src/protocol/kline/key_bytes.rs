//! Key bytes: the header forms and timing of an ECU, which it sends during initialisation (ISO 14230-2,
//! 5.2.4.1).

use std::fmt;

use super::message::{AddressMode, HeaderForm, LengthForm};
use super::timing::Timing;

/// Key byte 2 of every ISO 14230 ECU: 15 with odd parity.
const ISO_14230: u8 = 0x8F;

const AL0: u8 = 1 << 0;
const AL1: u8 = 1 << 1;
const HB0: u8 = 1 << 2;
const HB1: u8 = 1 << 3;
const TP0: u8 = 1 << 4;
const TP1: u8 = 1 << 5;

/// An ECU's key bytes, of ISO 14230 and with the right parity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyBytes {
    first: u8,
}

/// The reason why two bytes are not key bytes of ISO 14230.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyByteError {
    /// The parity is wrong: a bit was received incorrectly.
    #[error("the key bytes 0x{0:02X} 0x{1:02X} have a wrong parity")]
    Parity(u8, u8),
    /// Another protocol, such as ISO 9141-2 (0x08 0x08, 0x94 0x94).
    #[error("the key bytes 0x{0:02X} 0x{1:02X} are of another protocol than ISO 14230")]
    OtherProtocol(u8, u8),
}

impl KeyBytes {
    /// Creates key bytes from key byte 1 and key byte 2, in the order in which the ECU sends them.
    ///
    /// # Errors
    ///
    /// The bytes have the wrong parity, or belong to another protocol.
    pub fn new(first: u8, second: u8) -> Result<Self, KeyByteError> {
        // 8 data bits of the slow initialisation: seven and odd parity
        let is_odd = |byte: u8| byte.count_ones() % 2 == 1;
        if second != ISO_14230 {
            // 0x08 0x08 and 0x94 0x94 of ISO 9141-2 have odd parity too
            let is_other = is_odd(first) && is_odd(second);
            return Err(if is_other {
                KeyByteError::OtherProtocol(first, second)
            } else {
                KeyByteError::Parity(first, second)
            });
        }
        if is_odd(first) { Ok(Self { first }) } else { Err(KeyByteError::Parity(first, second)) }
    }

    /// Returns key byte 1 and key byte 2.
    pub fn bytes(self) -> [u8; 2] {
        [self.first, ISO_14230]
    }

    /// Returns the key bytes as one number with key byte 2 as the high byte, such as `0x8FE9`.
    pub fn number(self) -> u16 {
        u16::from_be_bytes([ISO_14230, self.first])
    }

    /// Returns whether the key bytes are these two, in either order.
    ///
    /// One of the two is always 0x8F, and manufacturers differ in which they call the first.
    pub fn is(self, one: u8, other: u8) -> bool {
        let bytes = self.bytes();
        bytes == [one, other] || bytes == [other, one]
    }

    fn has(self, bit: u8) -> bool {
        self.first & bit != 0
    }

    /// Returns the header form of requests to this ECU.
    ///
    /// If the key bytes specify neither header nor length, this is the form that every ECU must understand:
    /// with addresses, and with the length in the format byte.
    pub(super) fn header(self, mode: AddressMode) -> HeaderForm {
        let mode = if self.has(HB0) && !self.has(HB1) { None } else { Some(mode) };
        let length = match (self.has(AL0), self.has(AL1)) {
            (true, true) => LengthForm::Either,
            (false, true) => LengthForm::Additional,
            (_, false) => LengthForm::InFormatByte,
        };
        HeaderForm { mode, length }
    }

    /// Returns the timing parameters of the ECU.
    pub(super) fn timing(self) -> Timing {
        if self.has(TP0) && !self.has(TP1) { Timing::EXTENDED } else { Timing::NORMAL }
    }
}

/// Prints as [`KeyBytes::number`]: `0x8FE9`.
impl fmt::Display for KeyBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:04X}", self.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_bytes_mean_what_the_standard_defines() {
        // ISO 14230-2, table 8: 2025 is length in the format byte, addresses, normal timing
        let key = KeyBytes::new(0xE9, 0x8F).unwrap();
        assert_eq!(key.to_string(), "0x8FE9");
        let header = key.header(AddressMode::Physical);
        assert_eq!(
            header,
            HeaderForm { mode: Some(AddressMode::Physical), length: LengthForm::InFormatByte }
        );
        assert_eq!(key.timing(), Timing::NORMAL);
        // 2005: one-byte header, extended timing
        let key = KeyBytes::new(0xD5, 0x8F).unwrap();
        assert_eq!(
            key.header(AddressMode::Physical),
            HeaderForm { mode: None, length: LengthForm::InFormatByte }
        );
        assert_eq!(key.timing(), Timing::EXTENDED);
        // 2031: every option
        let key = KeyBytes::new(0xEF, 0x8F).unwrap();
        assert_eq!(key.header(AddressMode::Functional).length, LengthForm::Either);
        assert_eq!(key.header(AddressMode::Functional).mode, Some(AddressMode::Functional));
        // 2026: additional length byte only
        assert_eq!(
            KeyBytes::new(0xEA, 0x8F).unwrap().header(AddressMode::Physical).length,
            LengthForm::Additional
        );
        // 2000: no option
        let key = KeyBytes::new(0xD0, 0x8F).unwrap();
        assert_eq!(key.header(AddressMode::Physical), HeaderForm::START_COMMUNICATION);
    }

    #[test]
    fn key_bytes_outside_iso_14230_are_refused() {
        assert_eq!(KeyBytes::new(0x08, 0x08), Err(KeyByteError::OtherProtocol(0x08, 0x08)));
        assert_eq!(KeyBytes::new(0x94, 0x94), Err(KeyByteError::OtherProtocol(0x94, 0x94)));
        assert_eq!(KeyBytes::new(0x01, 0x8A), Err(KeyByteError::OtherProtocol(0x01, 0x8A)), "KW1281");
        assert_eq!(KeyBytes::new(0xE8, 0x8F), Err(KeyByteError::Parity(0xE8, 0x8F)));
        assert_eq!(KeyBytes::new(0xE9, 0x8E), Err(KeyByteError::Parity(0xE9, 0x8E)));
    }

    #[test]
    fn a_keyword_matches_in_either_order() {
        let key = KeyBytes::new(0xE9, 0x8F).unwrap();
        assert!(key.is(143, 233) && key.is(233, 143));
        assert!(!key.is(143, 143) && !key.is(233, 233) && !key.is(143, 0xEF));
    }
}
