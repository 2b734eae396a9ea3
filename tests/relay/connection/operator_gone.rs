//! An operator who is gone: the connector is notified, or notices by itself.

use connector_agent::relay::connection::CloseReason;
use connector_agent::relay::wire::codec::EventCode;
use serde_json::json;

use super::common::*;

const TESTER_PRESENT: [u8; 2] = [0x3E, 0x80];

/// An ECU in its programming session, kept there by the connector.
async fn programming() -> (Rig, Ecu) {
    let mut rig = Rig::configured().await;
    let script = |request: &[u8]| if request == TESTER_PRESENT { silent(request) } else { positive(request) };
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, script);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x50, 0x02]]);
    (rig, ecu)
}

fn tester_presents(ecu: &Ecu) -> usize {
    ecu.requests().iter().filter(|request| **request == TESTER_PRESENT).count()
}

/// Whether the connector sends TesterPresent in the next ten seconds.
async fn is_kept_alive(rig: &mut Rig, ecu: &Ecu) -> bool {
    let before = tester_presents(ecu);
    rig.run(10 * SECOND).await;
    tester_presents(ecu) > before
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_operator_has_left_ends_after_the_hold_and_so_do_keep_alives() {
    let (mut rig, ecu) = programming().await;
    rig.ask("operatorLeft", json!({}));
    rig.run(29 * SECOND).await;
    assert_eq!(rig.close_reason(), None);
    rig.run(2 * SECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
    assert!(rig.texts.iter().all(|text| text.action != "error"), "{:?}", rig.texts);
    assert!(!is_kept_alive(&mut rig, &ecu).await);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_joins_again_within_the_hold_continues() {
    for resumes in [false, true] {
        let (mut rig, _ecu) = programming().await;
        rig.ask("operatorLeft", json!({}));
        // while no operator is there, nothing is sent to one
        let before = rig.messages.len();
        rig.send(1, PLAIN, &[0x22, 1]);
        rig.run(20 * SECOND).await;
        assert_eq!(rig.messages.len(), before);
        rig.ask("operatorJoined", json!({}));
        if resumes {
            rig.resume().await;
        }
        rig.run(60 * SECOND).await;
        assert_eq!(rig.close_reason(), None);
        assert_eq!(rig.pdus(1), [[0x50, 2], [0x62, 1]], "nothing is lost or doubled");
    }
}

#[tokio::test(start_paused = true)]
async fn a_joining_operator_does_not_replace_the_resumption_after_a_lost_link() {
    let (mut rig, _ecu) = programming().await;
    rig.cut();
    rig.run(5 * SECOND).await;
    rig.set_network(Network::Up(std::time::Duration::ZERO));
    rig.ask("operatorLeft", json!({}));
    rig.ask("operatorJoined", json!({}));
    rig.run(24 * SECOND).await;
    assert_eq!(rig.close_reason(), None);
    rig.run(2 * SECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_acknowledges_nothing_for_two_minutes_counts_as_gone() {
    let (mut rig, ecu) = programming().await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(10 * MILLISECOND).await;
    rig.operator_reads = false;
    rig.send(1, PLAIN, &[0x22, 2]);
    rig.run(148 * SECOND).await;
    assert_eq!(rig.close_reason(), None);
    assert!(is_kept_alive(&mut rig, &ecu).await || rig.close_reason().is_some());
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
    assert!(!is_kept_alive(&mut rig, &ecu).await);
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_is_heard_again_within_the_hold_continues() {
    let (mut rig, _ecu) = programming().await;
    rig.operator_reads = false;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(140 * SECOND).await;
    assert_eq!(rig.close_reason(), None);
    rig.operator_reads = true;
    rig.send(1, PLAIN, &[0x22, 2]);
    rig.run(100 * SECOND).await;
    assert_eq!(rig.close_reason(), None);
    assert_eq!(rig.pdus(1), [[0x50, 2], [0x62, 1], [0x62, 2]], "nothing is lost or doubled");
}

#[tokio::test(start_paused = true)]
async fn an_idle_operator_counts_as_gone_after_fifteen_minutes() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 0x03]);
    rig.run(15 * 60 * SECOND).await;
    assert_eq!(rig.close_reason(), None);
    rig.run(31 * SECOND).await;
    assert_eq!(rig.close_reason(), Some(CloseReason::LinkLost));
}

#[tokio::test(start_paused = true)]
async fn an_operator_who_only_listens_is_not_gone() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(1, json!({})).await;
    for _ in 0..60 {
        node.send(frame(0x100, &[1]));
        rig.run(30 * SECOND).await;
    }
    assert_eq!(rig.close_reason(), None);
}

#[tokio::test(start_paused = true)]
async fn tester_present_stops_ten_minutes_after_the_operators_last_pdu() {
    let (mut rig, ecu) = programming().await;
    rig.run(598 * SECOND).await;
    assert_eq!(rig.count(1, EventCode::KeepAliveFailed, 6), 0);
    rig.run(2 * SECOND).await;
    assert_eq!(rig.count(1, EventCode::KeepAliveFailed, 6), 1);
    assert!(!is_kept_alive(&mut rig, &ecu).await);
    rig.send(1, PLAIN, &[0x22, 1]);
    assert!(is_kept_alive(&mut rig, &ecu).await, "the operator is at work again");
}

#[tokio::test(start_paused = true)]
async fn tester_present_does_not_stop_in_the_middle_of_a_download() {
    let (mut rig, ecu) = programming().await;
    rig.send(1, PLAIN, &[0x34, 0]);
    rig.session.handle_voltage(now(), Some(11.5));
    rig.run(55 * SECOND).await;
    rig.send(1, PLAIN, &[0x36, 1]);
    rig.session.handle_voltage(now(), Some(11.5));
    rig.run(50 * SECOND).await;
    assert!(is_kept_alive(&mut rig, &ecu).await);
    rig.run(2 * SECOND).await;
    assert!(!is_kept_alive(&mut rig, &ecu).await, "the download was given up, and the voltage is low");
}

#[tokio::test(start_paused = true)]
async fn tester_present_stops_at_a_low_voltage_where_the_ignition_is_unknown() {
    for (ignition, stops) in [(None, true), (Some(true), false)] {
        let (mut rig, ecu) = programming().await;
        rig.session.handle_ignition(now(), ignition);
        for _ in 0..48 {
            rig.session.handle_voltage(now(), Some(12.1));
            rig.run(SECOND).await;
        }
        assert!(is_kept_alive(&mut rig, &ecu).await, "58 s");
        rig.session.handle_voltage(now(), Some(12.1));
        rig.run(3 * SECOND).await;
        assert_eq!(!is_kept_alive(&mut rig, &ecu).await, stops);
        // a battery recovers a little when the load is gone
        rig.session.handle_voltage(now(), Some(12.4));
        assert_eq!(!is_kept_alive(&mut rig, &ecu).await, stops);
        rig.session.handle_voltage(now(), Some(13.1));
        assert!(is_kept_alive(&mut rig, &ecu).await, "the engine runs");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dip_of_the_voltage_does_not_stop_tester_present() {
    let (mut rig, ecu) = programming().await;
    for _ in 0..10 {
        rig.session.handle_voltage(now(), Some(9.0));
        rig.run(30 * SECOND).await;
        rig.session.handle_voltage(now(), Some(12.3));
        rig.run(SECOND).await;
    }
    rig.session.handle_voltage(now(), None);
    assert!(is_kept_alive(&mut rig, &ecu).await);
}
