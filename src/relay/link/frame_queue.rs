//! The raw frames that are not in a message yet.
//!
//! They wait apart from everything else, so that PDUs and events go ahead of them. On a slow link the oldest
//! frames are dropped: a monitor that shows the last second is useful, and one that lags behind by minutes is
//! not.

use std::collections::VecDeque;

use bytes::{Buf, BytesMut};

use super::records::{GAP_LEN, relative, shift_offsets};
use crate::relay::wire::codec::{EventCode, Payload, RECORD_HEADER_LEN, Record};

/// The bytes of frames that may wait: about 1.2 s of a full bus at 500 kbit/s.
const MAX_BYTES: usize = 128 * 1024;
/// The time that a frame may wait while the link is up, in µs. An older frame shows an operator nothing that a newer one
/// does not.
const MAX_WAIT: u64 = 1_000_000;
/// The resolution at which waiting times are measured, in µs: a twentieth of [`MAX_WAIT`], which costs little memory.
const MARK_EVERY: u64 = 50_000;
/// The capacity for the first frames, in bytes. The frames of a fast link are few and then move within it.
const FIRST_CAPACITY: usize = 16 * 1024;
/// The number of marks within the waiting time: [`MAX_WAIT`] has 20 intervals of [`MARK_EVERY`], and some are spare.
const MAX_MARKS: usize = 32;
/// The age of `base` at which it is moved, in µs. An offset has a range of 35 minutes.
const MAX_BASE_AGE: u64 = 600_000_000;

/// Frames of one channel that were dropped.
#[derive(Debug)]
struct Gap {
    channel: u16,
    /// When the last of them was on the bus.
    at: u64,
    frames: u32,
}

/// When frames began to wait.
#[derive(Debug)]
struct Mark {
    since: u64,
    /// The number of bytes pushed until then.
    pushed: u64,
}

/// Frames that wait for a message, as encoded records in the order of the bus.
#[derive(Debug)]
pub(super) struct FrameQueue {
    /// Records, whose offsets are relative to `base`.
    bytes: BytesMut,
    base: u64,
    /// The number of bytes that were ever pushed, and that were ever removed.
    pushed: u64,
    removed: u64,
    marks: VecDeque<Mark>,
    gaps: Vec<Gap>,
}

impl FrameQueue {
    pub(super) fn new() -> Self {
        Self {
            bytes: BytesMut::new(),
            base: 0,
            pushed: 0,
            removed: 0,
            marks: VecDeque::with_capacity(MAX_MARKS),
            gaps: Vec::new(),
        }
    }

    /// The size of the frames and of the reports of dropped ones, in bytes.
    pub(super) fn len(&self) -> usize {
        self.bytes.len() + self.gaps.len() * GAP_LEN
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty() && self.gaps.is_empty()
    }

    /// Adds a frame that was on the bus at `at`, and drops the oldest ones beyond the limit.
    pub(super) fn push(&mut self, now: u64, at: u64, mut record: Record<'_>) {
        self.move_base(at);
        record.offset = relative(at, self.base);
        let len = record.encoded_len();
        if self.marks.back().is_none_or(|mark| now.saturating_sub(mark.since) >= MARK_EVERY) {
            self.marks.push_back(Mark { since: now, pushed: self.pushed });
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve(FIRST_CAPACITY);
        }
        self.bytes.reserve(len);
        record.encode(&mut self.bytes);
        self.pushed += len as u64;
        while self.bytes.len() > MAX_BYTES && self.drop_oldest() {}
    }

    fn move_base(&mut self, at: u64) {
        if self.bytes.is_empty() {
            self.base = at;
        } else if at.saturating_sub(self.base) > MAX_BASE_AGE {
            shift_offsets(&mut self.bytes, relative(self.base, at));
            self.base = at;
        }
    }

    /// Drops the frames that have waited for too long. Call it only while the link is up.
    pub(super) fn drop_late(&mut self, now: u64) {
        // frames behind a mark began to wait at its time or later
        while let Some(next) = self.marks.get(1)
            && now.saturating_sub(next.since) > MAX_WAIT
        {
            let end = next.pushed;
            while self.removed < end && self.drop_oldest() {}
            self.marks.pop_front();
        }
    }

    /// Starts the waiting times again, because the link has come back.
    pub(super) fn restart_waiting(&mut self, now: u64) {
        self.marks.clear();
        self.marks.push_back(Mark { since: now, pushed: self.pushed });
    }

    /// Drops all frames without a report.
    pub(super) fn clear(&mut self) {
        while self.drop_oldest() {}
        self.gaps.clear();
    }

    /// Drops the oldest frame, which the next message reports; false if there is none.
    pub(super) fn drop_oldest(&mut self) -> bool {
        let Some((len, channel, offset)) = self.oldest() else { return false };
        self.remove(len);
        let at = self.base.saturating_add_signed(i64::from(offset));
        match self.gaps.iter_mut().find(|gap| gap.channel == channel) {
            Some(gap) => {
                gap.at = at;
                gap.frames = gap.frames.saturating_add(1);
            }
            None => self.gaps.push(Gap { channel, at, frames: 1 }),
        }
        true
    }

    /// The length, channel and offset of the oldest record.
    fn oldest(&self) -> Option<(usize, u16, i32)> {
        let head = self.bytes.first_chunk::<RECORD_HEADER_LEN>()?;
        let [_, _, c0, c1, o0, o1, o2, o3, l0, l1, l2, l3] = *head;
        let len = RECORD_HEADER_LEN + u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        Some((len, u16::from_be_bytes([c0, c1]), i32::from_be_bytes([o0, o1, o2, o3])))
    }

    fn remove(&mut self, len: usize) {
        self.bytes.advance(len.min(self.bytes.len()));
        self.removed += len as u64;
    }

    /// Moves the oldest frames into a message, at most `room` bytes of them, behind the reports of the frames
    /// that were dropped before them, and at most `most` records. The times become relative to `now`. Returns the
    /// number of records.
    pub(super) fn take(&mut self, now: u64, room: usize, most: u16, message: &mut BytesMut) -> u16 {
        let mut count = 0_u16;
        let mut left = room;
        while let Some(gap) = self.gaps.pop_if(|_| left >= GAP_LEN && count < most) {
            let payload = Payload::Event { code: EventCode::Gap, detail: 0, value: gap.frames, text: "" };
            Record { channel: gap.channel, offset: relative(gap.at, now), payload }.encode(message);
            left -= GAP_LEN;
            count += 1;
        }
        let taken = self.fitting(left, most - count);
        let start = message.len();
        message.extend_from_slice(self.bytes.get(..taken.0).unwrap_or_default());
        if let Some(records) = message.get_mut(start..) {
            shift_offsets(records, relative(self.base, now));
        }
        self.remove(taken.0);
        count + taken.1
    }

    /// The length and number of the oldest records that fit.
    fn fitting(&self, room: usize, most: u16) -> (usize, u16) {
        let (mut len, mut count) = (0, 0);
        while count < most
            && let Some(head) = self.bytes.get(len..).and_then(|rest| rest.first_chunk::<RECORD_HEADER_LEN>())
        {
            let [.., l0, l1, l2, l3] = *head;
            let next = len + RECORD_HEADER_LEN + u32::from_be_bytes([l0, l1, l2, l3]) as usize;
            if next > room || next > self.bytes.len() {
                break;
            }
            (len, count) = (next, count + 1);
        }
        (len, count)
    }
}

#[cfg(test)]
mod tests {
    use connector_hal::can::{CanFrame, CanId};

    use super::*;
    use crate::relay::wire::codec::{HEADER_LEN, Header, Records, Tag};

    fn push(queue: &mut FrameQueue, now: u64, channel: u16, number: u32) {
        let frame = CanFrame::new(CanId::standard_truncated(0x123), &number.to_be_bytes()).unwrap();
        queue.push(now, now, Record { channel, offset: 0, payload: Payload::Frame(frame) });
    }

    /// The records that fit into `room`: channel, time, and frame number or negated gap.
    fn take(queue: &mut FrameQueue, now: u64, room: usize) -> Vec<(u16, i32, i64)> {
        let mut message = BytesMut::zeroed(HEADER_LEN);
        let record_count = queue.take(now, room, u16::MAX, &mut message);
        let header = Header { record_count, tag: Tag([0; 4]), seq: 1, ack: 0, time: 0 };
        let number = |record: Record<'_>| match record.payload {
            Payload::Frame(frame) => i64::from(u32::from_be_bytes(frame.data().try_into().unwrap())),
            Payload::Event { code: EventCode::Gap, value, .. } => -i64::from(value),
            other => panic!("{other:?}"),
        };
        let records = Records::new(&message, &header).map(Result::unwrap);
        records.map(|record| (record.channel, record.offset, number(record))).collect()
    }

    #[test]
    fn frames_leave_in_order_with_their_times() {
        let mut queue = FrameQueue::new();
        (0..4).for_each(|number| push(&mut queue, 1_000 * u64::from(number), 7, number));
        assert_eq!(take(&mut queue, 5_000, 45), [(7, -5_000, 0), (7, -4_000, 1)]);
        assert_eq!(take(&mut queue, 6_000, 1_000), [(7, -4_000, 2), (7, -3_000, 3)]);
        assert!(queue.is_empty());
    }

    #[test]
    fn the_oldest_frames_beyond_the_size_are_dropped_and_reported_for_each_channel() {
        let mut queue = FrameQueue::new();
        let frames = 20_000_u32;
        for number in 0..frames {
            push(&mut queue, u64::from(number), 1 + (number % 2) as u16, number);
            assert!(queue.len() <= MAX_BYTES + 2 * GAP_LEN);
        }
        let records = take(&mut queue, 20_000, usize::MAX);
        let dropped: i64 = records.iter().filter(|record| record.2 < 0).map(|record| -record.2).sum();
        let kept: Vec<_> = records.iter().filter(|record| record.2 >= 0).map(|record| record.2).collect();
        assert_eq!(dropped + kept.len() as i64, i64::from(frames));
        assert!(kept.iter().copied().eq(dropped..i64::from(frames)), "the youngest are kept, in order");
    }

    #[test]
    fn frames_that_waited_for_a_second_are_dropped_unless_the_link_was_down() {
        let mut queue = FrameQueue::new();
        for number in 0..30 {
            push(&mut queue, 100_000 * u64::from(number), 1, number);
        }
        queue.drop_late(2_900_000);
        let records = take(&mut queue, 2_900_000, usize::MAX);
        let kept = records.iter().filter(|record| record.2 >= 0).count();
        assert!((10..=12).contains(&kept), "{kept}");

        for number in 0..30 {
            push(&mut queue, 3_000_000 + 100_000 * u64::from(number), 1, number);
        }
        queue.restart_waiting(6_000_000);
        queue.drop_late(6_500_000);
        assert_eq!(take(&mut queue, 6_500_000, usize::MAX).len(), 30);
    }

    #[test]
    fn times_stay_right_in_a_queue_that_never_empties() {
        let mut queue = FrameQueue::new();
        push(&mut queue, 0, 1, 0);
        for step in 1..100_u32 {
            let now = u64::from(step) * 900_000_000;
            push(&mut queue, now, 1, step);
            // the frame that was pushed 15 minutes before
            assert_eq!(take(&mut queue, now, 21), [(1, -900_000_000, i64::from(step) - 1)]);
        }
    }
}
