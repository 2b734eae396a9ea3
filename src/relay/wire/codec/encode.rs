//! Writes the header and the records of a message.

use bytes::BufMut;
use connector_hal::can::{CanFrame, FrameKind};

use super::frame_flags::{ERR_FLAG, FD_BRS, FD_ESI, FD_FDF, RTR_FLAG};
use super::message::{CLOCK_LEN, Header, Payload, PduFlags, RECORD_HEADER_LEN, Record, VERSION};

impl Header {
    /// Appends the header to `out`.
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
    /// The number of bytes that [`Record::encode`] appends.
    pub(crate) fn encoded_len(&self) -> usize {
        RECORD_HEADER_LEN
            + match &self.payload {
                Payload::Frame(frame) => 5 + frame.len(),
                Payload::Pdu { data, .. } => 4 + data.len(),
                Payload::Event { text, .. } => 8 + text.len(),
                Payload::Terminal15 { .. } => 1,
                Payload::Clock { .. } => CLOCK_LEN - RECORD_HEADER_LEN,
                Payload::Unknown { .. } => 0,
            }
    }

    /// Appends the record to `out`.
    pub fn encode(&self, out: &mut impl BufMut) {
        let (kind, flags) = match &self.payload {
            Payload::Frame(_) => (1, 0),
            Payload::Pdu { flags, .. } => (2, flags.to_bits()),
            Payload::Event { .. } => (3, 0),
            Payload::Terminal15 { .. } => (4, 0),
            Payload::Clock { .. } => (5, 0),
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
            Payload::Clock { echo, hold } => {
                out.put_slice(&echo.to_be_bytes());
                out.put_slice(&hold.to_be_bytes());
            }
            Payload::Unknown { .. } => {}
        }
    }
}

impl PduFlags {
    fn to_bits(self) -> u8 {
        u8::from(self.chained) | u8::from(self.confirm) << 1
    }
}

/// Appends a frame record's payload.
fn encode_frame(frame: &CanFrame, out: &mut impl BufMut) {
    let (identifier, fd) = match frame.kind() {
        FrameKind::Data => (frame.id().to_socketcan(), 0),
        FrameKind::Remote => (frame.id().to_socketcan() | RTR_FLAG, 0),
        FrameKind::Error { classes } => (classes | ERR_FLAG, 0),
        FrameKind::Fd(flags) => {
            let brs = if flags.bit_rate_switch { FD_BRS } else { 0 };
            let esi = if flags.error_state { FD_ESI } else { 0 };
            (frame.id().to_socketcan(), FD_FDF | brs | esi)
        }
    };
    out.put_u32(identifier);
    out.put_u8(fd);
    match frame.kind() {
        FrameKind::Remote => out.put_bytes(0, frame.len()),
        _ => out.put_slice(frame.data()),
    }
}
