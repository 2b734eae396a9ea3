//! Encoding and decoding of DoIP messages.
//!
//! The bytes are read and written by `simple_doip`, which checks every length before it reads a byte.

mod convert;
mod decode;
mod encode;
mod error;
mod stream;

pub use decode::{HEADER_LEN, decode_datagram};
pub use error::{DecodeError, EncodeError};
pub use stream::{Decoded, StreamDecoder};

#[cfg(test)]
mod tests;
