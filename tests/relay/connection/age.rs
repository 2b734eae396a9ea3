//! The age of records: no old record may reach a vehicle.

use std::time::Duration;

use connector_agent::relay::wire::codec::{EventCode, Header, Payload, Record, Records, Tag};
use serde_json::json;

use super::common::*;

const TOO_OLD: (EventCode, u16, u32) = (EventCode::SendFailed, 8, 0);

/// Channel 1 is raw, channel 2 is ISO-TP. The session has measured the delay with a first message.
async fn rig_with_delay(delay: Duration, raw: serde_json::Value, isotp: serde_json::Value) -> (Rig, Node) {
    let mut rig = Rig::new();
    rig.set_network(Network::Up(delay));
    rig.configure_hs().await;
    let node = Node::attach(&rig.buses[0]);
    let mut raw = raw;
    raw["request_id"] = json!(0x100);
    rig.open_raw(1, raw).await;
    rig.open_isotp(2, isotp).await;
    // the connector's clock reaches the operator
    rig.run(delay).await;
    rig.send_frame(1, frame(0x100, &[0]));
    rig.run(delay + 10 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x100, &[0])]);
    (rig, node)
}

async fn stall(rig: &mut Rig, time: Duration) {
    rig.set_network(Network::Stalled);
    rig.run(time).await;
    rig.set_network(Network::Up(Duration::ZERO));
    rig.run(10 * MILLISECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_network_delay_alone_makes_no_record_too_old() {
    let (mut rig, node) = rig_with_delay(450 * MILLISECOND, json!({}), json!({})).await;
    for count in 1..10 {
        rig.send_frame(1, frame(0x100, &[count]));
        rig.run(300 * MILLISECOND).await;
    }
    rig.run(3 * SECOND).await;
    assert_eq!(node.frames().len(), 10);
    assert_eq!(rig.events(1), []);
}

#[tokio::test(start_paused = true)]
async fn a_raw_frame_older_than_500_ms_is_not_sent() {
    for (age, expected) in [(450, 2), (550, 1)] {
        let (mut rig, node) = rig_with_delay(Duration::ZERO, json!({}), json!({})).await;
        rig.set_network(Network::Stalled);
        rig.send_frame(1, frame(0x100, &[1]));
        stall(&mut rig, age * MILLISECOND).await;
        assert_eq!(node.frames().len(), expected, "{age} ms");
        assert_eq!(rig.events(1), vec![TOO_OLD; 2 - expected], "{age} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn a_pdu_older_than_30_s_is_not_sent() {
    for (age, is_sent) in [(29_900, true), (30_100, false)] {
        let (mut rig, node) = rig_with_delay(Duration::ZERO, json!({}), json!({})).await;
        rig.set_network(Network::Stalled);
        rig.send(2, PLAIN, &[0x10, 3]);
        stall(&mut rig, age * MILLISECOND).await;
        assert_eq!(node.single_frames(0x7E0).len(), usize::from(is_sent), "{age} ms");
        assert_eq!(rig.events(2), vec![TOO_OLD; usize::from(!is_sent)], "{age} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn the_maximum_age_can_be_set_per_channel() {
    let (mut rig, node) =
        rig_with_delay(Duration::ZERO, json!({"max_age_ms": 5000}), json!({"max_age_ms": 100})).await;
    rig.set_network(Network::Stalled);
    rig.send_frame(1, frame(0x100, &[1]));
    rig.send(2, PLAIN, &[0x10, 3]);
    stall(&mut rig, SECOND).await;
    assert_eq!(node.frames()[1..], [frame(0x100, &[1])]);
    assert_eq!(rig.events(2), [TOO_OLD]);
}

#[tokio::test(start_paused = true)]
async fn the_maximum_age_has_an_upper_bound() {
    let (mut rig, node) =
        rig_with_delay(Duration::ZERO, json!({"max_age_ms": u32::MAX}), json!({"max_age_ms": u32::MAX}))
            .await;
    let before = node.frames().len();
    rig.set_network(Network::Stalled);
    rig.send_frame(1, frame(0x100, &[1]));
    rig.send(2, PLAIN, &[0x10, 3]);
    stall(&mut rig, 6 * SECOND).await;
    assert_eq!((rig.events(1), rig.events(2)), (vec![TOO_OLD], vec![]));
    assert_eq!(node.frames().iter().skip(before).filter(|frame| frame.data() == [1]).count(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_maximum_age_can_stand_beside_the_channel_kind_too() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let channel =
        json!({"channel": 1, "max_age_ms": 100, "raw_channel": {"bus_name": "HS", "request_id": 0x100}});
    assert_eq!(rig.request("openChannel", channel).await.action, "channelOpened");
    rig.send_frame(1, frame(0x100, &[0]));
    rig.run(10 * MILLISECOND).await;
    rig.set_network(Network::Stalled);
    rig.send_frame(1, frame(0x100, &[1]));
    stall(&mut rig, 200 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x100, &[0])]);
    assert_eq!(rig.events(1), [TOO_OLD]);
}

#[tokio::test(start_paused = true)]
async fn the_age_includes_the_wait_before_the_message_was_built() {
    let (mut rig, node) = rig_with_delay(Duration::ZERO, json!({}), json!({})).await;
    // the operator's socket accepts nothing for a while
    let at = now();
    tokio::time::advance(600 * MILLISECOND).await;
    let payload = Payload::Frame(frame(0x100, &[1]));
    rig.operator.push(now(), at, 1, payload).unwrap();
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames().len(), 1);
    assert_eq!(rig.events(1), [TOO_OLD]);
}

#[tokio::test(start_paused = true)]
async fn frames_that_become_too_old_at_a_busy_bus_are_not_sent() {
    let (mut rig, node) = rig_with_delay(Duration::ZERO, json!({}), json!({})).await;
    // 4000 frames of 8 bytes take about 0.9 s, and have a higher priority
    let other = Node::attach(&rig.buses[0]);
    for _ in 0..4000 {
        other.send(frame(0x001, &[0x55; 8]));
    }
    for count in 1..=50 {
        rig.send_frame(1, frame(0x100, &[count]));
    }
    rig.run(3 * SECOND).await;
    let sent = node.frames().iter().filter(|frame| frame.id() == id(0x100)).count() - 1;
    let too_old = rig.count(1, EventCode::SendFailed, 8);
    assert_eq!(sent + too_old + rig.count(1, EventCode::SendFailed, 4), 50, "{:?}", rig.events(1));
    assert!(sent <= 2, "the adapter does not send the frames that it already held: {sent}");
}

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_frame_is_not_sent_to_a_node_that_joins_later() {
    let mut rig = Rig::configured().await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    rig.send_frame(1, frame(0x100, &[1]));
    rig.run(550 * MILLISECOND).await;
    let node = Node::attach(&rig.buses[0]);
    rig.run(SECOND).await;
    assert_eq!(node.frames(), []);
    assert_eq!(rig.count(1, EventCode::SendFailed, 4), 1);
    rig.send_frame(1, frame(0x100, &[2]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x100, &[2])]);
}

#[tokio::test(start_paused = true)]
async fn a_stale_frame_does_not_spoil_a_transfer() {
    let mut rig = Rig::configured().await;
    rig.open_raw(1, json!({"request_id": 0x7FF, "max_age_ms": 0})).await;
    rig.open_isotp(2, json!({})).await;
    // the first message also shows the shortest delay
    rig.send(2, PLAIN, &[0x36; 20]);
    rig.send_frame(1, frame(0x7FF, &[1]));
    rig.run(500 * MILLISECOND).await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(2), [[0x76, 0x36]]);
}

#[tokio::test(start_paused = true)]
async fn a_pdu_that_is_too_old_breaks_its_chain() {
    let (mut rig, node) = rig_with_delay(Duration::ZERO, json!({}), json!({"max_age_ms": 1000})).await;
    rig.set_network(Network::Stalled);
    rig.send(2, PLAIN, &[0x34, 0]);
    rig.run(800 * MILLISECOND).await;
    rig.send(2, CHAINED, &[0x36, 1]);
    stall(&mut rig, 400 * MILLISECOND).await;
    rig.send(2, CHAINED, &[0x36, 2]);
    rig.run(SECOND).await;
    assert_eq!(node.single_frames(0x7E0).len(), 0, "a block is not sent without its download request");
    let broken = (EventCode::ChainBroken, 0, 1);
    assert_eq!(rig.events(2), [TOO_OLD, broken, broken]);
    rig.send(2, PLAIN, &[0x34, 0]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.single_frames(0x7E0), [[0x34, 0]]);
}

#[tokio::test(start_paused = true)]
async fn after_a_lost_link_pdus_are_sent_again_and_frames_are_not() {
    let (mut rig, node) = rig_with_delay(Duration::ZERO, json!({}), json!({})).await;
    rig.set_network(Network::Stalled);
    rig.send_frame(1, frame(0x100, &[1]));
    rig.send(2, PLAIN, &[0x10, 3]);
    rig.run(10 * MILLISECOND).await;
    rig.cut();
    rig.send_frame(1, frame(0x100, &[2]));
    rig.run(SECOND).await;
    rig.resume().await;
    rig.run(SECOND).await;
    assert_eq!(node.single_frames(0x7E0), [[0x10, 3]]);
    assert_eq!(node.frames().iter().filter(|frame| frame.id() == id(0x100)).count(), 1);
    rig.send_frame(1, frame(0x100, &[3]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames().last(), Some(&frame(0x100, &[3])));
}

#[tokio::test(start_paused = true)]
async fn a_pdu_repeated_after_a_long_interruption_is_too_old() {
    let (mut rig, node) = rig_with_delay(Duration::ZERO, json!({}), json!({"max_age_ms": 5000})).await;
    rig.set_network(Network::Stalled);
    rig.send(2, PLAIN, &[0x10, 3]);
    rig.run(10 * MILLISECOND).await;
    rig.cut();
    rig.run(6 * SECOND).await;
    rig.resume().await;
    rig.run(SECOND).await;
    assert_eq!(rig.events(2), [TOO_OLD]);
    assert_eq!(node.single_frames(0x7E0).len(), 0);
}

/// A message of an operator with these records, as bytes.
fn message(seq: u32, time: u64, records: &[Record<'_>]) -> Vec<u8> {
    let tag = Tag::from(UUID);
    let mut bytes = Vec::new();
    Header { record_count: records.len() as u16, tag, seq, ack: 0, time }.encode(&mut bytes);
    records.iter().for_each(|record| record.encode(&mut bytes));
    bytes
}

/// The details of `send-failed` in the messages to the operator, who has sent none by itself.
fn failures(rig: &Rig) -> Vec<u16> {
    let records =
        rig.messages.iter().flat_map(|message| Records::new(message, &Header::decode(message).unwrap()));
    let failed = |record: Record<'_>| match record.payload {
        Payload::Event { code: EventCode::SendFailed, detail, .. } => Some(detail),
        _ => None,
    };
    records.map(Result::unwrap).filter_map(failed).collect()
}

fn frame_record(data: u8) -> Record<'static> {
    Record { channel: 1, offset: 0, payload: Payload::Frame(frame(0x100, &[data])) }
}

fn clock_record(echo: u64, hold: u32) -> Record<'static> {
    Record { channel: 0, offset: 0, payload: Payload::Clock { echo, hold } }
}

async fn rig_with_raw_channel() -> (Rig, Node) {
    let mut rig = Rig::configured().await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    let node = Node::attach(&rig.buses[0]);
    (rig, node)
}

#[tokio::test(start_paused = true)]
async fn the_connectors_clock_follows_the_first_request_unasked() {
    let mut rig = Rig::configured().await;
    rig.run(SECOND).await;
    let header = Header::decode(&rig.messages[0]).unwrap();
    let records: Vec<_> = Records::new(&rig.messages[0], &header).map(Result::unwrap).collect();
    assert_eq!((header.seq, records), (0, vec![clock_record(0, 0)]));
    assert_eq!(rig.messages.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_frame_held_back_in_the_first_message_is_not_sent() {
    for (age_ms, is_sent) in [(100, true), (3_000, false)] {
        let (mut rig, node) = rig_with_raw_channel().await;
        let received = u64::try_from(rig.elapsed().as_micros()).unwrap().max(1);
        let records = [frame_record(1), clock_record(received, 0)];
        rig.run(age_ms * MILLISECOND).await;
        rig.inject(&message(1, 77, &records));
        rig.run(10 * MILLISECOND).await;
        assert_eq!(node.frames().len(), usize::from(is_sent), "{age_ms} ms");
        assert_eq!(failures(&rig), vec![8; usize::from(!is_sent)], "{age_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_before_the_first_measurement_wait_for_it() {
    for (age_ms, is_sent) in [(100, true), (3_000, false)] {
        let (mut rig, node) = rig_with_raw_channel().await;
        let received = u64::try_from(rig.elapsed().as_micros()).unwrap().max(1);
        rig.run(age_ms * MILLISECOND).await;
        // this operator had not received the connector's clock when it sent the frame
        rig.inject(&message(1, 77, &[frame_record(1), clock_record(0, 0)]));
        rig.run(300 * MILLISECOND).await;
        assert_eq!((node.frames().len(), failures(&rig)), (0, vec![]), "{age_ms} ms");
        let elapsed = (age_ms + 300) * 1_000;
        rig.inject(&message(0, 77 + u64::from(elapsed), &[clock_record(received, elapsed)]));
        rig.run(10 * MILLISECOND).await;
        assert_eq!(node.frames().len(), usize::from(is_sent), "{age_ms} ms");
        assert_eq!(failures(&rig), vec![8; usize::from(!is_sent)], "{age_ms} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_of_a_new_operator_process_wait_for_its_first_measurement() {
    for (age_ms, is_sent) in [(100, true), (3_000, false)] {
        let (mut rig, node) = rig_with_raw_channel().await;
        let received = u64::try_from(rig.elapsed().as_micros()).unwrap().max(1);
        rig.inject(&message(1, 60_000_000, &[frame_record(1), clock_record(received, 0)]));
        rig.run(age_ms * MILLISECOND).await;
        assert_eq!(node.frames().len(), 1);
        // the clock of another process, which begins again
        rig.ask("resumeConnection", json!({"received": 0}));
        rig.inject(&message(2, 77, &[frame_record(2), clock_record(0, 0)]));
        rig.run(300 * MILLISECOND).await;
        assert_eq!((node.frames().len(), failures(&rig)), (1, vec![]), "{age_ms} ms");
        let elapsed = (age_ms + 300) * 1_000;
        rig.inject(&message(0, 77 + u64::from(elapsed), &[clock_record(received, elapsed)]));
        rig.run(10 * MILLISECOND).await;
        assert_eq!(node.frames().len(), 1 + usize::from(is_sent), "{age_ms} ms");
        assert_eq!(failures(&rig), vec![8; usize::from(!is_sent)], "{age_ms} ms");
        // the next message is judged by the new clock
        rig.inject(&message(3, 77 + u64::from(elapsed) + 10_000, &[frame_record(3)]));
        rig.run(10 * MILLISECOND).await;
        assert_eq!(node.frames().last(), Some(&frame(0x100, &[3])));
    }
}

#[tokio::test(start_paused = true)]
async fn frames_of_an_operator_without_clock_wait_for_half_their_maximum_age_once() {
    let (mut rig, node) = rig_with_raw_channel().await;
    rig.inject(&message(1, 77, &[frame_record(1)]));
    rig.run(240 * MILLISECOND).await;
    rig.inject(&message(2, 240_077, &[frame_record(2)]));
    assert_eq!(node.frames(), []);
    rig.run(20 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x100, &[1]), frame(0x100, &[2])]);
    rig.inject(&message(3, 260_077, &[frame_record(3)]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames().last(), Some(&frame(0x100, &[3])));
}

#[tokio::test(start_paused = true)]
async fn frames_whose_measurement_never_comes_are_refused_after_a_second() {
    let (mut rig, node) = rig_with_raw_channel().await;
    rig.inject(&message(1, 77, &[frame_record(1), clock_record(0, 0)]));
    rig.run(990 * MILLISECOND).await;
    assert_eq!(failures(&rig), [0; 0]);
    rig.run(20 * MILLISECOND).await;
    assert_eq!((node.frames().len(), failures(&rig)), (0, vec![8]));
}

#[tokio::test(start_paused = true)]
async fn frames_that_wait_for_a_measurement_are_bounded_and_go_with_their_channel() {
    let (mut rig, node) = rig_with_raw_channel().await;
    let records: Vec<_> = (0..600).map(|number| frame_record(number as u8)).collect();
    rig.inject(&message(1, 77, &records));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(failures(&rig).len(), 600 - 512);
    rig.request("closeChannel", json!({"channel": 1})).await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    rig.run(SECOND).await;
    assert_eq!(node.frames(), []);
}
