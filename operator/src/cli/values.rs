//! Parsers for the values of arguments.

use connector_agent::protocol::doip::LogicalAddress;
use connector_hal::can::CanId;

/// The bytes of a request. A separate type, because clap takes a `Vec` for a repeated argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hex(pub(super) Vec<u8>);

/// Reads hexadecimal digits, with or without a prefix and separators.
pub(super) fn hex(text: &str) -> Result<Hex, String> {
    let digits: String = text.chars().filter(|character| !matches!(character, ' ' | ':' | '_')).collect();
    let digits = digits.strip_prefix("0x").unwrap_or(&digits);
    match crate::hex::parse(digits) {
        Ok(bytes) if bytes.is_empty() => Err("a request has at least one byte".to_owned()),
        Ok(bytes) => Ok(Hex(bytes)),
        Err(error) => Err(error.to_string()),
    }
}

/// Reads a decimal number, or a hexadecimal one after `0x`.
pub(super) fn number(text: &str) -> Result<u32, String> {
    let parsed = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|error| error.to_string())
}

pub(super) fn identifier(text: &str) -> Result<CanId, String> {
    CanId::try_from(number(text)?).map_err(|error| error.to_string())
}

pub(super) fn logical_address(text: &str) -> Result<LogicalAddress, String> {
    LogicalAddress::try_from(number(text)?).map_err(|error| error.to_string())
}

pub(super) fn byte(text: &str) -> Result<u8, String> {
    u8::try_from(number(text)?).map_err(|error| error.to_string())
}

/// Reads two pins of the OBD connector, such as `6,14`.
pub(super) fn pins(text: &str) -> Result<(u8, u8), String> {
    let pins = text.split_once(',').and_then(|(high, low)| {
        let pin = |text: &str| text.trim().parse().ok().filter(|pin| (1..=16).contains(pin));
        Some((pin(high)?, pin(low)?))
    });
    pins.ok_or_else(|| "expected two pins from 1 to 16, such as 6,14".to_owned())
}
