//! The messages that one end has sent and still keeps, and those that it has yet to send.
//!
//! Each record is encoded immediately, into an open message. The message is sealed when the socket can take
//! it or when it is full: it gets its number, and the times of its records become relative to that moment.
//! Records that wait therefore cost hardly more memory than their bytes.

use std::collections::VecDeque;

use bytes::Bytes;

use super::arena::Arena;
use crate::relay::wire::codec::{
    EventCode, HEADER_LEN, Header, MAX_MESSAGE_LEN, Payload, RECORD_HEADER_LEN, Record, Records, Tag,
};

/// The default limit of the messages that are kept until they are acknowledged, in bytes (relay protocol,
/// section 4.3). It bounds the memory of a device, and holds at least 10 s of a full CAN bus at 500 kbit/s.
pub const KEPT_LIMIT: usize = 2 * 1024 * 1024;
/// The position of the time offset in a record.
const RECORD_OFFSET_AT: usize = 4;
/// The position of the acknowledgement in a message.
const ACK_AT: usize = 12;
/// The number of messages that may be sent without being acknowledged. Further records share the next
/// message. Otherwise the headers of many small messages could reach the limit, and dropping frames would not
/// free them. This many headers take less than a tenth of [`KEPT_LIMIT`].
const MAX_UNACKNOWLEDGED: usize = 8192;
/// The length of the record of a `gap` event, in bytes.
const GAP_LEN: usize = RECORD_HEADER_LEN + 8;

/// The limit is reached, and no frames are left to drop.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug)]
struct Sealed {
    seq: u32,
    bytes: Bytes,
    has_frames: bool,
}

#[derive(Debug, Default)]
struct Open {
    /// Space for the header, then the records, whose offsets are relative to `base`.
    bytes: Arena,
    base: u64,
    record_count: u16,
    has_frames: bool,
}

/// The messages of one end, sent and unsent.
#[derive(Debug)]
pub(super) struct Outbox {
    tag: Tag,
    sealed: VecDeque<Sealed>,
    sealed_bytes: usize,
    /// The number of messages at the start of `sealed` that are known to contain no frames.
    frameless: usize,
    /// The number of messages at the start of `sealed` that were sent over the present websocket.
    sent: usize,
    open: Open,
    last_seq: u32,
    acknowledged: u32,
    kept_limit: usize,
}

impl Outbox {
    pub(super) fn new(tag: Tag) -> Self {
        Self {
            tag,
            sealed: VecDeque::new(),
            sealed_bytes: 0,
            frameless: 0,
            sent: 0,
            open: Open::default(),
            last_seq: 0,
            acknowledged: 0,
            kept_limit: KEPT_LIMIT,
        }
    }

    pub(super) fn set_kept_limit(&mut self, limit: usize) {
        self.kept_limit = limit;
    }

    pub(super) fn tag(&self) -> Tag {
        self.tag
    }

    /// The number of the last message that was sealed.
    pub(super) fn last_seq(&self) -> u32 {
        self.last_seq
    }

    /// The highest number that the peer has acknowledged.
    pub(super) fn acknowledged(&self) -> u32 {
        self.acknowledged
    }

    pub(super) fn kept_bytes(&self) -> usize {
        self.sealed_bytes + self.open.bytes.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.record_count == 0
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.sent < self.sealed.len() || self.open.record_count > 0 && !self.is_window_full()
    }

    fn is_window_full(&self) -> bool {
        self.sealed.len() >= MAX_UNACKNOWLEDGED
    }

    pub(super) fn push(&mut self, now: u64, at: u64, channel: u16, payload: Payload<'_>) -> Result<(), Full> {
        let mut record = Record { channel, offset: 0, payload };
        let len = record.encoded_len();
        self.make_room(len)?;
        if self.open.record_count > 0
            && (self.open.bytes.len() + len > MAX_MESSAGE_LEN || self.open.record_count == u16::MAX)
        {
            self.seal(now, 0)?;
        }
        if self.open.record_count == 0 {
            self.open.base = at;
            self.open.bytes.make_room(HEADER_LEN + len);
            self.open.bytes.message().resize(HEADER_LEN, 0);
        }
        record.offset = relative(at, self.open.base);
        self.open.bytes.make_room(len);
        record.encode(self.open.bytes.message());
        self.open.record_count += 1;
        self.open.has_frames |= matches!(record.payload, Payload::Frame(_));
        Ok(())
    }

    /// Drops the oldest frames until the limit allows `len` bytes more.
    fn make_room(&mut self, len: usize) -> Result<(), Full> {
        while self.kept_bytes() + len + HEADER_LEN > self.kept_limit {
            let mut sealed = self.sealed.iter().skip(self.frameless);
            let Some(index) = sealed.position(|message| message.has_frames) else {
                self.frameless = self.sealed.len();
                return self.make_room_in_open(len);
            };
            self.frameless += index;
            self.replace_frames(self.frameless, true);
        }
        Ok(())
    }

    /// Drops the frames in the open message. They are the youngest, so that they are dropped last.
    fn make_room_in_open(&mut self, len: usize) -> Result<(), Full> {
        if self.open.has_frames {
            self.replace_frames_in_open(true);
        }
        if self.kept_bytes() + len + HEADER_LEN <= self.kept_limit { Ok(()) } else { Err(Full) }
    }

    fn header(&self, seq: u32, ack: u32, time: u64) -> Header {
        Header { record_count: 0, tag: self.tag, seq, ack, time }
    }

    /// Seals the open message: numbers it, and makes the times of its records relative to `now`.
    fn seal(&mut self, now: u64, ack: u32) -> Result<(), Full> {
        let seq = self.last_seq.checked_add(1).ok_or(Full)?;
        let header = Header { record_count: self.open.record_count, ..self.header(seq, ack, now) };
        let message = self.open.bytes.message();
        if let Some(mut place) = message.get_mut(..HEADER_LEN) {
            header.encode(&mut place);
        }
        shift_offsets(message, relative(self.open.base, now));
        let bytes = self.open.bytes.finish();
        self.open.record_count = 0;
        let has_frames = std::mem::take(&mut self.open.has_frames);
        self.last_seq = seq;
        self.sealed_bytes += bytes.len();
        self.sealed.push_back(Sealed { seq, bytes, has_frames });
        Ok(())
    }

    /// The next message that was not sent over the present websocket, with the acknowledgement `ack`.
    pub(super) fn next_message(&mut self, now: u64, ack: u32) -> Option<Bytes> {
        if self.sent >= self.sealed.len() && self.open.record_count > 0 && !self.is_window_full() {
            self.seal(now, ack).ok()?;
        }
        let message = self.sealed.get_mut(self.sent)?;
        self.sent += 1;
        message.bytes = with_ack(std::mem::take(&mut message.bytes), ack);
        Some(message.bytes.clone())
    }

    /// A message without records that carries only an acknowledgement.
    pub(super) fn acknowledgement(&mut self, now: u64, ack: u32) -> Bytes {
        let header = self.header(0, ack, now);
        if self.open.record_count == 0 {
            self.open.bytes.make_room(HEADER_LEN);
            header.encode(self.open.bytes.message());
            return self.open.bytes.finish();
        }
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        header.encode(&mut bytes);
        bytes.into()
    }

    /// Discards the messages up to `seq`, which the peer has received.
    pub(super) fn acknowledge(&mut self, seq: u32) {
        self.acknowledged = self.acknowledged.max(seq);
        while let Some(message) = self.sealed.pop_front_if(|message| message.seq <= seq) {
            self.sealed_bytes -= message.bytes.len();
            self.sent = self.sent.saturating_sub(1);
            self.frameless = self.frameless.saturating_sub(1);
        }
    }

    /// Sends all messages that are kept again, over a new websocket.
    pub(super) fn rewind(&mut self) {
        self.sent = 0;
    }

    /// Removes the frames from all messages, sent and unsent; the messages keep their numbers.
    pub(super) fn leave_out_frames(&mut self) {
        for index in 0..self.sealed.len() {
            self.replace_frames(index, false);
        }
        if self.open.has_frames {
            self.replace_frames_in_open(false);
        }
    }

    fn replace_frames_in_open(&mut self, report: bool) {
        let header = Header { record_count: self.open.record_count, ..self.header(0, 0, 0) };
        let message = self.open.bytes.message();
        let (count, bytes) = without_frames(message, header, report);
        message.clear();
        if count > 0 {
            message.extend_from_slice(&bytes);
        }
        self.open.record_count = count;
        self.open.has_frames = false;
    }

    fn replace_frames(&mut self, index: usize, report: bool) {
        let Some(message) = self.sealed.get_mut(index).filter(|message| message.has_frames) else { return };
        message.has_frames = false;
        let Ok(header) = Header::decode(&message.bytes) else { return };
        let (_, bytes) = without_frames(&message.bytes, header, report);
        self.sealed_bytes = self.sealed_bytes - message.bytes.len() + bytes.len();
        message.bytes = bytes.into();
    }
}

/// Writes the acknowledgement into a message; without a copy if the bytes have no other owner.
fn with_ack(bytes: Bytes, ack: u32) -> Bytes {
    let place = ACK_AT..ACK_AT + 4;
    if bytes.get(place.clone()) == Some(ack.to_be_bytes().as_slice()) {
        return bytes;
    }
    let mut bytes = bytes.try_into_mut().unwrap_or_else(|shared| shared.as_ref().into());
    if let Some(place) = bytes.get_mut(place) {
        place.copy_from_slice(&ack.to_be_bytes());
    }
    bytes.freeze()
}

/// The time from `base` to `at` in µs, clamped to the range of an offset (35 minutes).
fn relative(at: u64, base: u64) -> i32 {
    let difference = i128::from(at) - i128::from(base);
    difference.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32
}

/// Adds `shift` to the offset of every record.
fn shift_offsets(message: &mut [u8], shift: i32) {
    let mut at = HEADER_LEN;
    while let Some(record) = message.get_mut(at..) {
        let Some((head, _)) = record.split_first_chunk_mut::<RECORD_HEADER_LEN>() else { return };
        let [_, _, _, _, o0, o1, o2, o3, l0, l1, l2, l3] = *head;
        let offset = i32::from_be_bytes([o0, o1, o2, o3]).saturating_add(shift).to_be_bytes();
        if let Some(place) = head.get_mut(RECORD_OFFSET_AT..RECORD_OFFSET_AT + 4) {
            place.copy_from_slice(&offset);
        }
        at += RECORD_HEADER_LEN + u32::from_be_bytes([l0, l1, l2, l3]) as usize;
    }
}

/// The message without its frames, and the number of its records. With `report`, one `gap` event for each
/// channel takes the place of the frames.
fn without_frames(message: &[u8], header: Header, report: bool) -> (u16, Vec<u8>) {
    let mut gaps: Vec<(u16, i32, u32)> = Vec::new();
    let mut kept = Vec::new();
    let mut count = 0;
    for record in Records::new(message, &header).filter_map(Result::ok) {
        let frames = match record.payload {
            Payload::Frame(_) => 1,
            // add the frames that were dropped before
            Payload::Event { code: EventCode::Gap, value, .. } if report => value,
            _ => {
                record.encode(&mut kept);
                count += 1;
                continue;
            }
        };
        if let Some(gap) = gaps.iter_mut().find(|gap| gap.0 == record.channel) {
            gap.2 = gap.2.saturating_add(frames);
        } else {
            gaps.push((record.channel, record.offset, frames));
        }
    }
    let mut bytes = Vec::with_capacity(HEADER_LEN + kept.len() + gaps.len() * GAP_LEN);
    let reported = if report { gaps.as_slice() } else { &[] };
    count += reported.len() as u16;
    Header { record_count: count, ..header }.encode(&mut bytes);
    for (channel, offset, frames) in reported {
        let payload = Payload::Event { code: EventCode::Gap, detail: 0, value: *frames, text: "" };
        Record { channel: *channel, offset: *offset, payload }.encode(&mut bytes);
    }
    bytes.extend_from_slice(&kept);
    (count, bytes)
}
