//! Reading the head of an HTTP answer, before the connection becomes something else than HTTP.

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::client::Response;
use tokio_tungstenite::tungstenite::handshake::machine::TryParse;
use tokio_tungstenite::tungstenite::{self, Error};

/// The size of one read, in bytes.
const READ_SIZE: usize = 4 << 10;

/// Reads the head of the answer. Returns it with the bytes that were read behind it.
///
/// # Errors
///
/// [`Error::AttackAttempt`] if the head is longer than `max` bytes.
pub(in crate::cloud) async fn read_head(
    transport: &mut (impl AsyncRead + Unpin),
    max: usize,
) -> tungstenite::Result<(Response, Vec<u8>)> {
    let mut bytes = Vec::with_capacity(READ_SIZE);
    loop {
        if bytes.len() > max {
            return Err(Error::AttackAttempt);
        }
        bytes.reserve(READ_SIZE);
        if transport.read_buf(&mut bytes).await? == 0 {
            return Err(Error::Protocol(ProtocolError::HandshakeIncomplete));
        }
        if let Some((length, response)) = Response::try_parse(&bytes)? {
            let rest = bytes.split_off(length.min(bytes.len()));
            return Ok((response, rest));
        }
    }
}
