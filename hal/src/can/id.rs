//! CAN identifiers (ISO 11898-1).

use std::fmt;

/// SocketCAN's flag for a 29-bit identifier in a 32-bit word.
const EFF_FLAG: u32 = 0x8000_0000;
const STANDARD_MAX: u32 = 0x7FF;
const EXTENDED_MAX: u32 = 0x1FFF_FFFF;

/// A CAN identifier, of 11 or 29 bits.
///
/// Identifiers are ordered by format, then by value. This is not the order of arbitration.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CanId(Repr);

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Standard(u16),
    Extended(u32),
}

/// A number that is not a CAN identifier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("0x{0:X} is not a CAN identifier (11 bits: to 0x7FF, 29 bits: to 0x1FFFFFFF)")]
pub struct CanIdError(pub u32);

impl CanId {
    /// Creates an 11-bit identifier; an error above 0x7FF.
    pub const fn standard(id: u32) -> Result<Self, CanIdError> {
        if id <= STANDARD_MAX { Ok(Self(Repr::Standard(id as u16))) } else { Err(CanIdError(id)) }
    }

    /// Creates a 29-bit identifier; an error above 0x1FFFFFFF.
    pub const fn extended(id: u32) -> Result<Self, CanIdError> {
        if id <= EXTENDED_MAX { Ok(Self(Repr::Extended(id))) } else { Err(CanIdError(id)) }
    }

    /// Creates an 11-bit identifier from the low bits of `id`. Never fails; for constants and tables.
    pub const fn standard_truncated(id: u32) -> Self {
        Self(Repr::Standard((id & STANDARD_MAX) as u16))
    }

    /// Creates a 29-bit identifier from the low bits of `id`. Never fails; for constants and tables.
    pub const fn extended_truncated(id: u32) -> Self {
        Self(Repr::Extended(id & EXTENDED_MAX))
    }

    /// The value of the identifier, without its format.
    pub const fn raw(self) -> u32 {
        match self.0 {
            Repr::Standard(id) => id as u32,
            Repr::Extended(id) => id,
        }
    }

    /// Whether the identifier has 29 bits.
    pub const fn is_extended(self) -> bool {
        matches!(self.0, Repr::Extended(_))
    }

    /// The value as SocketCAN writes it: with the EFF bit (0x80000000) for a 29-bit identifier.
    pub const fn to_socketcan(self) -> u32 {
        match self.0 {
            Repr::Standard(id) => id as u32,
            Repr::Extended(id) => id | EFF_FLAG,
        }
    }

    /// The value as the relay protocol writes it: with the EFF bit only for a 29-bit identifier up to 0x7FF.
    pub const fn to_number(self) -> u32 {
        match self.0 {
            Repr::Extended(id) if id <= STANDARD_MAX => id | EFF_FLAG,
            Repr::Standard(_) | Repr::Extended(_) => self.raw(),
        }
    }

    /// A key in the order of arbitration: the lowest key wins the bus (ISO 11898-1, 10.3).
    #[cfg(any(test, feature = "sim"))]
    pub(crate) const fn arbitration_key(self) -> u32 {
        match self.0 {
            // base identifier, then RTR/SRR and IDE: a standard frame wins over an extended frame with the
            // same base
            Repr::Standard(id) => (id as u32) << 20,
            Repr::Extended(id) => ((id >> 18) << 20) | 0x8_0000 | ((id & 0x3_FFFF) << 1),
        }
    }
}

/// Reads a number as the relay protocol and SocketCAN do: an identifier above 0x7FF or with the EFF bit has
/// 29 bits.
impl TryFrom<u32> for CanId {
    type Error = CanIdError;

    fn try_from(value: u32) -> Result<Self, CanIdError> {
        let id = value & !EFF_FLAG;
        if value & EFF_FLAG != 0 || id > STANDARD_MAX {
            Self::extended(id).map_err(|_| CanIdError(value))
        } else {
            Self::standard(id)
        }
    }
}

/// Prints as `0x7E8` or `0x18DAF110`.
impl fmt::Display for CanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Repr::Standard(id) => write!(f, "0x{id:03X}"),
            Repr::Extended(id) => write!(f, "0x{id:08X}"),
        }
    }
}

impl fmt::Debug for CanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_parsed_as_the_relay_protocol_defines() {
        assert!(!CanId::try_from(0x7FF).unwrap().is_extended());
        assert!(CanId::try_from(0x800).unwrap().is_extended());
        let small = CanId::try_from(0x8000_0123).unwrap();
        assert!(small.is_extended());
        assert_eq!(small.raw(), 0x123);
        assert_eq!(small.to_socketcan(), 0x8000_0123);
        assert_eq!(CanId::try_from(0x2000_0000), Err(CanIdError(0x2000_0000)));
        for number in [0, 0x7FF, 0x800, 0x18DA_F110, 0x8000_0123] {
            assert_eq!(CanId::try_from(number).unwrap().to_number(), number);
        }
    }

    #[test]
    fn a_standard_frame_wins_over_an_extended_one_of_the_same_base() {
        let standard = CanId::standard(0x123).unwrap();
        let extended = CanId::extended(0x123 << 18).unwrap();
        assert!(standard.arbitration_key() < extended.arbitration_key());
        let lower = CanId::extended((0x122 << 18) | 0x3_FFFF).unwrap();
        assert!(lower.arbitration_key() < standard.arbitration_key());
    }

    #[test]
    fn identifiers_print_one_way() {
        assert_eq!(CanId::standard(0x7E8).unwrap().to_string(), "0x7E8");
        assert_eq!(CanId::extended(0x18DA_F110).unwrap().to_string(), "0x18DAF110");
    }
}
