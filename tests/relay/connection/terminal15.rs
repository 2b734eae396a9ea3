//! Terminal 15: events on its channels, and its effect on TesterPresent.

use connector_agent::relay::wire::codec::{EventCode, SendFailedDetail};
use serde_json::json;

use super::common::*;

const TESTER_PRESENT: [u8; 2] = [0x3E, 0x80];
const REFUSED: u16 = SendFailedDetail::RefusedByPolicy as u16;

async fn rig_with_terminal15() -> Rig {
    let mut rig = Rig::new();
    rig.session.handle_ignition(now(), Some(true));
    let terminal15 = json!({"bus_name": "T15", "terminal15_bus": {"pin": "1"}});
    let reply = rig.configure(json!([hs(), terminal15])).await;
    assert_eq!(reply.message["buses"], json!(["HS", "T15"]));
    let reply = rig.open(15, "terminal15_channel", json!({"bus_name": "T15"})).await;
    assert_eq!(reply.action, "channelOpened", "{reply:?}");
    rig
}

#[tokio::test(start_paused = true)]
async fn a_channel_gets_the_state_immediately_and_each_change_once() {
    let mut rig = rig_with_terminal15().await;
    rig.run(MILLISECOND).await;
    assert_eq!(rig.on(15), [Got::Terminal15(Some(true))]);
    for ignition in [Some(false), Some(false), None, Some(true)] {
        rig.session.handle_ignition(now(), ignition);
        rig.run(MILLISECOND).await;
    }
    let expected: Vec<_> = [Some(true), Some(false), None, Some(true)].map(Got::Terminal15).into();
    assert_eq!(rig.on(15), expected);
    rig.open(16, "terminal15_channel", json!({"bus_name": "T15"})).await;
    rig.request("closeChannel", json!({"channel": 15})).await;
    rig.session.handle_ignition(now(), Some(false));
    rig.run(MILLISECOND).await;
    assert_eq!(rig.on(15), expected, "a closed channel receives nothing more");
    assert_eq!(rig.on(16), [Some(true), Some(false)].map(Got::Terminal15));
}

#[tokio::test(start_paused = true)]
async fn changes_during_a_lost_link_arrive_in_order_when_it_is_back() {
    let mut rig = rig_with_terminal15().await;
    rig.run(MILLISECOND).await;
    rig.cut();
    for ignition in [Some(false), Some(true), Some(false)] {
        rig.session.handle_ignition(now(), ignition);
        rig.run(SECOND).await;
    }
    rig.resume().await;
    rig.run(MILLISECOND).await;
    assert_eq!(rig.on(15), [true, false, true, false].map(|on| Got::Terminal15(Some(on))));
}

#[tokio::test(start_paused = true)]
async fn unsupported_uses_of_terminal_15_are_refused_with_the_supported_ones() {
    let mut rig = rig_with_terminal15().await;
    rig.send(15, PLAIN, &[0x3E, 0]);
    rig.send_frame(15, frame(0x7E0, &[1]));
    rig.run(MILLISECOND).await;
    assert_eq!(rig.count(15, EventCode::SendFailed, REFUSED), 2);
    let reply =
        rig.open(1, "isotp_channel", json!({"bus_name": "T15", "request_id": 1, "response_id": 2})).await;
    assert_eq!(problem(&reply), (409, "wrong-bus-kind".to_owned()));
    let reply = rig.configure(json!([{"bus_name": "T", "terminal15_bus": {"pin": 2}}])).await;
    assert_eq!(problem(&reply), (404, "unknown-pins".to_owned()));
    assert!(reply.message["detail"].as_str().unwrap().contains("has: pin 1"), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn tester_present_follows_the_ignition_with_a_delay() {
    let mut rig = rig_with_terminal15().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    rig.session.handle_ignition(now(), Some(false));
    rig.run(299 * SECOND).await;
    let before = ecu.requests().len();
    assert!(before >= 148, "{before}");
    assert_eq!(rig.on(1), []);
    rig.run(600 * SECOND).await;
    assert!(ecu.requests().len() <= before + 1);
    assert_eq!(
        rig.events(1),
        [(EventCode::KeepAliveFailed, REFUSED, 0)],
        "the operator gets the reason once"
    );
    rig.open_isotp(2, json!({"request_id": 0x7E1, "response_id": 0x7E9, "keep_alive": "enabled"})).await;
    rig.run(10 * SECOND).await;
    assert_eq!(
        rig.events(2),
        [(EventCode::KeepAliveFailed, REFUSED, 0)],
        "a channel opened later sends no TesterPresent either"
    );

    let stopped = ecu.requests().len();
    rig.send(1, PLAIN, &[0x22, 0xF1, 0x90]);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests().len(), stopped + 1, "requests of the operator are still sent");
    rig.session.handle_ignition(now(), Some(true));
    rig.run(10 * SECOND).await;
    assert!(ecu.requests().iter().filter(|pdu| **pdu == TESTER_PRESENT).count() > before + 3);
}

#[tokio::test(start_paused = true)]
async fn tester_present_continues_if_the_ignition_returns_in_time_or_is_unknown() {
    let mut rig = rig_with_terminal15().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    for ignition in [Some(false), Some(true), Some(false), None] {
        rig.session.handle_ignition(now(), ignition);
        rig.send(1, PLAIN, &[0x22, 0xF1, 0x90]);
        rig.run(200 * SECOND).await;
    }
    rig.run(200 * SECOND).await;
    assert!(ecu.requests().len() >= 498, "{}", ecu.requests().len());
}
