//! One message from its bytes.

use simple_doip::messages::{self as wire, Decode, MessageError};

use super::convert::from_wire;
use super::error::DecodeError;
use crate::protocol::doip::{Message, Payload, ProtocolVersion};

/// The length of the generic header, in bytes (ISO 13400-2, table 16).
pub const HEADER_LEN: usize = 8;

/// First payload type that may have the default version: vehicle identification requests have it while the
/// vehicle's version is unknown (ISO 13400-2, table 16).
const IDENTIFICATION_REQUEST: u16 = 0x0001;
/// Last payload type that may have the default version: some entities answer in the version of the request.
const ANNOUNCEMENT: u16 = 0x0004;

/// Decodes a datagram, which is one message.
///
/// # Errors
///
/// The datagram is not a DoIP message, or not exactly one.
pub fn decode_datagram(bytes: &[u8]) -> Result<Message, DecodeError> {
    let Some((front, payload)) = bytes.split_at_checked(HEADER_LEN) else {
        return Err(DecodeError::NoHeader(bytes.len()));
    };
    let header = decode_header(front)?;
    if !matches!(u16::from(header.payload_type()), IDENTIFICATION_REQUEST..=ANNOUNCEMENT) {
        check_edition(&header)?;
    }
    let length = header.payload_length();
    if usize::try_from(length) != Ok(payload.len()) {
        return Err(DecodeError::DatagramLength { length, actual: payload.len() });
    }
    decode_message(&header, payload)
}

/// Decodes a header of a supported version.
pub(super) fn decode_header(bytes: &[u8]) -> Result<wire::Header, DecodeError> {
    let (header, _) = wire::Header::decode(bytes).map_err(|error| explain(&error, bytes))?;
    supported_version(&header)?;
    Ok(header)
}

/// Decodes the payload that belongs to the header.
pub(super) fn decode_message(header: &wire::Header, payload: &[u8]) -> Result<Message, DecodeError> {
    let payload_type = header.payload_type().into();
    let decoded = match wire::Payload::decode(payload, header.payload_type()) {
        Ok(decoded) => from_wire(decoded.to_owned_payload()),
        Err(MessageError::UnsupportedPayloadType(_)) => None,
        Err(_) => {
            let length = header.payload_length();
            return Err(DecodeError::InvalidPayloadLength { payload_type, length });
        }
    };
    let payload = decoded.unwrap_or_else(|| Payload::Other { payload_type, data: payload.to_vec() });
    Ok(Message { version: supported_version(header)?, payload })
}

/// Refuses the default version, which only vehicle identification may have.
pub(super) fn check_edition(header: &wire::Header) -> Result<(), DecodeError> {
    let version = supported_version(header)?;
    if version.is_edition() { Ok(()) } else { Err(DecodeError::UnknownVersion(version.into())) }
}

fn supported_version(header: &wire::Header) -> Result<ProtocolVersion, DecodeError> {
    let version = ProtocolVersion::from(u8::from(header.protocol_version()));
    if version.is_supported() { Ok(version) } else { Err(DecodeError::UnknownVersion(version.into())) }
}

/// Returns the fault of these bytes, which begin with a header.
pub(super) fn explain(error: &MessageError, bytes: &[u8]) -> DecodeError {
    let byte = |index: usize| bytes.get(index).copied().unwrap_or_default();
    if let MessageError::VersionInverseIncorrect { .. } = error {
        return DecodeError::IncorrectPattern { version: byte(0), inverse: byte(1) };
    }
    DecodeError::InvalidPayloadLength {
        payload_type: u16::from_be_bytes([byte(2), byte(3)]),
        length: u32::from_be_bytes([byte(4), byte(5), byte(6), byte(7)]),
    }
}
