//! Lost links: acknowledgements, the resume buffer, resuming, and a full resume buffer.

use std::time::Duration;

use connector_agent::relay::connection::CloseReason;
use connector_agent::relay::limits::RelayLimits;
use connector_agent::relay::link::{KEPT_LIMIT, Link, Role};
use connector_agent::relay::wire::codec::{EventCode, Header, Payload};
use connector_agent::relay::wire::request::{Request, ResumeConnection};
use serde_json::json;

use super::common::*;

/// The answers of an ECU that sends a numbered PDU every 10 ms after a request.
fn numbered_pdus(count: u16) -> impl FnMut(&[u8]) -> Answers + Send + 'static {
    move |_| (0..count).map(|n| (u32::from(n) * 10 * MILLISECOND, n.to_be_bytes().to_vec())).collect()
}

fn numbers(rig: &Rig) -> Vec<u16> {
    rig.pdus(1).into_iter().map(|pdu| u16::from_be_bytes([pdu[0], pdu[1]])).collect()
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_that_the_socket_does_not_take_causes_no_busy_loop() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.socket_takes = false;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(10 * SECOND).await;
    assert!(rig.session.wants_to_send(now()));
    assert!(rig.session.poll_timeout(now()).is_none_or(|at| at > now()));
}

#[tokio::test(start_paused = true)]
async fn without_data_an_acknowledgement_is_sent_within_200_ms() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(190 * MILLISECOND).await;
    let header = Header::decode(rig.messages.last().unwrap()).unwrap();
    assert_eq!((header.seq, header.ack, header.record_count), (0, 1, 0));
    rig.run(10 * SECOND).await;
    // the connector's clock came first
    assert_eq!(rig.messages.len(), 2, "an acknowledgement is sent once, and is not acknowledged");
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_travels_with_the_next_data() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(SECOND).await;
    let headers: Vec<_> = rig.messages.iter().map(|message| Header::decode(message).unwrap()).collect();
    assert_eq!(headers.iter().map(|header| (header.seq, header.ack)).collect::<Vec<_>>(), [(0, 0), (1, 1)]);
}

#[tokio::test(start_paused = true)]
async fn records_that_waited_for_the_socket_share_messages_of_at_most_64_kib() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    rig.socket_takes = false;
    for count in 0..6000u32 {
        node.send(frame(0x100, &count.to_be_bytes()));
    }
    rig.run(3 * SECOND).await;
    rig.socket_takes = true;
    rig.run(SECOND).await;
    assert_eq!(rig.frames(1).len(), 6000);
    let lengths: Vec<_> = rig.messages.iter().map(|message| message.len()).collect();
    // the connector's clock came first
    assert_eq!(lengths.len(), 3, "{lengths:?}");
    assert!(lengths.iter().all(|length| *length <= 64 * 1024), "{lengths:?}");
}

#[tokio::test(start_paused = true)]
async fn a_sender_does_not_wait_to_fill_a_message() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    node.send(frame(0x100, &[1]));
    assert!(rig.run_until(3 * MILLISECOND, |rig| rig.frames(1).len() == 1).await);
}

#[tokio::test(start_paused = true)]
async fn receptions_during_a_lost_link_arrive_once_and_in_order() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, numbered_pdus(1000));
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    for _ in 0..10 {
        rig.run(500 * MILLISECOND).await;
        rig.cut();
        rig.run(500 * MILLISECOND).await;
        rig.resume().await;
    }
    rig.run(5 * SECOND).await;
    assert_eq!(numbers(&rig), (0..1000).collect::<Vec<_>>());
    assert_eq!(rig.link_errors, []);
}

#[tokio::test(start_paused = true)]
async fn every_pattern_of_loss_ends_with_each_pdu_once_and_in_order() {
    // each bit of the pattern decides whether the link is cut after that step; messages on the link are lost
    // with it
    for pattern in 0..64u32 {
        let mut rig = Rig::configured().await;
        let ecu =
            Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| vec![(7 * MILLISECOND, request.to_vec())]);
        rig.open_isotp(1, json!({})).await;
        let delay = u32::from(pattern % 3 > 0) * 20 * MILLISECOND;
        rig.set_network(Network::Up(delay));
        for step in 0..12u16 {
            rig.send(1, PLAIN, &step.to_be_bytes());
            rig.run(Duration::from_millis(11 + u64::from(pattern))).await;
            if pattern >> (step % 6) & 1 == 1 {
                rig.cut();
                rig.run(Duration::from_millis(u64::from(step) * 13)).await;
                rig.resume().await;
                rig.set_network(Network::Up(delay));
            }
        }
        rig.run(2 * SECOND).await;
        let expected: Vec<_> = (0..12).collect();
        assert_eq!(numbers(&rig), expected, "pattern {pattern:06b}");
        let requests: Vec<_> =
            ecu.requests().iter().map(|pdu| u16::from_be_bytes([pdu[0], pdu[1]])).collect();
        assert_eq!(requests, expected, "pattern {pattern:06b}");
        assert!(rig.operator.is_all_acknowledged(), "pattern {pattern:06b}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_rejoins_gets_the_missing_messages() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, numbered_pdus(100));
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(200 * MILLISECOND).await;
    // the cloud discards messages for an absent operator
    rig.set_network(Network::Down);
    rig.operator.interrupt();
    while rig.session.poll_message(now()).is_some() {}
    rig.run(300 * MILLISECOND).await;
    while rig.session.poll_message(now()).is_some() {}
    rig.resume().await;
    rig.run(2 * SECOND).await;
    assert_eq!(numbers(&rig), (0..100).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn resuming_twice_duplicates_nothing() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, numbered_pdus(50));
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(100 * MILLISECOND).await;
    rig.cut();
    rig.run(SECOND).await;
    rig.resume().await;
    rig.resume().await;
    rig.run(SECOND).await;
    assert_eq!(numbers(&rig), (0..50).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn repeated_messages_keep_their_number_and_carry_the_newest_acknowledgement() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    rig.operator_reads = false;
    rig.send(1, PLAIN, &[0x10, 1]);
    rig.run(50 * MILLISECOND).await;
    rig.send(1, PLAIN, &[0x10, 2]);
    rig.run(50 * MILLISECOND).await;
    rig.cut();
    rig.operator_reads = true;
    rig.resume().await;
    rig.run(50 * MILLISECOND).await;
    let headers: Vec<_> = rig.messages.iter().map(|message| Header::decode(message).unwrap()).collect();
    // the connector's clock goes ahead of the messages on each websocket
    let numbers: Vec<_> = headers.iter().map(|header| (header.seq, header.ack)).collect();
    assert_eq!(numbers, [(0, 0), (0, 2), (1, 2), (2, 2)]);
    assert_eq!(rig.pdus(1), [[0x50, 1], [0x50, 2]]);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_sent_before_the_operator_resumes() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, numbered_pdus(50));
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(100 * MILLISECOND).await;
    rig.cut();
    let before = rig.messages.len();
    rig.set_network(Network::Up(Duration::ZERO));
    rig.run(SECOND).await;
    assert_eq!(rig.messages.len(), before);
    rig.resume().await;
    rig.run(SECOND).await;
    assert_eq!(numbers(&rig).len(), 50);
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_lost_acknowledged_messages_cannot_resume() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    for _ in 0..5 {
        rig.send(1, PLAIN, &[0x10, 1]);
        rig.run(SECOND).await;
    }
    rig.cut();
    for received in [0, 3, 6, u32::MAX] {
        let reply = rig.request("resumeConnection", json!({ "received": received })).await;
        assert_eq!(problem(&reply), (409, "cannot-resume".to_owned()), "{received}");
    }
    rig.run(31 * SECOND).await;
    assert_eq!(
        rig.close_reason(),
        Some(CloseReason::LinkLost),
        "a refused resumption does not prolong the hold"
    );
}

#[tokio::test(start_paused = true)]
async fn the_reply_to_resuming_states_what_the_connector_received() {
    let mut rig = Rig::configured().await;
    rig.open_isotp(1, json!({})).await;
    for _ in 0..3 {
        rig.send(1, PLAIN, &[0x10, 1]);
        rig.run(10 * MILLISECOND).await;
    }
    rig.cut();
    let reply = rig.request("resumeConnection", json!({"received": rig.operator.received()})).await;
    assert_eq!(reply.message, json!({"connection_uuid": UUID, "received": 3}));
}

#[tokio::test(start_paused = true)]
async fn pdus_that_fill_the_resume_buffer_close_the_connection() {
    let limits = RelayLimits { max_kept_bytes: 200_000, ..RelayLimits::default() };
    let mut rig = Rig::with_limits(limits);
    rig.configure_hs().await;
    let script = |_: &[u8]| (0..60).map(|_| (MILLISECOND, vec![0x62; 4095])).collect();
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, script);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(100 * MILLISECOND).await;
    rig.cut();
    rig.run(29 * SECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::Overflow));
    assert!(rig.session.bus_reports().is_empty());
}

#[test]
fn two_mib_of_pdus_are_kept() {
    let start = std::time::Instant::now();
    let mut link = Link::new(Role::Connector, connector_agent::relay::wire::codec::Tag([1, 2, 3, 4]), start);
    let data = [0x62; 4095];
    let payload = Payload::Pdu { address: 0x7E8, flags: PLAIN, data: &data };
    let mut kept = 0;
    while link.push(start, start, 1, payload).is_ok() {
        kept += data.len();
    }
    assert!((2_080_000..=2 << 20).contains(&kept), "{kept} bytes");
    // no PDU was dropped
    let mut sent = 0;
    while let Some(message) = link.poll_message(start) {
        let header = Header::decode(&message).unwrap();
        // the clock has no number
        sent += if header.seq == 0 { 0 } else { usize::from(header.record_count) };
    }
    assert_eq!(sent, kept / data.len());
}

#[tokio::test(start_paused = true)]
async fn frames_make_room_oldest_first_and_leave_gaps_while_pdus_stay() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, numbered_pdus(100));
    rig.open_isotp(1, json!({})).await;
    rig.open_raw(2, json!({"response_id": 0x100})).await;
    rig.run(10 * MILLISECOND).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(MILLISECOND).await;
    rig.cut();
    // 120,000 frames are 3.5 MB of records
    const FRAMES: u32 = 120_000;
    for count in 0..FRAMES {
        node.send(frame(0x100, &count.to_be_bytes()));
        if count % 4000 == 0 {
            rig.run(900 * MILLISECOND).await;
        }
    }
    rig.run(SECOND).await;
    assert_eq!(rig.close_reason(), None);
    rig.resume().await;
    rig.run(2 * SECOND).await;
    assert_eq!(numbers(&rig), (0..100).collect::<Vec<_>>(), "no PDU was dropped");
    let gaps: Vec<_> = rig.events(2).into_iter().filter(|event| event.0 == EventCode::Gap).collect();
    let dropped: u32 = gaps.iter().map(|gap| gap.2).sum();
    let kept: Vec<_> =
        rig.frames(2).iter().map(|frame| u32::from_be_bytes(frame.data().try_into().unwrap())).collect();
    assert!(dropped > 20_000, "{dropped}");
    assert_eq!(kept, (dropped..FRAMES).collect::<Vec<_>>(), "only the oldest frames were dropped");
}

#[tokio::test(start_paused = true)]
async fn frames_that_an_operator_never_acknowledges_do_not_close_the_connection() {
    // one frame per message, as with a fast socket
    let start = now();
    let mut link = Link::new(Role::Connector, connector_agent::relay::wire::codec::Tag([1, 2, 3, 4]), start);
    let payload = Payload::Frame(frame(0x100, &[1, 2, 3, 4, 5, 6, 7, 8]));
    let mut messages = 0;
    for _ in 0..500_000 {
        link.push(start, start, 1, payload).expect("frames are dropped instead of an overflow");
        messages += usize::from(link.poll_message(start).is_some());
        assert!(link.kept_bytes() <= KEPT_LIMIT);
    }
    assert!(messages < 20_000, "{messages} messages wait for an acknowledgement");
}

#[tokio::test(start_paused = true)]
async fn a_full_bus_over_a_long_network_delay_is_not_slowed_down() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    rig.set_network(Network::Up(600 * MILLISECOND));
    for count in 0..20_000u32 {
        node.send(frame(0x100, &count.to_be_bytes()));
    }
    assert!(rig.run_until(20 * SECOND, |rig| rig.heard.len() == 20_000).await);
    let elapsed = rig.elapsed();
    // 20,000 frames of 4 bytes take 3.2 to 4 s
    assert!(elapsed < 5 * SECOND, "{elapsed:?}");
    assert_eq!(rig.events(1), []);
}

#[tokio::test(start_paused = true)]
async fn a_resumption_without_request_id_is_answered_without_one() {
    let mut rig = Rig::configured().await;
    rig.cut();
    rig.set_network(Network::Up(Duration::ZERO));
    let resume = ResumeConnection { connection_uuid: UUID, received: rig.operator.received() };
    rig.session.handle_request(now(), Request::ResumeConnection(resume), None);
    rig.run(MILLISECOND).await;
    let reply = rig.texts.last().unwrap();
    assert_eq!((reply.action.as_str(), reply.request_id.as_deref()), ("connectionResumed", None));
}
