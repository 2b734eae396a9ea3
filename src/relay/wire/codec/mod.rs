//! The binary messages: a 24-byte header and records, big-endian (relay protocol, section 4).
//!
//! Decoding borrows from the message and allocates nothing; a length is checked against what is there before it is used.

mod frame;
mod reader;

use bytes::BufMut;
use connector_hal::can::CanFrame;

use frame::{decode_frame, encode_frame};
use reader::Reader;

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

impl PduFlags {
    fn to_bits(self) -> u8 {
        u8::from(self.chained) | u8::from(self.confirm) << 1
    }

    fn from_bits(bits: u8) -> Self {
        Self { chained: bits & 1 != 0, confirm: bits & 2 != 0 }
    }
}

/// The code of an `event` record; codes that we don't know are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventCode {
    /// A PDU sent with `confirm` is on the bus.
    Sent,
    /// A PDU or frame was not sent; the detail is a [`SendFailedDetail`].
    SendFailed,
    /// A reception was abandoned.
    ReceiveFailed,
    /// Frames of a raw channel were dropped; the value is how many.
    Gap,
    /// The bus changed state.
    BusState,
    /// TesterPresent could not be sent.
    KeepAliveFailed,
    /// Queued chained PDUs were thrown away.
    ChainBroken,
    /// Any other.
    Unknown(u16),
}

impl EventCode {
    fn to_wire(self) -> u16 {
        match self {
            Self::Sent => 1,
            Self::SendFailed => 2,
            Self::ReceiveFailed => 3,
            Self::Gap => 4,
            Self::BusState => 5,
            Self::KeepAliveFailed => 6,
            Self::ChainBroken => 7,
            Self::Unknown(code) => code,
        }
    }

    fn from_wire(code: u16) -> Self {
        match code {
            1 => Self::Sent,
            2 => Self::SendFailed,
            3 => Self::ReceiveFailed,
            4 => Self::Gap,
            5 => Self::BusState,
            6 => Self::KeepAliveFailed,
            7 => Self::ChainBroken,
            code => Self::Unknown(code),
        }
    }
}

/// Why something was not sent, as the detail of `send-failed` and `keep-alive-failed`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u16)]
pub enum SendFailedDetail {
    /// No flow control came in time.
    FlowControlTimeout = 1,
    /// The ECU's flow control said overflow.
    FlowControlOverflow = 2,
    /// The bus is off.
    BusOff = 3,
    /// No node acknowledged it in time.
    NotAcknowledged = 4,
    /// The channel's queue is full.
    QueueFull = 5,
    /// What was asked is not allowed on this channel.
    RefusedByPolicy = 6,
    /// The channel is closed.
    ChannelClosed = 7,
    /// It was older than the channel allows.
    TooOld = 8,
}

impl SendFailedDetail {
    /// The detail with this number.
    pub fn from_wire(detail: u16) -> Option<Self> {
        Some(match detail {
            1 => Self::FlowControlTimeout,
            2 => Self::FlowControlOverflow,
            3 => Self::BusOff,
            4 => Self::NotAcknowledged,
            5 => Self::QueueFull,
            6 => Self::RefusedByPolicy,
            7 => Self::ChannelClosed,
            8 => Self::TooOld,
            _ => return None,
        })
    }
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

impl Header {
    /// Reads the header of a message.
    pub fn decode(message: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(message);
        reader.header().ok_or(CodecError::ShortHeader(message.len())).and_then(|(version, header)| {
            if version == VERSION { Ok(header) } else { Err(CodecError::Version(version)) }
        })
    }

    /// Appends the header.
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_slice(&[VERSION, 0]);
        out.put_slice(&self.record_count.to_be_bytes());
        out.put_slice(&self.tag.0);
        out.put_slice(&self.seq.to_be_bytes());
        out.put_slice(&self.ack.to_be_bytes());
        out.put_slice(&self.time.to_be_bytes());
    }
}

impl Record<'_> {
    /// How many bytes [`Record::encode`] appends.
    pub fn encoded_len(&self) -> usize {
        RECORD_HEADER_LEN
            + match &self.payload {
                Payload::Frame(frame) => 5 + frame.len(),
                Payload::Pdu { data, .. } => 4 + data.len(),
                Payload::Event { text, .. } => 8 + text.len(),
                Payload::Terminal15 { .. } => 1,
                Payload::Unknown { .. } => 0,
            }
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut impl BufMut) {
        let (kind, flags) = match &self.payload {
            Payload::Frame(_) => (1, 0),
            Payload::Pdu { flags, .. } => (2, flags.to_bits()),
            Payload::Event { .. } => (3, 0),
            Payload::Terminal15 { .. } => (4, 0),
            Payload::Unknown { kind } => (*kind, 0),
        };
        out.put_slice(&[kind, flags]);
        out.put_slice(&self.channel.to_be_bytes());
        out.put_slice(&self.offset.to_be_bytes());
        let length = (self.encoded_len() - RECORD_HEADER_LEN) as u32;
        out.put_slice(&length.to_be_bytes());
        match &self.payload {
            Payload::Frame(frame) => encode_frame(frame, out),
            Payload::Pdu { address, data, .. } => {
                out.put_slice(&address.to_be_bytes());
                out.put_slice(data);
            }
            Payload::Event { code, detail, value, text } => {
                out.put_slice(&code.to_wire().to_be_bytes());
                out.put_slice(&detail.to_be_bytes());
                out.put_slice(&value.to_be_bytes());
                out.put_slice(text.as_bytes());
            }
            Payload::Terminal15 { on } => out.put_u8(match on {
                None => 0,
                Some(true) => 1,
                Some(false) => 2,
            }),
            Payload::Unknown { .. } => {}
        }
    }
}

/// Walks the records of a message; after an error it ends.
#[derive(Debug, Clone)]
pub struct Records<'a> {
    message: &'a [u8],
    at: usize,
    index: u16,
    count: u16,
}

impl<'a> Records<'a> {
    /// The records behind the header of `message`.
    pub fn new(message: &'a [u8], header: &Header) -> Self {
        Self { message, at: HEADER_LEN, index: 0, count: header.record_count }
    }

    /// Where the next record begins, in bytes from the message's start.
    pub fn position(&self) -> usize {
        self.at
    }

    fn next_record(&mut self) -> Result<Record<'a>, CodecError> {
        let truncated = CodecError::Truncated { index: self.index, at: self.at };
        let rest = self.message.get(self.at..).ok_or(truncated)?;
        let mut reader = Reader::new(rest);
        let (kind, flags, channel, offset, length) = reader.record_header().ok_or(truncated)?;
        let length = usize::try_from(length).map_err(|_| truncated)?;
        let payload = reader.take(length).ok_or(truncated)?;
        let payload = decode_payload(kind, flags, payload)
            .map_err(|what| CodecError::Payload { index: self.index, what })?;
        self.at += RECORD_HEADER_LEN + length;
        self.index += 1;
        Ok(Record { channel, offset, payload })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.index >= self.count {
            let trailing = self.message.len().saturating_sub(self.at);
            self.at = self.message.len();
            return (trailing > 0).then_some(Err(CodecError::Trailing(trailing)));
        }
        let record = self.next_record();
        if record.is_err() {
            self.index = self.count;
            self.at = self.message.len();
        }
        Some(record)
    }
}

fn decode_payload(kind: u8, flags: u8, payload: &[u8]) -> Result<Payload<'_>, &'static str> {
    let mut reader = Reader::new(payload);
    Ok(match kind {
        1 => Payload::Frame(decode_frame(payload)?),
        2 => {
            let address = reader.u32().ok_or("a pdu record without address")?;
            Payload::Pdu { address, flags: PduFlags::from_bits(flags), data: reader.rest() }
        }
        3 => {
            let code = reader.u16().ok_or("an event record without code")?;
            let detail = reader.u16().ok_or("an event record without detail")?;
            let value = reader.u32().ok_or("an event record without value")?;
            let text = std::str::from_utf8(reader.rest()).map_err(|_| "an event's text is not UTF-8")?;
            Payload::Event { code: EventCode::from_wire(code), detail, value, text }
        }
        4 => match payload {
            [0] => Payload::Terminal15 { on: None },
            [1] => Payload::Terminal15 { on: Some(true) },
            [2] => Payload::Terminal15 { on: Some(false) },
            _ => return Err("the state of terminal 15 is not 0, 1 or 2"),
        },
        kind => Payload::Unknown { kind },
    })
}

#[cfg(test)]
mod tests;
