//! Errors of encoding and decoding.

use simple_doip::messages::MessageError;

use crate::protocol::doip::{HeaderNackCode, ProtocolVersion};

/// A message that cannot be encoded.
#[derive(Debug, thiserror::Error)]
#[error("the message cannot be encoded: {0}")]
pub struct EncodeError(#[source] pub(super) MessageError);

/// Bytes that are not a DoIP message.
///
/// After such bytes, the start of the next message in a stream is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The second byte is not the inverse of the first.
    #[error("the header begins with 0x{version:02X} 0x{inverse:02X}, not a version and its inverse")]
    IncorrectPattern {
        /// The first byte, the protocol version.
        version: u8,
        /// The second byte, which is not the version's inverse.
        inverse: u8,
    },
    /// A protocol version that a message of this kind cannot have.
    #[error("protocol version 0x{0:02X} is {why}", why = why_unknown(*.0))]
    UnknownVersion(u8),
    /// A length that a payload of this type cannot have.
    #[error("a payload of type 0x{payload_type:04X} cannot have {length} bytes")]
    InvalidPayloadLength {
        /// The payload type.
        payload_type: u16,
        /// The length of the payload, in bytes.
        length: u32,
    },
    /// A datagram that is shorter or longer than its header says.
    #[error("the header says {length} bytes of payload, the datagram has {actual}")]
    DatagramLength {
        /// The payload length in the header, in bytes.
        length: u32,
        /// The number of bytes after the header.
        actual: usize,
    },
    /// A datagram that is shorter than a header.
    #[error("{0} bytes are too few for a header")]
    NoHeader(usize),
}

impl DecodeError {
    /// The code with which an entity refuses such a message (ISO 13400-2, table 19).
    pub fn nack(self) -> HeaderNackCode {
        match self {
            Self::IncorrectPattern { .. } | Self::UnknownVersion(_) | Self::NoHeader(_) => {
                HeaderNackCode::IncorrectPattern
            }
            Self::InvalidPayloadLength { .. } | Self::DatagramLength { .. } => {
                HeaderNackCode::InvalidPayloadLength
            }
        }
    }
}

fn why_unknown(version: u8) -> &'static str {
    if version == u8::from(ProtocolVersion::Default) {
        "for vehicle identification by UDP only"
    } else {
        "reserved"
    }
}
