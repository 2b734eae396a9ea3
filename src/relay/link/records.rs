//! Changes of encoded records.

use crate::relay::wire::codec::{EventCode, HEADER_LEN, Header, Payload, RECORD_HEADER_LEN, Record, Records};

/// The position of the time offset in a record.
const RECORD_OFFSET_AT: usize = 4;
/// The length of the record of a `gap` event, in bytes.
pub(super) const GAP_LEN: usize = RECORD_HEADER_LEN + 8;

/// The time from `base` to `at` in µs, clamped to the range of an offset (35 minutes).
pub(super) fn relative(at: u64, base: u64) -> i32 {
    let difference = i128::from(at) - i128::from(base);
    difference.clamp(i128::from(i32::MIN), i128::from(i32::MAX)) as i32
}

/// Adds `shift` to the offset of every record.
pub(super) fn shift_offsets(records: &mut [u8], shift: i32) {
    let mut at = 0;
    while let Some(record) = records.get_mut(at..) {
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
pub(super) fn without_frames(message: &[u8], header: Header, report: bool) -> (u16, Vec<u8>) {
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
