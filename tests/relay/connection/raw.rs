//! Raw channels, and frames and PDUs on a bus that is off.

use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::virtual_bus::VirtualBusConfig;
use connector_hal::can::{CanFrame, FdFlags};
use serde_json::json;

use super::common::*;

#[tokio::test(start_paused = true)]
async fn a_raw_channel_without_identifiers_hears_everything_and_may_send_nothing() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    let remote = CanFrame::new_remote(id(0x123), 5).unwrap();
    let sent =
        [frame(0x001, &[]), frame(0x1FFF_FFFF, &[1, 2, 3, 4, 5, 6, 7, 8]), remote, frame(0x8000_0001, &[9])];
    for frame in sent {
        node.send(frame);
        rig.run(2 * MILLISECOND).await;
    }
    assert_eq!(rig.frames(1), sent);
    rig.send_frame(1, frame(0x100, &[1]));
    rig.send_frame(1, frame(0x000, &[1]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 6, 0); 2]);
    assert_eq!(node.frames(), []);
}

#[tokio::test(start_paused = true)]
async fn frames_carry_the_time_when_they_were_on_the_bus() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    let start = rig.elapsed();
    for count in 0..100 {
        node.send(frame(0x100, &[count; 8]));
    }
    // the socket accepts the frames much later
    rig.socket_takes = false;
    rig.run(SECOND).await;
    rig.socket_takes = true;
    rig.run(10 * MILLISECOND).await;
    let times: Vec<_> = rig.heard.iter().map(|heard| heard.at).collect();
    assert_eq!(times.len(), 100);
    for pair in times.windows(2) {
        let apart = pair[1] - pair[0];
        assert!((200..300).contains(&apart.as_micros()), "{apart:?} apart, as on the bus");
    }
    assert!(times[0] - start < 2 * MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn a_raw_channel_hears_only_its_response_identifier_in_its_format() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"response_id": 0x123})).await;
    rig.open_raw(2, json!({"response_id": "0x80000123"})).await;
    for number in [0x122, 0x123, 0x124, 0x8000_0123] {
        node.send(frame(number, &[7]));
    }
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.frames(1), [frame(0x123, &[7])]);
    assert_eq!(rig.frames(2), [frame(0x8000_0123, &[7])]);
}

#[tokio::test(start_paused = true)]
async fn a_raw_channel_sends_only_its_request_identifier_in_its_format() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"request_id": 0x123, "response_id": 0x456})).await;
    let remote = CanFrame::new_remote(id(0x123), 3).unwrap();
    let error = CanFrame::new_error(0x123, [0; 8]);
    let fd = CanFrame::new_fd(id(0x123), FdFlags::default(), &[1]).unwrap();
    for frame in [frame(0x123, &[1]), frame(0x124, &[2]), frame(0x8000_0123, &[3]), error, fd, remote] {
        rig.send_frame(1, frame);
    }
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x123, &[1]), remote]);
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 6, 0); 4]);
}

#[tokio::test(start_paused = true)]
async fn pdus_on_raw_channels_and_frames_on_isotp_channels_are_refused() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"request_id": 0x7E0})).await;
    rig.open_isotp(2, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.send_frame(2, frame(0x7E0, &[2, 0x10, 3]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 6, 0)]);
    assert_eq!(rig.events(2), [(EventCode::SendFailed, 6, 0)]);
    assert_eq!(node.frames(), []);
}

#[tokio::test(start_paused = true)]
async fn fd_frames_keep_their_flags_both_ways() {
    let mut rig = Rig::with_bus(VirtualBusConfig { data_bit_rate: Some(2_000_000), ..Default::default() });
    let node = Node::attach(&rig.buses[0]);
    let mut bus = hs();
    bus["can_bus"]["data_bit_rate"] = json!(2_000_000);
    rig.configure(json!([bus])).await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    let flags = |bit_rate_switch, error_state| FdFlags { bit_rate_switch, error_state };
    let frames = [
        CanFrame::new_fd(id(0x100), flags(true, false), &[0xA5; 64]).unwrap(),
        CanFrame::new_fd(id(0x100), flags(false, false), &[0x5A; 12]).unwrap(),
        CanFrame::new_fd(id(0x100), flags(true, true), &[]).unwrap(),
        frame(0x100, &[1]),
    ];
    for frame in frames {
        rig.send_frame(1, frame);
    }
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames(), frames);
    frames.iter().for_each(|frame| node.send(*frame));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.frames(1), frames);
}

#[tokio::test(start_paused = true)]
async fn error_frames_are_heard_by_a_channel_that_hears_everything() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    rig.open_raw(2, json!({"response_id": 0x100})).await;
    rig.buses[0].destroy_frames(1);
    node.send(frame(0x100, &[1]));
    rig.run(10 * MILLISECOND).await;
    let heard = rig.frames(1);
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[0].is_error());
    assert_eq!(heard[1], frame(0x100, &[1]));
    assert_eq!(rig.frames(2), [frame(0x100, &[1])]);
}

#[tokio::test(start_paused = true)]
async fn frames_that_the_adapter_lost_are_reported_as_a_gap() {
    let mut rig = Rig::with_bus(VirtualBusConfig { receive_queue: 16, ..Default::default() });
    rig.configure_hs().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    for count in 0..100 {
        node.send(frame(0x100, &[count]));
    }
    // the test does not drive the connection during this time
    tokio::time::sleep(100 * MILLISECOND).await;
    let lost = |rig: &Rig| -> u32 {
        rig.events(1).iter().filter(|event| event.0 == EventCode::Gap).map(|event| event.2).sum()
    };
    assert!(rig.run_until(SECOND, |rig| rig.frames(1).len() + lost(rig) as usize == 100).await);
    assert!(lost(&rig) > 0);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_frames_is_sent_in_order_and_the_excess_is_refused() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"request_id": 0x100, "max_age_ms": 60_000})).await;
    for count in 0..3000u32 {
        rig.send_frame(1, frame(0x100, &count.to_be_bytes()));
    }
    rig.run(5 * SECOND).await;
    let numbers: Vec<_> =
        node.frames().iter().map(|frame| u32::from_be_bytes(frame.data().try_into().unwrap())).collect();
    let refused = rig.count(1, EventCode::SendFailed, 5);
    assert_eq!(numbers.len() + refused, 3000);
    assert!(refused > 0 && numbers.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn bus_off_discards_and_reports_everything_that_waits() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_raw(1, json!({"request_id": 0x7F0, "max_age_ms": 60_000})).await;
    rig.open_isotp(2, json!({})).await;
    for count in 0..100 {
        rig.send_frame(1, frame(0x7F0, &[count]));
    }
    rig.send(2, PLAIN, &[0x36; 2000]);
    rig.send(2, CHAINED, &[0x36, 1]);
    rig.send(2, CHAINED, &[0x36, 2]);
    rig.run(10 * MILLISECOND).await;
    rig.buses[0].force_bus_off("can0");
    rig.run(100 * MILLISECOND).await;
    let sent = node.frames().iter().filter(|frame| frame.id() == id(0x7F0)).count();
    assert!((1..99).contains(&sent), "{sent}");
    let failed = rig.count(1, EventCode::SendFailed, 3);
    // the outcome of the frame that was on the bus at that moment is unknown
    assert!((100..=101).contains(&(sent + failed)), "of 100, {sent} were sent and {failed} reported");
    assert_eq!(rig.count(1, EventCode::BusState, 2), 1);
    assert_eq!(rig.count(2, EventCode::SendFailed, 3), 3);
    assert_eq!(rig.count(2, EventCode::BusState, 2), 1);
    let before = node.frames().len();
    rig.run(10 * SECOND).await;
    assert_eq!(rig.count(1, EventCode::BusState, 0), 1, "the bus is entered again");
    assert_eq!(node.frames().len(), before, "no earlier frame is sent then");
}

#[tokio::test(start_paused = true)]
async fn frames_for_a_bus_that_is_off_are_refused_immediately() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"request_id": 0x7F0, "max_age_ms": 60_000})).await;
    rig.open_isotp(2, json!({})).await;
    rig.buses[0].force_bus_off("can0");
    rig.run(100 * MILLISECOND).await;
    rig.send_frame(1, frame(0x7F0, &[1]));
    rig.send(2, PLAIN, &[0x10, 3]);
    rig.send(2, CHAINED, &[0x10, 4]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1)[1..], [(EventCode::SendFailed, 3, 0)]);
    assert_eq!(rig.count(2, EventCode::SendFailed, 3), 1);
    let discarded = rig.count(2, EventCode::SendFailed, 3) + rig.count(2, EventCode::ChainBroken, 0);
    assert_eq!(discarded, 2, "{:?}", rig.events(2));
    rig.run(10 * SECOND).await;
    assert_eq!(node.frames(), []);
}

#[tokio::test(start_paused = true)]
async fn a_removed_device_counts_as_bus_off_until_it_is_back() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    rig.buses[0].unplug("can0");
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0)]);
    assert_eq!(rig.session.bus_reports()[0].state, "off");
    rig.run(2 * SECOND).await;
    assert_eq!(rig.events(1)[1..], [(EventCode::BusState, 0, 0)]);
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(100 * MILLISECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 3]], "the channel remains open");
}

#[tokio::test(start_paused = true)]
async fn the_response_timeout_also_expires_without_the_device() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({"p2_ms": 300})).await;
    rig.send(1, PLAIN, &[0x36, 0]);
    rig.run(10 * MILLISECOND).await;
    rig.buses[0].unplug("can0");
    rig.run(500 * MILLISECOND).await;
    rig.send(1, CHAINED, &[0x36, 1]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1)[1..], [(EventCode::ChainBroken, 0, 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_passive_bus_is_reported_on_its_channels_and_in_the_status() {
    let mut rig = Rig::configured().await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    rig.session.take_state_change();
    rig.send_frame(1, frame(0x100, &[1]));
    rig.run(100 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::BusState, 1), 1, "{:?}", rig.events(1));
    assert_eq!(rig.session.bus_reports()[0].state, "passive");
    assert!(rig.session.take_state_change());
    assert!(!rig.session.take_state_change());
}

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_frame_is_reported_and_never_sent_late() {
    let mut rig = Rig::configured().await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    for count in 0..30 {
        rig.send_frame(1, frame(0x100, &[count]));
    }
    rig.run(3 * SECOND).await;
    let node = Node::attach(&rig.buses[0]);
    rig.run(3 * SECOND).await;
    assert_eq!(node.frames(), []);
    let failed = rig.count(1, EventCode::SendFailed, 4) + rig.count(1, EventCode::SendFailed, 8);
    assert_eq!(failed, 30, "{:?}", rig.events(1));
    rig.send_frame(1, frame(0x100, &[99]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x100, &[99])]);
}

#[tokio::test(start_paused = true)]
async fn an_adapter_with_room_for_one_frame_sends_no_stale_one_after_its_reset() {
    let mut rig = Rig::with_bus(VirtualBusConfig { transmit_queue: 1, ..Default::default() });
    rig.configure_hs().await;
    rig.open_raw(1, json!({"request_id": 0x100})).await;
    rig.send_frame(1, frame(0x100, &[1]));
    rig.send_frame(1, frame(0x100, &[2]));
    rig.run(1_190 * MILLISECOND).await;
    let _acknowledges = Node::attach(&rig.buses[1]);
    rig.run(15 * MILLISECOND).await;
    let node = Node::attach(&rig.buses[0]);
    rig.run(3 * SECOND).await;
    assert_eq!(node.frames(), [], "both were older than 500 ms");
}
