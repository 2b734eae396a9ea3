//! The parts of a binary message: its header and its records.

use connector_hal::can::CanFrame;

use super::event::EventCode;

/// The version of the binary messages.
pub(crate) const VERSION: u8 = 1;
/// The header's length, in bytes.
pub const HEADER_LEN: usize = 24;
/// The length of a record before its payload, in bytes.
pub(crate) const RECORD_HEADER_LEN: usize = 12;
/// The length of a `clock` record, in bytes.
pub(crate) const CLOCK_LEN: usize = RECORD_HEADER_LEN + 12;
/// The longest message, in bytes (relay protocol, section 4.2). Only a message with a single PDU may be
/// longer.
pub(crate) const MAX_MESSAGE_LEN: usize = 64 * 1024;

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
    /// The number of records that follow.
    pub record_count: u16,
    /// The connection that the message belongs to.
    pub tag: Tag,
    /// The number of the message, from 1; 0 if the message only acknowledges.
    pub seq: u32,
    /// The highest number received in order.
    pub ack: u32,
    /// The sender's monotonic clock, in µs since the connection was opened.
    pub time: u64,
}

/// Why a binary message cannot be decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// The message is shorter than a header.
    #[error("a binary message of {0} bytes is shorter than its header of 24")]
    ShortHeader(usize),
    /// The message has an unknown version.
    #[error("binary message version {0} is not 1")]
    Version(u8),
    /// A record ends beyond the message.
    #[error("record {index} at byte {at} ends beyond the message")]
    Truncated {
        /// The index of the record, from 0.
        index: u16,
        /// The position of its first byte in the message.
        at: usize,
    },
    /// Bytes follow the last record.
    #[error("{0} bytes follow the last record")]
    Trailing(usize),
    /// The payload of a record does not match its kind.
    #[error("record {index}: {what}")]
    Payload {
        /// The index of the record, from 0.
        index: u16,
        /// Why the payload is refused.
        what: &'static str,
    },
}

/// Flags of a `pdu` record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PduFlags {
    /// The PDU is sent only after a positive response to the PDU before it.
    pub chained: bool,
    /// The sender requests a `sent` event.
    pub confirm: bool,
}

/// The content of a record.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Payload<'a> {
    /// A frame that was on the bus, or that is to be sent.
    Frame(CanFrame),
    /// A complete PDU of a transport protocol.
    Pdu {
        /// The address of the sender in the vehicle; 0 in a PDU to the vehicle.
        address: u32,
        /// The flags of the PDU.
        flags: PduFlags,
        /// The bytes of the PDU.
        data: &'a [u8],
    },
    /// An event on the channel.
    Event {
        /// The kind of event.
        code: EventCode,
        /// A detail, whose meaning depends on the kind.
        detail: u16,
        /// A number, whose meaning depends on the kind.
        value: u32,
        /// A description in words.
        text: &'a str,
    },
    /// The state of the ignition.
    Terminal15 {
        /// Whether the ignition is on; `None` if that is unknown.
        on: Option<bool>,
    },
    /// A measurement of the clocks of both ends (relay protocol, section 4.4). It belongs to no channel.
    Clock {
        /// The clock of the receiving end in the newest message that the sender has, in µs; 0 if it has none.
        echo: u64,
        /// The time from the arrival of that message to the sending of this one, in µs.
        hold: u32,
    },
    /// A record of an unknown kind, which is skipped by its length.
    Unknown {
        /// The number of the kind.
        kind: u8,
    },
}

/// A record: a payload, its channel and its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Record<'a> {
    /// The number of the channel.
    pub channel: u16,
    /// The time from the header's time to the event on the bus, in µs; negative if the event came earlier.
    pub offset: i32,
    /// The content of the record.
    pub payload: Payload<'a>,
}
