//! Reads the header and the records of a message.
//!
//! Decoding borrows from the message and allocates nothing. Each length is checked against the message before
//! it is used.

use connector_hal::can::{CanFrame, CanId, FdFlags};

use super::event::EventCode;
use super::frame_flags::{ERR_FLAG, FD_BRS, FD_ESI, FD_FDF, RTR_FLAG};
use super::message::{
    CodecError, HEADER_LEN, Header, Payload, PduFlags, RECORD_HEADER_LEN, Record, Tag, VERSION,
};

impl Header {
    /// Decodes the header of a message.
    pub fn decode(message: &[u8]) -> Result<Self, CodecError> {
        let mut reader = ByteReader::new(message);
        reader.header().ok_or(CodecError::ShortHeader(message.len())).and_then(|(version, header)| {
            if version == VERSION { Ok(header) } else { Err(CodecError::Version(version)) }
        })
    }
}

/// An iterator over the records of a message. It ends after an error.
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

    /// The position of the next record in the message.
    pub fn position(&self) -> usize {
        self.at
    }

    fn next_record(&mut self) -> Result<Record<'a>, CodecError> {
        let truncated = CodecError::Truncated { index: self.index, at: self.at };
        let rest = self.message.get(self.at..).ok_or(truncated)?;
        let mut reader = ByteReader::new(rest);
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
    let mut reader = ByteReader::new(payload);
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
        5 => {
            let echo = reader.u64().ok_or("a clock record without echo")?;
            let hold = reader.u32().ok_or("a clock record without hold")?;
            if !reader.rest().is_empty() {
                return Err("a clock record is longer than 12 bytes");
            }
            Payload::Clock { echo, hold }
        }
        kind => Payload::Unknown { kind },
    })
}

impl PduFlags {
    fn from_bits(bits: u8) -> Self {
        Self { chained: bits & 1 != 0, confirm: bits & 2 != 0 }
    }
}

/// Decodes the payload of a frame record. The error describes why it is refused.
fn decode_frame(payload: &[u8]) -> Result<CanFrame, &'static str> {
    let mut reader = ByteReader::new(payload);
    let identifier = reader.u32().ok_or("a frame record without identifier")?;
    let fd = reader.u8().ok_or("a frame record without FD bits")?;
    let data = reader.rest();
    if identifier & ERR_FLAG != 0 {
        let mut detail = [0; 8];
        if data.len() > detail.len() {
            return Err("an error frame has at most 8 bytes");
        }
        detail.iter_mut().zip(data).for_each(|(to, from)| *to = *from);
        return Ok(CanFrame::new_error(identifier & 0x1FFF_FFFF, detail));
    }
    let id = CanId::try_from(identifier & !RTR_FLAG).map_err(|_| "an identifier above 29 bits")?;
    if fd & FD_FDF != 0 {
        if identifier & RTR_FLAG != 0 {
            return Err("CAN FD has no remote frames");
        }
        let flags = FdFlags { bit_rate_switch: fd & FD_BRS != 0, error_state: fd & FD_ESI != 0 };
        return CanFrame::new_fd(id, flags, data).map_err(|_| "a length that no CAN FD frame has");
    }
    if identifier & RTR_FLAG != 0 {
        return CanFrame::new_remote(id, data.len()).map_err(|_| "a remote frame asks for at most 8 bytes");
    }
    CanFrame::new(id, data).map_err(|_| "a classic frame has at most 8 bytes")
}

/// Reads big-endian integers from a slice. Its methods return `None` if the slice is too short.
struct ByteReader<'a>(&'a [u8]);

impl<'a> ByteReader<'a> {
    fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_be_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_be_bytes)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn header(&mut self) -> Option<(u8, Header)> {
        let [version, _reserved] = self.array()?;
        let record_count = self.u16()?;
        let tag = Tag(self.array()?);
        let seq = self.u32()?;
        let ack = self.u32()?;
        let time = self.u64()?;
        Some((version, Header { record_count, tag, seq, ack, time }))
    }

    fn record_header(&mut self) -> Option<(u8, u8, u16, i32, u32)> {
        let [kind, flags] = self.array()?;
        let channel = self.u16()?;
        let offset = self.array().map(i32::from_be_bytes)?;
        let length = self.u32()?;
        Some((kind, flags, channel, offset, length))
    }
}
