//! The bytes of a message.

use simple_doip::messages::{self as wire, Encode, MessageError};
use simple_doip::wire::SliceSink;

use super::convert::{WirePayload, to_wire};
use super::error::EncodeError;
use crate::protocol::doip::Message;

impl Message {
    /// Encodes the message.
    ///
    /// # Errors
    ///
    /// A diagnostic message has no data, or the payload is longer than 4 GiB.
    pub fn encode(&self) -> Result<Vec<u8>, EncodeError> {
        let protocol_version = wire::ProtocolVersion::from(u8::from(self.version));
        match to_wire(&self.payload) {
            WirePayload::Known(payload) => encode(&wire::Message { protocol_version, payload }),
            WirePayload::Other { payload_type, data } => {
                let size = data.len();
                let length =
                    u32::try_from(size).map_err(|_| EncodeError(MessageError::PayloadTooLarge { size }))?;
                let mut bytes = encode(&wire::Header::new(protocol_version, payload_type.into(), length))?;
                bytes.extend_from_slice(data);
                Ok(bytes)
            }
        }
    }
}

fn encode(value: &impl Encode<Error = MessageError>) -> Result<Vec<u8>, EncodeError> {
    let mut bytes = vec![0; value.encoded_size().map_err(EncodeError)?];
    value.encode(&mut SliceSink::new(&mut bytes)).map_err(EncodeError)?;
    Ok(bytes)
}
