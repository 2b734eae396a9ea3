//! Messages from a stream of bytes.

use bytes::{Buf, BytesMut};
use simple_doip::try_frame;

use super::decode::{HEADER_LEN, check_edition, decode_header, decode_message, explain};
use super::error::DecodeError;
use crate::protocol::doip::Message;

/// The next item of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A complete message.
    Message(Message),
    /// The header of a message that is longer than the decoder accepts.
    ///
    /// The decoder discards the payload as it arrives and then continues with the next message.
    TooLarge {
        /// The payload type.
        payload_type: u16,
        /// The length of the payload, in bytes.
        length: u32,
    },
}

/// Splits a stream into messages.
///
/// Pass the bytes of one read to [`StreamDecoder::handle_bytes`], then call [`StreamDecoder::poll_message`]
/// until it returns `Ok(None)`, then read again. The decoder then buffers at most one message of the maximum
/// length and the bytes of one read.
#[derive(Debug)]
pub struct StreamDecoder {
    max_payload: u32,
    buffer: BytesMut,
    /// Bytes of a message that is too long which have not arrived yet.
    discarding: u32,
    failed: Option<DecodeError>,
}

impl StreamDecoder {
    /// Creates a decoder for payloads of up to `max_payload` bytes.
    pub fn new(max_payload: u32) -> Self {
        Self { max_payload, buffer: BytesMut::new(), discarding: 0, failed: None }
    }

    /// Takes bytes from the stream; after an error, the decoder ignores them.
    pub fn handle_bytes(&mut self, bytes: &[u8]) {
        if self.failed.is_none() {
            self.buffer.extend_from_slice(bytes);
        }
    }

    /// Returns the next complete message, or `None` until more bytes arrive.
    ///
    /// # Errors
    ///
    /// The stream is not DoIP. Every later call returns the same error.
    pub fn poll_message(&mut self) -> Result<Option<Decoded>, DecodeError> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        self.decode().inspect_err(|error| {
            self.failed = Some(*error);
            self.buffer = BytesMut::new();
        })
    }

    /// Returns the number of buffered bytes of an incomplete message.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    fn decode(&mut self) -> Result<Option<Decoded>, DecodeError> {
        if self.discarding > 0 {
            let dropped = usize::try_from(self.discarding).unwrap_or(usize::MAX).min(self.buffer.len());
            self.buffer.advance(dropped);
            self.discarding -= u32::try_from(dropped).unwrap_or(self.discarding);
        }
        let Some(bytes) = self.buffer.get(..HEADER_LEN) else { return Ok(None) };
        let header = decode_header(bytes)?;
        check_edition(&header)?;
        let length = header.payload_length();
        // check everything that the header says before waiting for the payload
        if length > self.max_payload {
            self.buffer.advance(HEADER_LEN);
            self.discarding = length;
            return Ok(Some(Decoded::TooLarge { payload_type: header.payload_type().into(), length }));
        }
        if !header.payload_type().allows_payload_length(length) {
            return Err(DecodeError::InvalidPayloadLength {
                payload_type: header.payload_type().into(),
                length,
            });
        }
        let frame = try_frame(&self.buffer).map_err(|error| explain(&error, &self.buffer))?;
        let Some((frame, consumed)) = frame else { return Ok(None) };
        let message = decode_message(&frame.header, frame.payload)?;
        self.buffer.advance(consumed);
        Ok(Some(Decoded::Message(message)))
    }
}
