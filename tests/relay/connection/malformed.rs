//! Invalid and hostile binary messages of an operator.

use connector_agent::relay::connection::CloseReason;
use connector_agent::relay::wire::codec::{EventCode, HEADER_LEN, Header, Payload, PduFlags, Record, Tag};
use serde_json::json;

use super::common::*;

fn header(seq: u32) -> Header {
    Header { record_count: 0, tag: Tag::from(UUID), seq, ack: 0, time: 0 }
}

fn pdu(channel: u16, data: &[u8]) -> Record<'_> {
    Record { channel, offset: 0, payload: Payload::Pdu { address: 0, flags: PduFlags::default(), data } }
}

fn message(header: Header, records: &[Record<'_>]) -> Vec<u8> {
    let mut bytes = Vec::new();
    Header { record_count: records.len() as u16, ..header }.encode(&mut bytes);
    records.iter().for_each(|record| record.encode(&mut bytes));
    bytes
}

async fn rig() -> (Rig, Ecu) {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({})).await;
    (rig, ecu)
}

#[tokio::test(start_paused = true)]
async fn a_message_truncated_anywhere_is_refused_as_a_whole_with_an_error() {
    let good = message(header(1), &[pdu(1, &[0x10, 1]), pdu(1, &[0x10, 2])]);
    for length in 0..good.len() {
        let (mut rig, ecu) = rig().await;
        let before = rig.texts.len();
        rig.inject(&good[..length]);
        rig.run(100 * MILLISECOND).await;
        assert_eq!(ecu.requests().len(), 0, "{length} bytes");
        assert_eq!(rig.texts.len(), before + 1, "{length} bytes");
        assert_eq!(problem(&rig.texts[before]), (400, "invalid-binary-message".to_owned()));
        // the connection still works
        let next = if length < HEADER_LEN { 1 } else { 2 };
        rig.inject(&message(header(next), &[pdu(1, &[0x10, 3])]));
        rig.run(100 * MILLISECOND).await;
        assert_eq!(ecu.requests(), [[0x10, 3]], "{length} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_with_a_wrong_record_count_is_refused_as_a_whole() {
    for count in [0, 1, 3, u16::MAX] {
        let (mut rig, ecu) = rig().await;
        let mut bytes = message(header(1), &[pdu(1, &[0x10, 1]), pdu(1, &[0x10, 2])]);
        bytes[2..4].copy_from_slice(&count.to_be_bytes());
        rig.inject(&bytes);
        rig.run(100 * MILLISECOND).await;
        assert_eq!(ecu.requests().len(), 0, "{count}");
        assert_eq!(problem(rig.texts.last().unwrap()).1, "invalid-binary-message", "{count}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_record_with_a_wrong_length_is_refused() {
    for length in [0, 3, 5, 7, 0x7FFF_FFFF, u32::MAX] {
        let (mut rig, ecu) = rig().await;
        let mut bytes = message(header(1), &[pdu(1, &[0x10, 1])]);
        bytes[HEADER_LEN + 8..HEADER_LEN + 12].copy_from_slice(&length.to_be_bytes());
        rig.inject(&bytes);
        rig.run(100 * MILLISECOND).await;
        assert_eq!(ecu.requests().len(), 0, "{length}");
        assert_eq!(problem(rig.texts.last().unwrap()).1, "invalid-binary-message", "{length}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_connection_is_dropped_silently() {
    let (mut rig, ecu) = rig().await;
    let texts = rig.texts.len();
    rig.inject(&message(Header { tag: Tag([0; 4]), ..header(1) }, &[pdu(1, &[0x10, 1])]));
    rig.run(SECOND).await;
    assert_eq!((ecu.requests().len(), rig.session.received(), rig.texts.len()), (0, 0, texts));
    assert_eq!(rig.heard, []);
}

#[tokio::test(start_paused = true)]
async fn another_version_is_refused() {
    let (mut rig, ecu) = rig().await;
    let mut bytes = message(header(1), &[pdu(1, &[0x10, 1])]);
    bytes[0] = 2;
    rig.inject(&bytes);
    rig.run(SECOND).await;
    assert_eq!((ecu.requests().len(), rig.session.received()), (0, 0));
    assert_eq!(problem(rig.texts.last().unwrap()).1, "invalid-binary-message");
}

#[tokio::test(start_paused = true)]
async fn a_message_after_a_gap_is_refused_until_the_missing_one_arrives() {
    let (mut rig, ecu) = rig().await;
    let second = message(header(2), &[pdu(1, &[0x10, 2])]);
    rig.inject(&second);
    assert_eq!(rig.session.received(), 0);
    rig.inject(&message(header(1), &[pdu(1, &[0x10, 1])]));
    rig.inject(&second);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 1], [0x10, 2]]);
    assert!(rig.texts.iter().any(|text| text.message["type"] == "/problems/sequence-gap"));
}

#[tokio::test(start_paused = true)]
async fn a_repeated_message_is_dropped_and_acknowledged_again() {
    let (mut rig, ecu) = rig().await;
    let first = message(header(1), &[pdu(1, &[0x10, 1])]);
    rig.inject(&first);
    rig.run(SECOND).await;
    let before = rig.messages.len();
    rig.inject(&first);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 1]]);
    assert_eq!(rig.messages.len(), before + 1);
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_of_unsent_messages_is_refused() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    rig.operator_reads = false;
    rig.send(1, PLAIN, &[0x10, 1]);
    rig.run(100 * MILLISECOND).await;
    for ack in [2, u32::MAX] {
        rig.inject(&message(Header { ack, ..header(0) }, &[]));
        assert!(rig.run_until(SECOND, |rig| rig.texts.iter().any(|text| text.action == "error")).await);
    }
    rig.cut();
    rig.operator_reads = true;
    rig.resume().await;
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x50, 1]]);
}

#[tokio::test(start_paused = true)]
async fn each_record_for_a_closed_channel_gets_an_error() {
    let (mut rig, ecu) = rig().await;
    for channel in [0, 2, u16::MAX] {
        rig.send(channel, PLAIN, &[0x10, 1]);
        rig.send_frame(channel, frame(0x7E0, &[1]));
    }
    rig.run(SECOND).await;
    for channel in [0, 2, u16::MAX] {
        assert_eq!(rig.events(channel), [(EventCode::SendFailed, 7, 0); 2]);
    }
    assert_eq!(ecu.requests().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn records_without_meaning_towards_a_vehicle_are_ignored() {
    let (mut rig, ecu) = rig().await;
    for channel in [1, 77] {
        rig.push(channel, Payload::Terminal15 { on: Some(true) });
        rig.push(channel, Payload::Event { code: EventCode::Sent, detail: 0, value: 0, text: "?" });
        rig.push(channel, Payload::Unknown { kind: 99 });
    }
    rig.send(1, PLAIN, &[0x10, 1]);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 1]]);
    assert_eq!(rig.heard, []);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_unknown_channels_ends_the_connection_at_worst() {
    let (mut rig, _ecu) = rig().await;
    rig.operator_reads = false;
    let record = pdu(9, &[]);
    let records = vec![record; 4000];
    for seq in 1..=100 {
        rig.inject(&message(header(seq), &records));
    }
    rig.run(SECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::Overflow));
    // a message after the close has no effect
    rig.inject(&message(header(101), &records));
    rig.run(SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_broken_messages_costs_a_bounded_number_of_errors() {
    let (mut rig, ecu) = rig().await;
    for _ in 0..10_000 {
        rig.inject(&[1, 2, 3]);
        rig.inject(&message(header(5), &[]));
    }
    rig.run(MILLISECOND).await;
    assert!(rig.texts.len() < 300, "{} errors", rig.texts.len());
    rig.inject(&message(header(1), &[pdu(1, &[0x10, 1])]));
    rig.run(100 * MILLISECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 1]]);
}

#[tokio::test(start_paused = true)]
async fn after_a_clock_jump_records_are_at_worst_too_old() {
    let (mut rig, ecu) = rig().await;
    for (seq, time) in [(1, u64::MAX), (2, 0), (3, u64::MAX / 4), (4, 1)] {
        rig.inject(&message(Header { time, ..header(seq) }, &[pdu(1, &[0x10, seq as u8])]));
        rig.run(10 * MILLISECOND).await;
    }
    assert_eq!(ecu.requests(), [[0x10, 1]]);
}

#[tokio::test(start_paused = true)]
async fn offsets_at_their_limits_are_taken_as_ages() {
    let (mut rig, ecu) = rig().await;
    for (seq, offset, is_sent) in
        [(1, i32::MAX, true), (2, 0, true), (3, -29_000_000, true), (4, i32::MIN, false)]
    {
        let record = Record { offset, ..pdu(1, &[0x10, 1]) };
        let before = ecu.requests().len();
        rig.inject(&message(header(seq), &[record]));
        rig.run(10 * MILLISECOND).await;
        assert_eq!(ecu.requests().len() - before, usize::from(is_sent), "{offset}");
    }
}
