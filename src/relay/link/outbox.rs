//! The messages that one end has sent and still keeps, and those that it has yet to send.
//!
//! Each record is encoded immediately: a frame into the queue of frames, any other record into an open message. The
//! message is sealed when the socket can take it or when it is full. It then gets frames, as far as they fit, and
//! its number, and the times of its records become relative to that moment. Records that wait therefore cost
//! hardly more memory than their bytes, and PDUs do not wait for frames.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

use super::arena::Arena;
use super::frame_queue::FrameQueue;
use super::peer_clock::Echo;
use super::records::{relative, shift_offsets, without_frames};
use crate::relay::wire::codec::{
    CLOCK_LEN, HEADER_LEN, Header, MAX_MESSAGE_LEN, Payload, RECORD_HEADER_LEN, Record, Tag,
};

/// The default limit of the messages that are kept until they are acknowledged, in bytes (relay protocol,
/// section 4.3). It bounds the memory of a device, and holds at least 10 s of a full CAN bus at 500 kbit/s.
pub const KEPT_LIMIT: usize = 2 * 1024 * 1024;
/// The position of the acknowledgement in a message.
const ACK_AT: usize = 12;
/// The number of messages that may be sent without being acknowledged. Further records share the next
/// message. Otherwise the headers of many small messages could reach the limit, and dropping frames would not
/// free them. This many headers take less than a tenth of [`KEPT_LIMIT`].
const MAX_UNACKNOWLEDGED: usize = 8192;

/// The bytes that a message has besides its records: its header, and a `clock` record.
const MESSAGE_OVERHEAD: usize = HEADER_LEN + CLOCK_LEN;
/// The bytes below the limit that stay free for the overhead of the message under construction, and of the one after
/// it, which may report nothing but gaps.
const RESERVE: usize = 2 * MESSAGE_OVERHEAD;

/// The limit is reached and no frames are left to drop, or no number is left for another message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

#[derive(Debug)]
struct Sealed {
    seq: u32,
    bytes: Bytes,
    has_frames: bool,
}

/// A message to send now.
#[derive(Debug)]
pub(super) struct NextMessage {
    pub(super) seq: u32,
    pub(super) bytes: Bytes,
    /// The size of the frames in the message, in bytes; 0 if the message was sent before.
    pub(super) frame_bytes: usize,
}

/// The size of the largest frame's record, in bytes. Less room is none.
const LARGEST_FRAME: usize = RECORD_HEADER_LEN + 5 + 64;

#[derive(Debug, Default)]
struct Open {
    /// Space for the header, then the records, whose offsets are relative to `base`.
    bytes: Arena,
    base: u64,
    record_count: u16,
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
    /// The frames that are in no message yet.
    frames: FrameQueue,
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
            frames: FrameQueue::new(),
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
        self.sealed_bytes + self.open.bytes.len() + self.frames.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sealed.is_empty() && self.open.record_count == 0 && self.frames.is_empty()
    }

    /// Whether a message can be sent. `room` is the number of bytes of frames that may be sent now.
    pub(super) fn has_unsent(&self, room: usize) -> bool {
        self.sent < self.sealed.len() || self.has_unsealed(room) && !self.is_window_full()
    }

    fn has_unsealed(&self, room: usize) -> bool {
        !self.is_exhausted() && self.has_records(room)
    }

    fn has_records(&self, room: usize) -> bool {
        self.open.record_count > 0 || room >= LARGEST_FRAME && !self.frames.is_empty()
    }

    /// Whether the next message takes a `clock` record: it is not sealed yet, and has room.
    pub(super) fn takes_clock(&self) -> bool {
        self.sent >= self.sealed.len()
            && self.open.bytes.len() + CLOCK_LEN <= MAX_MESSAGE_LEN
            && self.open.record_count < u16::MAX
    }

    /// Whether frames wait to be sent.
    pub(super) fn has_frames_waiting(&self) -> bool {
        !self.frames.is_empty()
    }

    /// Whether all numbers of messages are used, which takes 50 days at 1,000 messages a second.
    fn is_exhausted(&self) -> bool {
        self.last_seq == u32::MAX
    }

    fn is_window_full(&self) -> bool {
        self.sealed.len() >= MAX_UNACKNOWLEDGED
    }

    pub(super) fn push(&mut self, now: u64, at: u64, channel: u16, payload: Payload<'_>) -> Result<(), Full> {
        let mut record = Record { channel, offset: 0, payload };
        let len = record.encoded_len();
        if self.is_exhausted() {
            return Err(Full);
        }
        self.make_room(len)?;
        if matches!(payload, Payload::Frame(_)) {
            self.frames.push(now, at, record);
            return Ok(());
        }
        if self.open.record_count > 0
            && (self.open.bytes.len() + len > MAX_MESSAGE_LEN || self.open.record_count == u16::MAX)
        {
            self.seal(now, 0, 0, None)?;
        }
        if self.open.record_count == 0 {
            self.open.base = at;
            self.begin(len);
        }
        record.offset = relative(at, self.open.base);
        self.open.bytes.make_room(len);
        record.encode(self.open.bytes.message());
        self.open.record_count += 1;
        Ok(())
    }

    /// Drops the frames that have waited for too long. Call it only while the link is up.
    pub(super) fn drop_late_frames(&mut self, now: u64) {
        self.frames.drop_late(now);
    }

    /// Begins a message with space for its header and `len` bytes.
    fn begin(&mut self, len: usize) {
        self.open.bytes.make_room(HEADER_LEN + len);
        self.open.bytes.message().resize(HEADER_LEN, 0);
    }

    /// Drops the oldest frames until the limit allows `len` bytes more.
    fn make_room(&mut self, len: usize) -> Result<(), Full> {
        while self.kept_bytes() + len + RESERVE > self.kept_limit {
            let mut sealed = self.sealed.iter().skip(self.frameless);
            let Some(index) = sealed.position(|message| message.has_frames) else {
                self.frameless = self.sealed.len();
                // the frames in no message are the youngest, so that they are dropped last
                if self.frames.drop_oldest() {
                    continue;
                }
                return Err(Full);
            };
            self.frameless += index;
            self.replace_frames(self.frameless, true);
        }
        Ok(())
    }

    fn header(&self, seq: u32, ack: u32, time: u64) -> Header {
        Header { record_count: 0, tag: self.tag, seq, ack, time }
    }

    /// Seals the open message: adds at most `room` bytes of frames and the clock, numbers the message, and makes
    /// the times of its records relative to `now`. Returns the size of the frames.
    fn seal(&mut self, now: u64, ack: u32, room: usize, echo: Option<Echo>) -> Result<usize, Full> {
        let seq = self.last_seq.checked_add(1).ok_or(Full)?;
        let room = room.min(self.frames.len());
        let clock_len = if echo.is_some() { CLOCK_LEN } else { 0 };
        if self.open.record_count == 0 {
            self.begin(room + clock_len);
        }
        let room = room.min(MAX_MESSAGE_LEN.saturating_sub(self.open.bytes.len() + clock_len));
        self.open.bytes.make_room(room + clock_len);
        let message = self.open.bytes.message();
        if let Some(records) = message.get_mut(HEADER_LEN..) {
            shift_offsets(records, relative(self.open.base, now));
        }
        let before = message.len();
        let clocks = u16::from(echo.is_some());
        let most = u16::MAX.saturating_sub(self.open.record_count + clocks);
        let frames = self.frames.take(now, room, most, message);
        let frame_bytes = message.len() - before;
        if let Some(echo) = echo {
            encode_clock(echo, message);
        }
        let record_count = self.open.record_count + frames + clocks;
        let header = Header { record_count, ..self.header(seq, ack, now) };
        if let Some(mut place) = self.open.bytes.message().get_mut(..HEADER_LEN) {
            header.encode(&mut place);
        }
        let bytes = self.open.bytes.finish();
        self.open.record_count = 0;
        self.last_seq = seq;
        self.sealed_bytes += bytes.len();
        self.sealed.push_back(Sealed { seq, bytes, has_frames: frames > 0 });
        Ok(frame_bytes)
    }

    /// The next message that was not sent over the present websocket, with the acknowledgement `ack`. `room` is
    /// the number of bytes of frames that may be sent now. Pass an echo only if the outbox
    /// [takes a clock](Self::takes_clock).
    pub(super) fn next_message(
        &mut self,
        now: u64,
        ack: u32,
        room: usize,
        echo: Option<Echo>,
    ) -> Option<NextMessage> {
        let mut frame_bytes = 0;
        if self.sent >= self.sealed.len() && self.has_unsealed(room) && !self.is_window_full() {
            if self.open.record_count == 0 {
                // frames that do not share a message need a header each; what remains now are reports of gaps
                let _no_frames_left = self.make_room(0);
            }
            frame_bytes = self.seal(now, ack, room, echo).ok()?;
        }
        let message = self.sealed.get_mut(self.sent)?;
        self.sent += 1;
        message.bytes = with_ack(std::mem::take(&mut message.bytes), ack);
        Some(NextMessage { seq: message.seq, bytes: message.bytes.clone(), frame_bytes })
    }

    /// A message without a number, which carries an acknowledgement and at most a clock.
    pub(super) fn acknowledgement(&mut self, now: u64, ack: u32, echo: Option<Echo>) -> Bytes {
        let header = Header { record_count: u16::from(echo.is_some()), ..self.header(0, ack, now) };
        let mut alone = BytesMut::new();
        let is_empty = self.open.record_count == 0;
        if is_empty {
            self.open.bytes.make_room(HEADER_LEN + CLOCK_LEN);
        }
        let message = if is_empty { self.open.bytes.message() } else { &mut alone };
        header.encode(message);
        if let Some(echo) = echo {
            encode_clock(echo, message);
        }
        if is_empty { self.open.bytes.finish() } else { alone.freeze() }
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
    pub(super) fn rewind(&mut self, now: u64) {
        self.sent = 0;
        self.frames.restart_waiting(now);
    }

    /// Removes the frames from all messages, sent and unsent; the messages keep their numbers.
    pub(super) fn leave_out_frames(&mut self) {
        for index in 0..self.sealed.len() {
            self.replace_frames(index, false);
        }
        self.frames.clear();
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

fn encode_clock(Echo { echo, hold }: Echo, message: &mut BytesMut) {
    Record { channel: 0, offset: 0, payload: Payload::Clock { echo, hold } }.encode(message);
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

#[cfg(test)]
mod tests {
    use connector_hal::can::{CanFrame, CanId};

    use super::*;

    #[test]
    fn frames_in_many_messages_stay_within_the_limit() {
        let frame = CanFrame::new(CanId::standard_truncated(0x100), &[7; 8]).unwrap();
        let echo = Some(Echo { echo: 1, hold: 1 });
        for limit in 2_000..2_100 {
            let mut outbox = Outbox::new(Tag([0; 4]));
            outbox.set_kept_limit(limit);
            for channel in 0..4 {
                (0..40).for_each(|_| outbox.push(0, 0, channel, Payload::Frame(frame)).unwrap());
            }
            let mut messages = 0;
            while outbox.next_message(1, 0, LARGEST_FRAME, echo).is_some() {
                messages += 1;
                assert!(outbox.kept_bytes() <= limit, "{} bytes of {limit}", outbox.kept_bytes());
            }
            assert!(messages > 10 && !outbox.has_unsent(LARGEST_FRAME), "{messages}");
        }
    }

    #[test]
    fn a_link_whose_numbers_are_used_up_refuses_records_and_sends_nothing() {
        let mut outbox = Outbox::new(Tag([0; 4]));
        outbox.last_seq = u32::MAX - 1;
        let event = Payload::Terminal15 { on: None };
        outbox.push(0, 0, 1, event).unwrap();
        assert_eq!(outbox.next_message(0, 0, 0, None).map(|message| message.seq), Some(u32::MAX));
        assert_eq!(outbox.push(0, 0, 1, event), Err(Full));
        assert!(!outbox.has_unsent(usize::MAX) && outbox.next_message(0, 0, 0, None).is_none());
    }
}
