//! The parts of a binary message: its header and its records.

use connector_hal::can::CanFrame;

use super::event::EventCode;

/// The version this module speaks.
pub const VERSION: u8 = 1;
/// The header's length, in bytes.
pub const HEADER_LEN: usize = 24;
/// The length of a record before its payload, in bytes.
pub const RECORD_HEADER_LEN: usize = 12;
/// The longest message, in bytes, but for one that holds a single longer PDU.
pub const MAX_MESSAGE_LEN: usize = 64 * 1024;

/// The first four bytes of a connection's UUID, which every message of the connection bears.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tag(pub [u8; 4]);

impl From<uuid::Uuid> for Tag {
    fn from(connection: uuid::Uuid) -> Self {
        let [a, b, c, d, ..] = *connection.as_bytes();
        Self([a, b, c, d])
    }
}

/// A binary message's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// How many records follow.
    pub record_count: u16,
    /// Which connection it belongs to.
    pub tag: Tag,
    /// Its number, from 1; 0 for an acknowledgement alone.
    pub seq: u32,
    /// The highest number received in order.
    pub ack: u32,
    /// The sender's monotonic clock, in µs since the connection was opened.
    pub time: u64,
}

/// What is wrong with a binary message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Shorter than a header.
    #[error("a binary message of {0} bytes is shorter than its header of 24")]
    ShortHeader(usize),
    /// A version that we don't speak.
    #[error("binary message version {0} is not 1")]
    Version(u8),
    /// A record ends beyond the message.
    #[error("record {index} at byte {at} ends beyond the message")]
    Truncated {
        /// Which record, from 0.
        index: u16,
        /// Where it begins.
        at: usize,
    },
    /// Bytes after the last record.
    #[error("{0} bytes follow the last record")]
    Trailing(usize),
    /// A payload that its kind does not allow.
    #[error("record {index}: {what}")]
    Payload {
        /// Which record, from 0.
        index: u16,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// Flags of a `pdu` record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PduFlags {
    /// Waits for the positive response to the PDU before it.
    pub chained: bool,
    /// Asks for a `sent` event.
    pub confirm: bool,
}

/// A record's content.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload<'a> {
    /// A frame as it was on the bus, or is to be.
    Frame(CanFrame),
    /// A whole PDU of a transport protocol.
    Pdu {
        /// From the vehicle, the sender's address; toward it, 0.
        address: u32,
        /// The flags.
        flags: PduFlags,
        /// The PDU's bytes.
        data: &'a [u8],
    },
    /// Something that happened.
    Event {
        /// What.
        code: EventCode,
        /// More about it.
        detail: u16,
        /// A number that belongs to it.
        value: u32,
        /// Words for it.
        text: &'a str,
    },
    /// The ignition.
    Terminal15 {
        /// On, off, or unknown.
        on: Option<bool>,
    },
    /// A kind that we don't know; skipped by its length.
    Unknown {
        /// The kind.
        kind: u8,
    },
}

/// A record: what, on which channel, and when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    /// The channel.
    pub channel: u16,
    /// µs from the header's time to the event on the bus; negative when the event came earlier.
    pub offset: i32,
    /// The content.
    pub payload: Payload<'a>,
}
