//! K-lines with noise, other testers, and ECUs with their own times.

use std::time::Duration;

use connector_agent::relay::wire::codec::EventCode;
use connector_hal::kline::Signal;
use connector_hal::kline::sim::LineNode;
use connector_sim::vehicle::kline::{AnswerScript, KlineEcuConfig, Misbehaviour};
use serde_json::json;

use super::super::common::*;
use super::{VIN_ANSWER, answers, ecu, open, opened, rig};

/// Puts bytes on the line, from `start` on, `pause` apart.
fn transmit(node: &mut LineNode, start: Duration, pause: Duration, bytes: &[u8]) {
    for (index, byte) in (0u32..).zip(bytes) {
        node.transmit_at(node.now() + start + pause * index, Signal::Byte(*byte));
    }
}

#[tokio::test(start_paused = true)]
async fn noise_around_the_messages_loses_no_pdu_and_is_no_event() {
    for noise in [0x00, 0x42, 0x83, 0xFF] {
        for (before, after) in [(Some(noise), None), (None, Some(noise)), (Some(noise), Some(noise))] {
            let misbehaviour =
                Misbehaviour { noise_before: before, noise_after: after, ..Misbehaviour::default() };
            let (mut rig, vehicle) =
                rig("iso14230_fast", &[KlineEcuConfig { misbehaviour, ..ecu(0x11) }]).await;
            opened(&mut rig, 1, json!({})).await;
            rig.send(1, PLAIN, &[0x34, 0x00]);
            (0..4u8).for_each(|block| rig.send(1, CHAINED, &[0x36, block]));
            rig.send(1, CHAINED, &[0x1A, 0x90]);
            let answers = answers(&mut rig, 1, 6).await;
            assert_eq!(answers.len(), 6, "{before:02X?} {after:02X?}: {answers:02X?}");
            assert_eq!(answers[5], VIN_ANSWER);
            assert_eq!(rig.events(1), [], "{before:02X?} {after:02X?}");
            assert_eq!(vehicle.with_ecu(0, |ecu| ecu.memory().to_vec()), Some(vec![0, 1, 2, 3]));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn noise_without_an_answer_does_not_hold_the_chain() {
    let silent = AnswerScript::new(&[0x21, 0x01], &[]);
    for foreign in [vec![0x00], vec![0x55, 0xAA], vec![0x81, 0xF2, 0x28, 0x7E, 0x19]] {
        let (mut rig, _vehicle) =
            rig("iso14230_fast", &[KlineEcuConfig { scripts: vec![silent.clone()], ..ecu(0x11) }]).await;
        opened(&mut rig, 1, json!({})).await;
        let mut other = rig.kline.attach("other", 10_400);
        rig.send(1, CONFIRM, &[0x21, 0x01]);
        rig.send(1, CHAINED, &[0x21, 0x02]);
        rig.run_until(SECOND, |rig| rig.count(1, EventCode::Sent, 0) == 1).await;
        transmit(&mut other, 30 * MILLISECOND, 2 * MILLISECOND, &foreign);
        rig.run(2 * SECOND).await;
        assert_eq!(rig.count(1, EventCode::ChainBroken, 0), 1, "{foreign:02X?}: {:?}", rig.events(1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_in_use_is_left_alone_and_the_operator_gets_to_know() {
    for protocol in ["iso14230_fast", "iso14230_slow"] {
        let (mut rig, vehicle) = rig(protocol, &[ecu(0x11)]).await;
        let mut other = rig.kline.attach("other", 10_400);
        transmit(&mut other, Duration::ZERO, 100 * MILLISECOND, &[0x42; 60]);
        let reply = open(&mut rig, 1, json!({})).await;
        assert_eq!(problem(&reply).1, "bus-unavailable");
        let detail = reply.message["detail"].as_str().unwrap();
        assert_eq!(detail, "Channel 1: the line is in use by another tester.");
        rig.run(SECOND).await;
        assert_eq!(vehicle.with_ecu(0, |ecu| ecu.is_communicating()), Some(false));
        assert_eq!(vehicle.anomalies(), [], "no pulse");
        // when the line is quiet, the channel can be opened
        rig.run(5 * SECOND).await;
        opened(&mut rig, 1, json!({})).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_pdu_is_not_sent_into_the_messages_of_another_tester() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    rig.run(100 * MILLISECOND).await;
    let mut other = rig.kline.attach("other", 10_400);
    transmit(&mut other, Duration::ZERO, 30 * MILLISECOND, &[0x42; 80]);
    rig.run(60 * MILLISECOND).await;
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    rig.run(2200 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, super::NOT_ACKNOWLEDGED), 1);
    assert_eq!(vehicle.with_ecu(0, |ecu| ecu.requests().len()), Some(0));
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    assert_eq!(answers(&mut rig, 1, 1).await, [VIN_ANSWER]);
}

#[tokio::test(start_paused = true)]
async fn what_came_of_a_slow_initialisation_is_named() {
    let broken = |misbehaviour| KlineEcuConfig { misbehaviour, ..ecu(0x11) };
    let stops = |bytes| broken(Misbehaviour { stops_after: Some(bytes), ..Misbehaviour::default() });
    let confirms = |byte| broken(Misbehaviour { confirms_with: Some(byte), ..Misbehaviour::default() });
    for (ecu, detail) in [
        (stops(0), "the ECU does not answer"),
        (stops(1), "the ECU answered its address with 55 and then stopped"),
        (stops(2), "the ECU answered its address with 55 EF and then stopped"),
        (stops(3), "the ECU answered its address with 55 EF 8F and then stopped"),
        (confirms(0x11), "the ECU confirmed another address with 0x11"),
    ] {
        let (mut rig, _vehicle) = rig("iso14230_slow", &[ecu]).await;
        let reply = open(&mut rig, 1, json!({})).await;
        assert_eq!(problem(&reply), (504, "ecu-not-answering".to_owned()));
        assert_eq!(reply.message["detail"], format!("Channel 1: {detail}."));
    }
}

#[tokio::test(start_paused = true)]
async fn a_disturbed_answer_to_the_initialisation_is_named() {
    let misbehaviour = Misbehaviour { wrong_checksums: u32::MAX, ..Misbehaviour::default() };
    let (mut rig, _vehicle) = rig("iso14230_fast", &[KlineEcuConfig { misbehaviour, ..ecu(0x11) }]).await;
    let reply = open(&mut rig, 1, json!({})).await;
    assert_eq!(reply.message["detail"], "Channel 1: the ECU's answer is disturbed: 83 F1 11 C1 EF 8F 3B.");
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_confirmed_with_its_parity_bit_is_confirmed() {
    // 0x56 has an even number of ones, so that seven bits and odd parity are 0xD6
    for confirms_with in [!0x56, !0xD6] {
        let misbehaviour = Misbehaviour { confirms_with: Some(confirms_with), ..Misbehaviour::default() };
        let (mut rig, vehicle) = rig("iso14230_slow", &[KlineEcuConfig { misbehaviour, ..ecu(0x56) }]).await;
        opened(&mut rig, 1, json!({"ecu_id": 0x56})).await;
        rig.send(1, PLAIN, &[0x1A, 0x90]);
        assert_eq!(answers(&mut rig, 1, 1).await, [VIN_ANSWER]);
        assert_eq!(vehicle.anomalies(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ecu_that_wakes_only_to_its_address_with_parity_is_opened() {
    // 0x56 and 0x11 have an even number of ones
    for (address, with_parity) in [(0x56, 0xD6), (0x11, 0x91)] {
        let misbehaviour = Misbehaviour { wakes_to: Some(with_parity), ..Misbehaviour::default() };
        let (mut rig, vehicle) =
            rig("iso14230_slow", &[KlineEcuConfig { misbehaviour, ..ecu(address) }]).await;
        opened(&mut rig, 1, json!({"ecu_id": address})).await;
        assert_eq!(vehicle.anomalies(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_line_that_is_left_silently_keeps_the_ecus_communication() {
    for is_silent in [false, true] {
        let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
        opened(&mut rig, 1, json!({})).await;
        rig.run(SECOND).await;
        if is_silent {
            rig.session.leave_silently();
        }
        drop(rig);
        tokio::time::sleep(SECOND).await;
        assert_eq!(vehicle.with_ecu(0, |ecu| ecu.is_communicating()), Some(is_silent));
    }
}

/// The requests to the ECU until now.
fn requests(vehicle: &connector_sim::vehicle::kline::KlineVehicle) -> Vec<Vec<u8>> {
    vehicle.with_ecu(0, |ecu| ecu.requests().to_vec()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn access_timing_parameters_are_followed() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    // P2max 500 ms, P3min 10 ms, P3max 1 s, P4min 1 ms
    let slow = [0x83, 0x03, 0x32, 0x14, 0x14, 0x04, 0x02];
    rig.send(1, PLAIN, &slow);
    assert_eq!(answers(&mut rig, 1, 1).await, [[0xC3, 0x03]]);
    for number in 0..5 {
        rig.send(1, PLAIN, &[0x21, number]);
        assert_eq!(answers(&mut rig, 1, usize::from(number) + 2).await.len(), usize::from(number) + 2);
    }
    let read: Vec<Vec<u8>> = (0..5).map(|number| vec![0x21, number]).collect();
    assert_eq!(requests(&vehicle), [&[slow.to_vec()][..], &read].concat(), "no request is doubted");
    // the link is kept alive within the shorter P3max
    rig.run(10 * SECOND).await;
    assert_eq!(vehicle.with_ecu(0, |ecu| ecu.is_communicating()), Some(true));
    assert_eq!(rig.events(1), []);
    // the default times
    rig.send(1, PLAIN, &[0x83, 0x01]);
    answers(&mut rig, 1, 7).await;
    let before = requests(&vehicle).len();
    rig.run(20 * SECOND).await;
    let kept = requests(&vehicle).len() - before;
    assert!((8..=10).contains(&kept), "TesterPresent every 2 s: {kept}");
    assert_eq!(rig.events(1), []);
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_chain_waits_for_the_p2_that_was_agreed_upon() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    // P2max 2 s
    rig.send(1, PLAIN, &[0x83, 0x03, 0x32, 0x50, 0x6E, 0x14, 0x0A]);
    (1..4).for_each(|number| rig.send(1, CHAINED, &[0x21, number]));
    assert_eq!(answers(&mut rig, 1, 4).await.len(), 4);
    assert_eq!(rig.events(1), []);
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn access_timing_parameters_that_are_read_or_refused_change_nothing() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    // limits are no times; a request of the wrong length is refused; the active ones are those in use
    for (request, answer) in [
        (vec![0x83, 0x00], vec![0xC3, 0x00, 0x00, 0x01, 0x00, 0x01, 0x00]),
        (vec![0x83, 0x03, 0x32], vec![0x7F, 0x83, 0x12]),
        (vec![0x83, 0x02], vec![0xC3, 0x02, 0x32, 0x02, 0x6E, 0x14, 0x0A]),
    ] {
        let count = rig.pdus(1).len() + 1;
        rig.send(1, PLAIN, &request);
        assert_eq!(answers(&mut rig, 1, count).await.last(), Some(&answer));
    }
    rig.run(20 * SECOND).await;
    assert_eq!(rig.events(1), []);
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn p2_ms_is_the_time_in_which_an_answer_begins() {
    for (p2_ms, doubts) in [(None, 3), (Some(900), 0)] {
        let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
        opened(&mut rig, 1, json!({"p2_ms": p2_ms})).await;
        vehicle.with_ecu(0, |ecu| ecu.config_mut().p2 = 890 * MILLISECOND);
        rig.send(1, PLAIN, &[0x21, 0x01]);
        rig.send(1, CHAINED, &[0x21, 0x02]);
        rig.run(3 * SECOND).await;
        let requests = requests(&vehicle);
        let kept = requests.iter().filter(|request| **request == [0x3E]).count();
        assert_eq!(kept > 0, doubts > 0, "{requests:02X?}");
        if doubts == 0 {
            assert_eq!(requests, [[0x21, 0x01], [0x21, 0x02]]);
            assert_eq!(rig.pdus(1).len(), 2);
            assert_eq!(rig.events(1), []);
        }
    }
}
