use connector_hal::can::{CanFrame, CanId, FdFlags};
use proptest::prelude::*;

use super::*;

const TAG: Tag = Tag([0x97, 0xA0, 0, 1]);

fn message(records: &[Record<'_>]) -> Vec<u8> {
    let header = Header { record_count: records.len() as u16, tag: TAG, seq: 7, ack: 5, time: 1_000_000 };
    let mut out = Vec::new();
    header.encode(&mut out);
    records.iter().for_each(|record| record.encode(&mut out));
    out
}

fn decode(message: &[u8]) -> Result<Vec<Record<'_>>, CodecError> {
    let header = Header::decode(message)?;
    Records::new(message, &header).collect()
}

#[test]
fn a_pdu_message_has_the_bytes_of_the_relay_protocol() {
    let flags = PduFlags { chained: true, confirm: true };
    let payload = Payload::Pdu { address: 0, flags, data: &[0x22, 0xF1, 0x90] };
    let bytes = message(&[Record { channel: 3, offset: -2, payload }]);
    let golden = [
        1, 0, 0, 1, 0x97, 0xA0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0x0F, 0x42, 0x40, // header
        2, 3, 0, 3, 0xFF, 0xFF, 0xFF, 0xFE, 0, 0, 0, 7, // record
        0, 0, 0, 0, 0x22, 0xF1, 0x90,
    ];
    assert_eq!(bytes, golden);
}

#[test]
fn a_frame_record_has_the_bytes_of_the_relay_protocol() {
    let id = CanId::extended(0x18DA_10F1).unwrap();
    let flags = FdFlags { bit_rate_switch: true, error_state: false };
    let frame = CanFrame::new_fd(id, flags, &[1, 2]).unwrap();
    let bytes = message(&[Record { channel: 1, offset: 0, payload: Payload::Frame(frame) }]);
    assert_eq!(bytes[HEADER_LEN..], [1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 7, 0x98, 0xDA, 0x10, 0xF1, 5, 1, 2]);
}

#[test]
fn a_clock_record_has_the_bytes_of_the_relay_protocol() {
    let payload = Payload::Clock { echo: 0x0102_0304_0506_0708, hold: 0x090A_0B0C };
    let record = Record { channel: 0, offset: 0, payload };
    let mut bytes = message(&[record]);
    assert_eq!(
        bytes[HEADER_LEN..],
        [5, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 12, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]
    );
    assert_eq!(decode(&bytes), Ok(vec![record]));
    for (len, what) in [(0, "a clock record without echo"), (8, "a clock record without hold")] {
        bytes.truncate(HEADER_LEN + 12 + len);
        bytes[HEADER_LEN + 11] = len as u8;
        let expected = what;
        assert!(matches!(decode(&bytes), Err(CodecError::Payload { index: 0, what }) if what == expected));
        bytes.resize(HEADER_LEN + 24, 0);
    }
}

#[test]
fn a_small_29_bit_identifier_and_a_remote_frame_survive() {
    let id = CanId::extended(0x12).unwrap();
    let frame = CanFrame::new_remote(id, 5).unwrap();
    let record = Record { channel: 1, offset: 0, payload: Payload::Frame(frame) };
    assert_eq!(decode(&message(&[record])), Ok(vec![record]));
}

#[test]
fn a_record_longer_than_the_message_is_named_by_index_and_place() {
    let payload = Payload::Terminal15 { on: None };
    let record = Record { channel: 1, offset: 0, payload };
    let mut bytes = message(&[record, record]);
    bytes.pop();
    assert_eq!(decode(&bytes), Err(CodecError::Truncated { index: 1, at: HEADER_LEN + 13 }));
    let mut huge = message(&[record]);
    huge[HEADER_LEN + 8..HEADER_LEN + 12].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(decode(&huge), Err(CodecError::Truncated { index: 0, at: HEADER_LEN }));
}

#[test]
fn bytes_after_the_last_record_are_an_error() {
    let mut bytes = message(&[]);
    bytes.push(0);
    assert_eq!(decode(&bytes), Err(CodecError::Trailing(1)));
}

#[test]
fn an_unknown_kind_is_skipped_by_its_length() {
    let known = Record { channel: 1, offset: 0, payload: Payload::Terminal15 { on: Some(true) } };
    let mut bytes = message(&[known, known]);
    bytes[HEADER_LEN] = 99;
    let records = decode(&bytes).unwrap();
    assert_eq!(records[0].payload, Payload::Unknown { kind: 99 });
    assert_eq!(records[1], known);
}

#[test]
fn another_version_is_refused() {
    let mut bytes = message(&[]);
    bytes[0] = 2;
    assert_eq!(decode(&bytes), Err(CodecError::Version(2)));
    assert_eq!(decode(&bytes[..23]), Err(CodecError::ShortHeader(23)));
}

fn any_id() -> impl Strategy<Value = CanId> {
    prop_oneof![
        (0..=0x7FFu32).prop_map(CanId::standard_truncated),
        (0..=0x1FFF_FFFFu32).prop_map(CanId::extended_truncated)
    ]
}

fn any_frame() -> impl Strategy<Value = CanFrame> {
    let classic = (any_id(), prop::collection::vec(any::<u8>(), 0..=8))
        .prop_map(|(id, data)| CanFrame::new(id, &data).unwrap());
    let remote = (any_id(), 0..=8usize).prop_map(|(id, len)| CanFrame::new_remote(id, len).unwrap());
    let error = (0..=0x1FFF_FFFFu32, any::<[u8; 8]>()).prop_map(|(c, detail)| CanFrame::new_error(c, detail));
    let fd_length = prop::sample::select(vec![0, 1, 8, 12, 16, 20, 24, 32, 48, 64]);
    let fd =
        (any_id(), any::<(bool, bool)>(), fd_length).prop_map(|(id, (bit_rate_switch, error_state), len)| {
            CanFrame::new_fd(id, FdFlags { bit_rate_switch, error_state }, &vec![0x5A; len]).unwrap()
        });
    prop_oneof![classic, remote, error, fd]
}

proptest! {
    #[test]
    fn every_frame_survives_the_round_trip(frames in prop::collection::vec((any_frame(), any::<u16>(), any::<i32>()), 0..20)) {
        let records: Vec<_> = frames
            .iter()
            .map(|(frame, channel, offset)| Record { channel: *channel, offset: *offset, payload: Payload::Frame(*frame) })
            .collect();
        let bytes = message(&records);
        prop_assert_eq!(bytes.len(), HEADER_LEN + records.iter().map(Record::encoded_len).sum::<usize>());
        prop_assert_eq!(decode(&bytes), Ok(records));
    }

    #[test]
    fn every_event_survives_the_round_trip(code in any::<u16>(), detail in any::<u16>(), value in any::<u32>(), text in ".{0,40}") {
        let payload = Payload::Event { code: EventCode::from_wire(code), detail, value, text: &text };
        let record = Record { channel: 9, offset: 0, payload };
        let bytes = message(&[record]);
        prop_assert_eq!(decode(&bytes), Ok(vec![record]));
    }

    #[test]
    fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = decode(&bytes);
        let mut versioned = bytes.clone();
        if let Some(first) = versioned.first_mut() { *first = message::VERSION; }
        let _ = decode(&versioned);
    }
}
