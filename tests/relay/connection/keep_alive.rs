//! Keep-alives: the connector sends TesterPresent.

use std::time::Instant;

use connector_agent::relay::connection::CloseReason;
use connector_agent::relay::wire::codec::EventCode;
use serde_json::json;

use super::common::*;

const TESTER_PRESENT: [u8; 2] = [0x3E, 0x80];

async fn rig_with_keep_alive() -> (Rig, Ecu) {
    let mut rig = Rig::configured().await;
    let script = |request: &[u8]| if request == TESTER_PRESENT { silent(request) } else { positive(request) };
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, script);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    (rig, ecu)
}

fn tester_presents(ecu: &Ecu) -> Vec<Instant> {
    ecu.timed_requests().into_iter().filter(|(_, pdu)| *pdu == TESTER_PRESENT).map(|(at, _)| at).collect()
}

#[tokio::test(start_paused = true)]
async fn tester_present_is_sent_every_two_seconds_of_silence() {
    let (mut rig, ecu) = rig_with_keep_alive().await;
    rig.run(1_990 * MILLISECOND).await;
    assert_eq!(ecu.requests().len(), 0);
    rig.run(18 * SECOND).await;
    let sent = tester_presents(&ecu);
    assert_eq!(sent.len(), 9);
    for pair in sent.windows(2) {
        let pause = pair[1] - pair[0];
        assert!((2000 * MILLISECOND..2010 * MILLISECOND).contains(&pause), "{pause:?}");
    }
    assert_eq!(rig.heard, [], "the operator receives nothing about TesterPresent");
}

#[tokio::test(start_paused = true)]
async fn by_default_there_is_no_keep_alive() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({})).await;
    rig.open_isotp(2, json!({"keep_alive": "disabled"})).await;
    rig.run(10 * SECOND).await;
    assert_eq!(ecu.requests().len(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_of_the_operator_postpones_tester_present() {
    let (mut rig, ecu) = rig_with_keep_alive().await;
    for _ in 0..10 {
        rig.send(1, PLAIN, &[0x22, 1]);
        rig.run(1_900 * MILLISECOND).await;
    }
    assert_eq!(tester_presents(&ecu).len(), 0);
    rig.run(150 * MILLISECOND).await;
    assert_eq!(tester_presents(&ecu).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn tester_present_does_not_interrupt_a_transfer() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |_| vec![(MILLISECOND, vec![0x62; 700])]);
    // 100 frames, 50 ms apart: 5 s
    rig.open_isotp(1, json!({"keep_alive": "enabled", "st_min": 50})).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    assert!(rig.run_until(20 * SECOND, |rig| !rig.pdus(1).is_empty()).await);
    assert!(!node.single_frames(0x7E0).contains(&TESTER_PRESENT.to_vec()));
    rig.run(100 * MILLISECOND).await;
    assert!(
        node.single_frames(0x7E0).contains(&TESTER_PRESENT.to_vec()),
        "TesterPresent is sent immediately after the transfer"
    );
}

#[tokio::test(start_paused = true)]
async fn a_functional_channel_sends_tester_present_to_all_ecus() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let config = json!({"bus_name": "HS", "request_id": 0x7DF, "keep_alive": "enabled"});
    rig.open(1, "isotp_channel", config).await;
    rig.run(7 * SECOND).await;
    assert_eq!(node.single_frames(0x7DF), [TESTER_PRESENT; 3]);
}

#[tokio::test(start_paused = true)]
async fn keep_alives_continue_without_a_link_until_the_hold_time_ends() {
    let (mut rig, ecu) = rig_with_keep_alive().await;
    rig.run(SECOND).await;
    rig.cut();
    rig.run(29_900 * MILLISECOND).await;
    assert_eq!(rig.close_reason(), None);
    assert_eq!(tester_presents(&ecu).len(), 15);
    rig.run(200 * MILLISECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
    rig.run(60 * SECOND).await;
    assert_eq!(tester_presents(&ecu).len(), 15, "the connector leaves the ECU to its S3 timer");
    assert!(rig.session.bus_reports().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_connection_resumed_in_time_gets_the_full_hold_time_again() {
    let (mut rig, ecu) = rig_with_keep_alive().await;
    for _ in 0..5 {
        rig.cut();
        rig.run(29 * SECOND).await;
        rig.resume().await;
        rig.run(SECOND).await;
    }
    assert_eq!(rig.close_reason(), None);
    let sent = tester_presents(&ecu).len();
    assert!((73..=75).contains(&sent), "{sent} in 150 s");
}

#[tokio::test(start_paused = true)]
async fn a_new_websocket_without_the_operator_does_not_prolong_the_hold() {
    let (mut rig, _ecu) = rig_with_keep_alive().await;
    rig.cut();
    rig.run(20 * SECOND).await;
    rig.set_network(Network::Up(std::time::Duration::ZERO));
    rig.run(5 * SECOND).await;
    rig.session.interrupt(now());
    rig.run(6 * SECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
}

#[tokio::test(start_paused = true)]
async fn the_hold_time_is_set_per_connection() {
    let mut rig = Rig::with_hold(5 * SECOND);
    rig.configure_hs().await;
    rig.cut();
    rig.run(4_900 * MILLISECOND).await;
    assert_eq!(rig.close_reason(), None);
    rig.run(200 * MILLISECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
}

#[tokio::test(start_paused = true)]
async fn an_unacknowledged_keep_alive_is_reported() {
    let mut rig = Rig::configured().await;
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    rig.run(3_500 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::KeepAliveFailed, 4), 1, "{:?}", rig.events(1));
    assert_eq!(rig.count(1, EventCode::SendFailed, 4), 0, "no PDU of the operator failed");
}

#[tokio::test(start_paused = true)]
async fn keep_alives_fail_without_the_device_and_continue_when_it_is_back() {
    let (mut rig, ecu) = rig_with_keep_alive().await;
    rig.run(2_100 * MILLISECOND).await;
    rig.opening_fails.store(true, std::sync::atomic::Ordering::Relaxed);
    rig.buses[0].unplug("can0");
    rig.run(10 * SECOND).await;
    let failed = rig.count(1, EventCode::KeepAliveFailed, 3);
    assert!((4..=5).contains(&failed), "{:?}", rig.events(1));
    assert_eq!(rig.count(1, EventCode::BusState, 2), 1);
    rig.opening_fails.store(false, std::sync::atomic::Ordering::Relaxed);
    rig.run(5 * SECOND).await;
    assert_eq!(rig.count(1, EventCode::BusState, 0), 1);
    assert!(tester_presents(&ecu).len() >= 3);
}

#[tokio::test(start_paused = true)]
async fn a_keep_alive_due_while_the_bus_is_off_fails_with_that_reason() {
    let (mut rig, _ecu) = rig_with_keep_alive().await;
    rig.run(1_800 * MILLISECOND).await;
    rig.buses[0].force_bus_off("can0");
    // TesterPresent is due before the bus is entered again, a second later
    rig.run(900 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0), (EventCode::KeepAliveFailed, 3, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_pdu_sent_while_tester_present_is_on_its_way_follows_it() {
    let (mut rig, ecu) = rig_with_keep_alive().await;
    assert!(!rig.run_until(2_001 * MILLISECOND, |_| false).await);
    rig.send(1, CONFIRM, &[0x22, 1]);
    rig.run(100 * MILLISECOND).await;
    assert_eq!(ecu.requests(), [TESTER_PRESENT, [0x22, 1]]);
    assert_eq!(rig.count(1, EventCode::Sent, 0), 1);
    assert_eq!(rig.pdus(1), [[0x62, 1]]);
}

#[tokio::test(start_paused = true)]
async fn tester_present_waits_while_a_response_is_pending_and_follows_it() {
    let mut rig = Rig::configured().await;
    let answer = |request: &[u8]| match request {
        [0x31, ..] => {
            let pending = (1..4).map(|n| (n * 4 * SECOND, vec![0x7F, 0x31, 0x78]));
            pending.chain([(13 * SECOND, vec![0x71, 1])]).collect()
        }
        _ => Vec::new(),
    };
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, answer);
    rig.open_isotp(1, json!({"keep_alive": "enabled", "p2_ms": 5000})).await;
    rig.send(1, PLAIN, &[0x31, 1]);
    assert!(rig.run_until(15 * SECOND, |rig| rig.pdus(1).len() == 4).await);
    assert_eq!(tester_presents(&ecu).len(), 0);
    rig.run(100 * MILLISECOND).await;
    assert_eq!(tester_presents(&ecu).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_the_connectors_own_tester_present_is_not_relayed() {
    for answer in [vec![0x7F, 0x3E, 0x21], vec![0x7E, 0x00], vec![0x7F, 0x3E, 0x78]] {
        let mut rig = Rig::configured().await;
        let given = answer.clone();
        let script = move |request: &[u8]| match request {
            [0x3E, ..] => vec![(5 * MILLISECOND, given.clone())],
            _ => positive(request),
        };
        let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, script);
        rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
        rig.run(7 * SECOND).await;
        assert_eq!(rig.heard, [], "{answer:02X?}");
        // an answer to a request of the operator is relayed
        rig.send(1, PLAIN, &[0x3E, 0x00]);
        rig.run(SECOND).await;
        assert_eq!(rig.pdus(1), [answer]);
    }
}

/// An ECU that answers RoutineControl after 13 s, with response pending until then.
fn slow(request: &[u8]) -> Answers {
    match request {
        [0x31, ..] => {
            let times = [40 * MILLISECOND, 4 * SECOND, 8 * SECOND, 12 * SECOND];
            let pending = times.map(|at| (at, vec![0x7F, 0x31, 0x78]));
            pending.into_iter().chain([(13 * SECOND, vec![0x71, 1])]).collect()
        }
        _ => Vec::new(),
    }
}

#[tokio::test(start_paused = true)]
async fn tester_present_waits_for_a_response_on_another_channel_to_its_ecu() {
    for other in ["isotp_channel", "raw_channel", "functional"] {
        let mut rig = Rig::configured().await;
        let request = if other == "functional" { 0x7DF } else { 0x7E0 };
        let ecu = Ecu::attach(&rig.buses[0], request, 0x7E8, slow);
        let kept = Node::attach(&rig.buses[0]);
        rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
        let mut config = json!({"bus_name": "HS", "request_id": request});
        if other == "isotp_channel" {
            config["response_id"] = json!(0x7E8);
        }
        if other != "raw_channel" {
            config["p2_ms"] = json!(5000);
        }
        let kind = if other == "raw_channel" { other } else { "isotp_channel" };
        assert_eq!(rig.open(2, kind, config).await.action, "channelOpened");
        rig.run(500 * MILLISECOND).await;
        match kind {
            "raw_channel" => rig.send_frame(2, frame(0x7E0, &[0x02, 0x31, 0x01])),
            _ => rig.send(2, PLAIN, &[0x31, 1]),
        }
        let presents = || kept.single_frames(0x7E0).iter().filter(|pdu| **pdu == TESTER_PRESENT).count();
        rig.run(3900 * MILLISECOND).await;
        rig.run(8900 * MILLISECOND).await;
        assert_eq!(presents(), 0, "{other}: {:?}", ecu.requests());
        rig.run(300 * MILLISECOND).await;
        assert_eq!(presents(), 1, "{other}: the response has come");
    }
}

#[tokio::test(start_paused = true)]
async fn tester_present_does_not_wait_for_another_ecu() {
    let mut rig = Rig::configured().await;
    let _busy = Ecu::attach(&rig.buses[0], 0x7E1, 0x7E9, slow);
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    let other = json!({"bus_name": "HS", "request_id": 0x7E1, "response_id": 0x7E9, "p2_ms": 5000});
    rig.open(2, "isotp_channel", other).await;
    // one identifier for all requests: the address byte is that of the ECU
    let extended = |address: u32| {
        json!({"bus_name": "HS", "request_id": 0x6F1, "response_id": 0x600 + address,
               "extended_request_address": address, "extended_response_address": 0xF1,
               "keep_alive": "enabled", "p2_ms": 5000})
    };
    for (channel, address) in [(3, 0x12), (4, 0x13)] {
        assert_eq!(rig.open(channel, "isotp_channel", extended(address)).await.action, "channelOpened");
    }
    rig.send(2, PLAIN, &[0x31, 1]);
    rig.send(4, PLAIN, &[0x31, 1]);
    rig.run(4 * SECOND).await;
    assert!(!node.single_frames(0x7E0).is_empty());
    let presents = |address: u8| {
        let is_present = |frame: &&connector_hal::can::CanFrame| {
            frame.id() == id(0x6F1) && frame.data().starts_with(&[address, 2, 0x3E, 0x80])
        };
        node.frames().iter().filter(is_present).count()
    };
    assert_eq!((presents(0x12), presents(0x13)), (1, 0));
}
