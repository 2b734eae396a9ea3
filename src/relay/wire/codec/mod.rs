//! The binary messages: a 24-byte header and records, big-endian (relay protocol, section 4).

mod decode;
mod encode;
mod event;
mod frame_flags;
mod message;

pub use decode::Records;
pub use event::{EventCode, SendFailedDetail};
pub use message::{
    CodecError, HEADER_LEN, Header, MAX_MESSAGE_LEN, Payload, PduFlags, RECORD_HEADER_LEN, Record, Tag,
    VERSION,
};

#[cfg(test)]
mod tests;
