//! How an ECU is addressed on CAN.

use std::fmt;
use std::str::FromStr;

use connector_hal::can::CanId;

/// How a tool addresses an ECU with ISO-TP on CAN, and how the ECU answers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EcuAddress {
    /// The identifier of requests to the ECU.
    pub request: CanId,
    /// The identifier of the ECU's responses.
    pub response: CanId,
    /// The ISO-TP address byte in both directions, if several ECUs share the identifiers.
    pub extended: Option<u8>,
}

/// Prints as `0x750/0x758/0x0F`.
impl fmt::Display for EcuAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.request, self.response)?;
        self.extended.map_or(Ok(()), |address| write!(f, "/0x{address:02X}"))
    }
}

impl fmt::Debug for EcuAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is not an [`EcuAddress`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EcuAddressError {
    /// The number of parts is neither two nor three.
    #[error("expected request and response identifier, such as 7E0/7E8, or 750/758/0F with an address byte")]
    Parts,
    /// A part is not a hexadecimal number.
    #[error("`{0}` is not a hexadecimal number")]
    Number(String),
    /// A number is not a CAN identifier.
    #[error("`{0}` is not a CAN identifier")]
    Identifier(String),
    /// The address is longer than a byte.
    #[error("the address byte `{0}` is longer than a byte")]
    AddressByte(String),
}

/// Reads `7E0/7E8` or `750/758/0F`: request identifier, response identifier and address byte, in hexadecimal.
impl FromStr for EcuAddress {
    type Err = EcuAddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts: Vec<&str> = text.split('/').collect();
        let (request, response, extended) = match *parts.as_slice() {
            [request, response] => (request, response, None),
            [request, response, extended] => (request, response, Some(extended)),
            _ => return Err(EcuAddressError::Parts),
        };
        let byte = |text: &str| {
            u8::try_from(number(text)?).map_err(|_| EcuAddressError::AddressByte(text.to_owned()))
        };
        Ok(Self {
            request: identifier(request)?,
            response: identifier(response)?,
            extended: extended.map(byte).transpose()?,
        })
    }
}

fn number(text: &str) -> Result<u32, EcuAddressError> {
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    u32::from_str_radix(digits, 16).map_err(|_| EcuAddressError::Number(text.to_owned()))
}

fn identifier(text: &str) -> Result<CanId, EcuAddressError> {
    CanId::try_from(number(text)?).map_err(|_| EcuAddressError::Identifier(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ecu_addresses_parse_with_and_without_prefix_and_address_byte() {
        let show = |text: &str| text.parse::<EcuAddress>().map(|ecu| ecu.to_string());
        assert_eq!(show("7E0/7E8"), Ok("0x7E0/0x7E8".to_owned()));
        assert_eq!(show("0x18DA10F1/18DAF110"), Ok("0x18DA10F1/0x18DAF110".to_owned()));
        assert_eq!(show("750/758/F"), Ok("0x750/0x758/0x0F".to_owned()));
        for text in ["7E0", "7E0/7E8/100", "7E0/7E8/0F/1", "7E0/xyz", "20000000/7E8"] {
            assert!(show(text).is_err(), "{text}");
        }
    }
}
