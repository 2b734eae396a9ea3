//! The binary messages: a 24-byte header and records, big-endian (relay protocol, section 4).

mod decode;
mod encode;
mod event;
mod frame_flags;
mod message;

pub use decode::Records;
pub use event::{EventCode, SendFailedDetail};
pub(crate) use message::{CLOCK_LEN, MAX_MESSAGE_LEN, RECORD_HEADER_LEN};
pub use message::{CodecError, HEADER_LEN, Header, Payload, PduFlags, Record, Tag};

#[cfg(test)]
mod tests;
