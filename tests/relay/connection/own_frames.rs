//! What the connector sends on its own account never disturbs the channels.

use std::time::Instant;

use connector_agent::protocol::isotp::{Addressing, Config, SeparationTime};
use connector_agent::relay::connection::VinTrigger;
use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::CanFrame;
use connector_test_support::config::hs;
use serde_json::json;

use super::common::*;

const VIN: &[u8] = b"WVWZZZ1KZ6W000001";

/// An ECU that reports its VIN by UDS, and that asks for 5 ms between consecutive frames.
fn slow_ecu(rig: &Rig) -> Ecu {
    let mut config = Config::new(Addressing::normal(id(0x7E8), id(0x7E0)));
    config.st_min = SeparationTime(5);
    Ecu::with_config(&rig.buses[0], config, |request| match request {
        [0x22, 0xF1, 0x90] => vec![(MILLISECOND, [&[0x62, 0xF1, 0x90], VIN].concat())],
        _ => positive(request),
    })
}

/// The frames on the bus that no channel has sent.
fn requests_for_the_vin(node: &Node) -> Vec<(Instant, CanFrame)> {
    let is_request = |frame: &CanFrame| {
        matches!(frame.data(), [2, 0x09, 0x02, ..] | [3, 0x22, 0xF1, 0x90, ..] | [2, 0x1A, 0x90, ..])
    };
    node.timed_frames().into_iter().filter(|(_, frame)| is_request(frame)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_reading_of_the_vin_sends_nothing_between_the_frames_of_a_transfer() {
    for trigger in [VinTrigger::Request, VinTrigger::Vehicle] {
        let mut rig = Rig::configured().await;
        let _ecu = slow_ecu(&rig);
        let node = Node::attach(&rig.buses[0]);
        rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
        rig.send(1, CONFIRM, &[0x36; 4095]);
        rig.run(100 * MILLISECOND).await;
        assert!(rig.session.start_reading_vin(now(), SECOND, trigger));
        rig.run(2 * SECOND).await;
        assert_eq!(rig.count(1, EventCode::Sent, 0), 0, "the transfer takes longer");
        assert_eq!(requests_for_the_vin(&node), []);
        assert!(rig.run_until(5 * SECOND, |rig| rig.count(1, EventCode::Sent, 0) == 1).await);
        assert_eq!(requests_for_the_vin(&node), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_reading_of_the_vin_that_was_asked_for_ends_with_its_budget_beside_a_transfer() {
    let mut rig = Rig::configured().await;
    let _ecu = slow_ecu(&rig);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &[0x36; 4095]);
    rig.run(100 * MILLISECOND).await;
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
    rig.run(1200 * MILLISECOND).await;
    assert_eq!(rig.session.poll_vin(now()).expect("the reading has ended").vin, None);
}

#[tokio::test(start_paused = true)]
async fn a_new_vehicle_is_asked_for_its_vin_after_two_quiet_seconds() {
    let mut rig = Rig::configured().await;
    let _ecu = slow_ecu(&rig);
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &[0x22, 0xF1, 0x87]);
    rig.run(500 * MILLISECOND).await;
    assert_eq!(rig.pdus(1).len(), 1);
    let asked = node.timed_frames().last().expect("an answer").0;
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Vehicle));
    rig.run(4 * SECOND).await;
    let first = requests_for_the_vin(&node).first().expect("a request for the VIN").0;
    let waited = first.duration_since(asked);
    assert!(waited >= 1900 * MILLISECOND && waited <= 2300 * MILLISECOND, "{waited:?}");
    assert!(rig.session.poll_vin(now()).expect("the reading has ended").vin.is_some());
}

#[tokio::test(start_paused = true)]
async fn after_a_device_has_returned_the_vin_is_read_between_the_requests_of_the_operator() {
    let mut rig = Rig::configured().await;
    let _ecu = slow_ecu(&rig);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.buses[0].unplug("can0");
    rig.run(2 * SECOND).await;
    assert!(rig.session.take_returned());
    assert!(!rig.session.take_returned(), "reported once");
    assert!(rig.session.start_reading_vin(now(), 1500 * MILLISECOND, VinTrigger::Returned));
    for _ in 0..8 {
        rig.run(500 * MILLISECOND).await;
        rig.send(1, PLAIN, &[0x22, 0xF1, 0x87]);
    }
    assert!(rig.session.poll_vin(now()).expect("the reading has ended").vin.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_vin_that_no_request_waits_for_is_not_read_in_the_middle_of_a_download() {
    for trigger in [VinTrigger::Returned, VinTrigger::Vehicle] {
        let mut rig = Rig::configured().await;
        let _ecu = slow_ecu(&rig);
        let node = Node::attach(&rig.buses[0]);
        rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
        rig.send(1, PLAIN, &[0x36, 1]);
        rig.run(100 * MILLISECOND).await;
        assert!(rig.session.start_reading_vin(now(), SECOND, trigger));
        rig.run(59 * SECOND).await;
        assert_eq!(requests_for_the_vin(&node), []);
        rig.run(5 * SECOND).await;
        assert!(!requests_for_the_vin(&node).is_empty(), "the download was given up");
    }
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_went_off_is_not_a_device_that_has_returned() {
    let mut rig = Rig::configured().await;
    rig.open_isotp(1, json!({})).await;
    rig.buses[0].force_bus_off("can0");
    rig.run(3 * SECOND).await;
    assert_eq!(rig.count(1, EventCode::BusState, 0), 1);
    assert!(!rig.session.take_returned());
}

#[tokio::test(start_paused = true)]
async fn a_vin_reading_sends_nothing_while_raw_frames_may_be_a_transfer() {
    let mut rig = Rig::configured().await;
    let _ecu = slow_ecu(&rig);
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({"request_id": 0x7E0})).await;
    rig.send_frame(1, frame(0x7E0, &[0x10, 0x3E, 0x22, 0xF1, 0x90, 0xF1, 0x90, 0xF1]));
    for number in 0..8 {
        rig.send_frame(1, frame(0x7E0, &[0x20 | number, 0, 0, 0, 0, 0, 0, 0]));
        rig.run(300 * MILLISECOND).await;
        if number == 1 {
            assert!(rig.session.start_reading_vin(now(), 6 * SECOND, VinTrigger::Request));
        }
    }
    assert_eq!(requests_for_the_vin(&node), []);
    rig.run(3 * SECOND).await;
    assert!(rig.session.poll_vin(now()).expect("the reading has ended").vin.is_some());
}

#[tokio::test(start_paused = true)]
async fn an_ecu_that_reports_its_vin_gets_one_flow_control_beside_its_channel() {
    let mut rig = Rig::configured().await;
    let _ecu = slow_ecu(&rig);
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    assert!(rig.session.start_reading_vin(now(), 2 * SECOND, VinTrigger::Request));
    rig.run(2500 * MILLISECOND).await;
    assert!(rig.session.poll_vin(now()).expect("the reading has ended").vin.is_some());
    let flow_controls = node.frames().iter().filter(|frame| frame.data().first() == Some(&0x30)).count();
    let answers = node.frames().iter().filter(|frame| frame.data().starts_with(&[0x10, 20])).count();
    assert_eq!(flow_controls, answers, "{:?}", node.frames());
}

#[tokio::test(start_paused = true)]
async fn the_vin_is_read_by_buses_that_are_still_being_set_up() {
    let mut rig = Rig::new();
    let _ecu = slow_ecu(&rig);
    rig.ask("configureBuses", json!({"buses": [hs()]}));
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
    rig.run(1500 * MILLISECOND).await;
    assert!(rig.session.poll_vin(now()).expect("the reading has ended").vin.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_reading_of_the_vin_pauses_when_a_transfer_begins() {
    let mut rig = Rig::configured().await;
    let mut config = Config::new(Addressing::normal(id(0x7E8), id(0x7E0)));
    config.st_min = SeparationTime(5);
    let _ecu = Ecu::with_config(&rig.buses[0], config, |request| match request {
        [0x36, ..] => positive(request),
        _ => Vec::new(),
    });
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    assert!(rig.session.start_reading_vin(now(), 6 * SECOND, VinTrigger::Request));
    assert!(rig.run_until(SECOND, |_| !requests_for_the_vin(&node).is_empty()).await);
    // the next question may be in the adapter already
    rig.run(2 * MILLISECOND).await;
    let before = requests_for_the_vin(&node).len();
    rig.send(1, CONFIRM, &[0x36; 2000]);
    assert!(rig.run_until(5 * SECOND, |rig| rig.pdus(1).len() == 1).await);
    let sent_in_the_transfer = requests_for_the_vin(&node).len() - before;
    assert_eq!(sent_in_the_transfer, 0, "{:?}", requests_for_the_vin(&node));
    rig.run(3 * SECOND).await;
    assert!(requests_for_the_vin(&node).len() > before, "the reading continues");
}
