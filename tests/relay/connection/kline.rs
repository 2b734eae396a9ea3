//! K-line channels: links to simulated ECUs, which check the timing of the tester.

mod line;

use std::time::Duration;

use connector_agent::relay::connection::{CloseReason, VinTrigger};
use connector_agent::relay::wire::codec::{EventCode, SendFailedDetail};
use connector_hal::timer::TimerKind;
use connector_sim::vehicle::kline::{AnswerScript, KlineEcuConfig, KlineVehicle, Misbehaviour};
use serde_json::{Value, json};

use super::common::*;

const VIN_ANSWER: &[u8] = b"\x5A\x90WVWZZZ1KZ6W000001";
const NOT_ACKNOWLEDGED: u16 = SendFailedDetail::NotAcknowledged as u16;

fn ecu(address: u8) -> KlineEcuConfig {
    // the runtime's clock has a resolution of a millisecond
    KlineEcuConfig { tolerance: 3 * MILLISECOND, functions: Vec::new(), ..KlineEcuConfig::new(address) }
}

async fn rig(protocol: &str, ecus: &[KlineEcuConfig]) -> (Rig, KlineVehicle) {
    let mut rig = Rig::new();
    let vehicle = KlineVehicle::start(ecus, &rig.kline, TimerKind::Runtime);
    let reply = rig.configure(json!([kline_bus(protocol)])).await;
    assert_eq!(reply.action, "busesConfigured", "{reply:?}");
    (rig, vehicle)
}

/// Opens a channel, and waits for the reply after its initialisation.
async fn open(rig: &mut Rig, channel: u16, more: Value) -> connector_agent::relay::wire::Envelope {
    let mut config = json!({"bus_name": "K", "ecu_id": 0x11});
    more.as_object().unwrap().iter().for_each(|(key, value)| config[key] = value.clone());
    let before = rig.texts.len();
    rig.ask("openChannel", json!({"channel": channel, "kline_channel": config}));
    assert!(rig.run_until(20 * SECOND, |rig| rig.texts.len() > before).await, "openChannel is not answered");
    rig.texts[before].clone()
}

async fn opened(rig: &mut Rig, channel: u16, more: Value) {
    let reply = open(rig, channel, more).await;
    assert_eq!(reply.action, "channelOpened", "{reply:?}");
    assert_eq!(reply.message["channel"], channel);
}

async fn answers(rig: &mut Rig, channel: u16, count: usize) -> Vec<Vec<u8>> {
    rig.run_until(20 * SECOND, |rig| rig.pdus(channel).len() >= count).await;
    rig.pdus(channel)
}

#[tokio::test(start_paused = true)]
async fn a_channel_is_open_when_its_link_is_and_answers_bear_the_ecus_address() {
    for protocol in ["iso14230_fast", "iso14230_slow"] {
        let (mut rig, vehicle) = rig(protocol, &[ecu(0x11)]).await;
        opened(&mut rig, 1, json!({"keyword": {"key_byte_1": 143, "key_byte_2": 239}})).await;
        assert_eq!(vehicle.with_ecu(0, |ecu| ecu.is_communicating()), Some(true));
        rig.send(1, CONFIRM, &[0x1A, 0x90]);
        assert_eq!(answers(&mut rig, 1, 1).await, [VIN_ANSWER]);
        assert!(rig.on(1).contains(&Got::Pdu { address: 0x11, data: VIN_ANSWER.to_vec() }));
        assert_eq!(rig.count(1, EventCode::Sent, 0), 1);
        assert_eq!(vehicle.anomalies(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn the_functional_address_reaches_the_ecu_with_the_function() {
    let (mut rig, vehicle) =
        rig("iso14230_fast", &[KlineEcuConfig { functions: vec![0x33], ..ecu(0x10) }]).await;
    opened(&mut rig, 1, json!({"ecu_id": 51})).await;
    rig.send(1, PLAIN, &[0x01, 0x00]);
    answers(&mut rig, 1, 1).await;
    assert!(matches!(&rig.on(1)[..], [Got::Pdu { address: 0x10, .. }]), "{:?}", rig.on(1));
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn wrong_key_bytes_and_a_silent_ecu_have_separate_errors() {
    let (mut rig, _vehicle) = rig("iso14230_slow", &[ecu(0x11)]).await;
    let reply = open(&mut rig, 1, json!({"keyword": {"key_byte_1": 143, "key_byte_2": 233}})).await;
    assert_eq!(problem(&reply), (409, "wrong-key-bytes".to_owned()));
    assert!(reply.message["detail"].as_str().unwrap().contains("0x8FEF"), "{reply:?}");
    let reply = open(&mut rig, 2, json!({"ecu_id": 0x28})).await;
    assert_eq!(problem(&reply), (504, "ecu-not-answering".to_owned()));
    // both numbers are free again
    opened(&mut rig, 1, json!({})).await;
    let reply = open(&mut rig, 2, json!({})).await;
    assert_eq!(problem(&reply), (409, "ecu-in-use".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn unsupported_line_settings_are_refused_with_the_supported_pins() {
    let (mut rig, _vehicle) = rig("iso14230_fast", &[]).await;
    let mut other = kline_bus("iso14230_fast");
    other["kline_bus"]["pin"] = json!(15);
    let reply = rig.configure(json!([other])).await;
    assert_eq!(problem(&reply), (404, "unknown-pins".to_owned()));
    assert!(reply.message["detail"].as_str().unwrap().contains("has: 7"), "{reply:?}");
    let mut other = kline_bus("iso14230_fast");
    other["kline_bus"]["kline_bit_rate"] = json!(19_200);
    assert_eq!(problem(&rig.configure(json!([other])).await), (400, "invalid-message".to_owned()));
    let mut other = kline_bus("iso9141");
    other["bus_name"] = json!("L");
    assert_eq!(problem(&rig.configure(json!([other])).await), (400, "invalid-message".to_owned()));
    let reply =
        rig.open(1, "isotp_channel", json!({"bus_name": "K", "request_id": 1, "response_id": 2})).await;
    assert_eq!(problem(&reply), (409, "wrong-bus-kind".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_chained_download_is_sent_block_by_block_and_its_response_pending_is_waited_for() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    rig.send(1, PLAIN, &[0x31, 0x02]);
    rig.send(1, CHAINED, &[0x34, 0x00]);
    let blocks: Vec<Vec<u8>> = (0..8u8).map(|block| [&[0x36][..], &[block; 100]].concat()).collect();
    blocks.iter().for_each(|block| rig.send(1, CHAINED, block));
    rig.send(1, CHAINED, &[0x37]);
    assert!(rig.run_until(60 * SECOND, |rig| rig.pdus(1).last().is_some_and(|pdu| *pdu == [0x77])).await);
    let memory: Vec<u8> = (0..8u8).flat_map(|block| [block; 100]).collect();
    assert_eq!(vehicle.with_ecu(0, |ecu| ecu.memory().to_vec()), Some(memory));
    assert!(rig.pdus(1).contains(&vec![0x7F, 0x31, 0x78]));
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_negative_response_breaks_the_chain() {
    let (mut rig, _vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    rig.send(1, PLAIN, &[0x36, 1]);
    rig.send(1, CHAINED, &[0x36, 2]);
    rig.send(1, CHAINED, &[0x36, 3]);
    rig.run(5 * SECOND).await;
    assert_eq!(rig.pdus(1), [[0x7F, 0x36, 0x22]]);
    assert_eq!(rig.events(1), [(EventCode::ChainBroken, 0x22, 2)]);
}

#[tokio::test(start_paused = true)]
async fn the_link_is_kept_alive_while_the_operator_is_away_and_everything_is_resumed() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    rig.send(1, PLAIN, &[0x31, 0x02]);
    rig.run(100 * MILLISECOND).await;
    rig.cut();
    rig.run(20 * SECOND).await;
    rig.resume().await;
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    let answers = answers(&mut rig, 1, 5).await;
    assert_eq!(answers.last().unwrap(), VIN_ANSWER);
    assert!(
        answers.contains(&vec![0x71, 0x02]),
        "the answer that arrived without the operator: {answers:02X?}"
    );
    assert_eq!(rig.events(1), []);
    assert_eq!(vehicle.anomalies(), []);
    let kept = vehicle.with_ecu(0, |ecu| ecu.requests().iter().filter(|request| **request == [0x3E]).count());
    assert!(kept.unwrap() >= 7, "{kept:?}");
}

#[tokio::test(start_paused = true)]
async fn several_ecus_take_turns_on_one_line() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11), ecu(0x28), ecu(0x58)]).await;
    for (channel, address) in [(1, 0x11), (2, 0x28), (3, 0x58)] {
        opened(&mut rig, channel, json!({"ecu_id": address})).await;
    }
    for round in 0..10u8 {
        (1..=3).for_each(|channel| rig.send(channel, PLAIN, &[0x21, round]));
    }
    for channel in 1..=3u16 {
        let answers = answers(&mut rig, channel, 10).await;
        let expected: Vec<Vec<u8>> = (0..10u8).map(|round| [&[0x61][..], &[round; 9]].concat()).collect();
        assert_eq!(answers, expected, "channel {channel}");
    }
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_lost_link_is_reported_and_the_next_pdu_initialises_the_ecu_again() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    let silent = Misbehaviour { is_silent: true, ..Misbehaviour::default() };
    vehicle.with_ecu(0, |ecu| ecu.config_mut().misbehaviour = silent);
    rig.run(20 * SECOND).await;
    assert_eq!(
        rig.count(1, EventCode::KeepAliveFailed, NOT_ACKNOWLEDGED),
        2,
        "the link is lost, and the next initialisation fails"
    );
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    rig.run(5 * SECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, NOT_ACKNOWLEDGED), 1);
    vehicle.with_ecu(0, |ecu| ecu.config_mut().misbehaviour = Misbehaviour::default());
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    assert_eq!(answers(&mut rig, 1, 1).await, [VIN_ANSWER]);
}

#[tokio::test(start_paused = true)]
async fn a_disturbed_answer_is_reported_and_no_request_is_repeated() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({})).await;
    vehicle.with_ecu(0, |ecu| ecu.config_mut().misbehaviour.wrong_checksums = 1);
    rig.send(1, PLAIN, &[0x21, 0x01]);
    rig.run(SECOND).await;
    assert_eq!(rig.count(1, EventCode::ReceiveFailed, 2), 1);
    rig.send(1, PLAIN, &[0x21, 0x02]);
    assert_eq!(answers(&mut rig, 1, 1).await[0][1], 0x02);
    let asked = vehicle.with_ecu(0, |ecu| ecu.requests().iter().filter(|request| request[0] == 0x21).count());
    assert_eq!(asked, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_pdu_that_is_too_old_or_too_long_is_not_sent() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    opened(&mut rig, 1, json!({"max_age_ms": 200})).await;
    rig.send(1, PLAIN, &[0x21, 0x01]);
    answers(&mut rig, 1, 1).await;
    rig.set_network(Network::Stalled);
    rig.send(1, PLAIN, &[0x21, 0x02]);
    rig.run(SECOND).await;
    rig.set_network(Network::Up(Duration::ZERO));
    rig.send(1, PLAIN, &[0x36; 256]);
    rig.run(SECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, SendFailedDetail::TooOld as u16), 1);
    assert_eq!(rig.count(1, EventCode::SendFailed, SendFailedDetail::RefusedByPolicy as u16), 1);
    assert_eq!(vehicle.with_ecu(0, |ecu| ecu.requests().len()), Some(1));
}

#[tokio::test(start_paused = true)]
async fn closing_a_channel_or_the_connection_ends_the_communication() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11), ecu(0x28)]).await;
    opened(&mut rig, 1, json!({})).await;
    opened(&mut rig, 2, json!({"ecu_id": 0x28})).await;
    rig.request("closeChannel", json!({"channel": 1})).await;
    rig.run(SECOND).await;
    let last = |index| vehicle.with_ecu(index, |ecu| ecu.requests().last().cloned()).flatten();
    assert_eq!(last(0), Some(vec![0x82]));
    // a channel to the ECU can be opened again
    opened(&mut rig, 1, json!({})).await;
    rig.session.close(CloseReason::Closed);
    tokio::time::sleep(2 * SECOND).await;
    assert_eq!((last(0), last(1)), (Some(vec![0x82]), Some(vec![0x82])));
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_first_ends_the_open_link_of_the_line() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    for _ in 0..3 {
        opened(&mut rig, 1, json!({})).await;
        let reply = rig.configure(json!([kline_bus("iso14230_fast")])).await;
        assert_eq!(reply.action, "busesConfigured", "{reply:?}");
        let last = vehicle.with_ecu(0, |ecu| ecu.requests().last().cloned()).flatten();
        assert_eq!(last, Some(vec![0x82]), "the communication ended before the line was used again");
    }
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn on_a_kline_tester_present_stops_some_time_after_the_ignition_is_off() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11), ecu(0x28)]).await;
    opened(&mut rig, 1, json!({})).await;
    rig.session.handle_ignition(now(), Some(true));
    rig.session.handle_ignition(now(), Some(false));
    rig.run(299 * SECOND).await;
    assert_eq!(rig.events(1), [], "the link is still kept alive");
    rig.run(101 * SECOND).await;
    let refused = (EventCode::KeepAliveFailed, SendFailedDetail::RefusedByPolicy as u16, 0);
    assert_eq!(rig.events(1), [refused], "the event is sent once, as on any bus");
    let requests = vehicle.with_ecu(0, |ecu| ecu.requests().len());
    rig.run(60 * SECOND).await;
    assert_eq!(vehicle.with_ecu(0, |ecu| ecu.requests().len()), requests, "silence");
    // the operator can still send requests; each needs an initialisation
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    assert_eq!(answers(&mut rig, 1, 1).await, [VIN_ANSWER]);
    // a channel opened after that gets the event too, when its link could end
    opened(&mut rig, 2, json!({"ecu_id": 0x28})).await;
    rig.run(10 * SECOND).await;
    assert_eq!((rig.events(1), rig.events(2)), (vec![refused], vec![refused]));
    // with the ignition on, the links are kept alive again
    rig.session.handle_ignition(now(), Some(true));
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    rig.send(2, PLAIN, &[0x1A, 0x90]);
    rig.run(60 * SECOND).await;
    assert_eq!((rig.pdus(1).len(), rig.pdus(2).len()), (2, 1));
    assert_eq!((rig.events(1), rig.events(2)), (vec![refused], vec![refused]));
    assert_eq!(vehicle.with_ecu(1, |ecu| ecu.is_communicating()), Some(true), "kept alive");
    rig.session.handle_ignition(now(), Some(false));
    rig.run(301 * SECOND).await;
    assert_eq!((rig.events(1), rig.events(2)), (vec![refused; 2], vec![refused; 2]));
}

/// Reads the VIN beside the channels.
async fn read_vin(rig: &mut Rig) -> Option<String> {
    assert!(rig.session.start_reading_vin(now(), 1500 * MILLISECOND, VinTrigger::Request));
    for _ in 0..40 {
        rig.run(100 * MILLISECOND).await;
        if let Some(report) = rig.session.poll_vin(now()) {
            return report.vin.map(|vin| vin.to_string());
        }
    }
    panic!("the reading does not end");
}

#[tokio::test(start_paused = true)]
async fn on_a_kline_the_vin_is_asked_of_the_ecu_of_an_open_channel_before_programming() {
    let (mut rig, vehicle) = rig("iso14230_fast", &[ecu(0x11)]).await;
    rig.session.require_vin();
    assert!(!rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request), "no link is open");
    opened(&mut rig, 1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 0x85]);
    rig.run(10 * MILLISECOND).await;
    assert!(rig.session.take_vin_wanted());
    assert_eq!(read_vin(&mut rig).await.as_deref(), Some("WVWZZZ1KZ6W000001"));
    assert_eq!(rig.on(1), [], "the connector's own question is not relayed");
    rig.session.confirm_vin(now());
    assert_eq!(answers(&mut rig, 1, 1).await, [[0x50, 0x85]]);
    rig.send(1, PLAIN, &[0x1A, 0x90]);
    assert_eq!(answers(&mut rig, 1, 2).await[1], VIN_ANSWER, "a question of the operator is");
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn an_ecu_on_a_kline_without_a_vin_is_asked_two_questions_and_the_refusal_says_so() {
    let refuses = |service: u8| AnswerScript::new(&[service], &[]);
    let vin = [b"\x62\xF1\x90".as_slice(), &VIN_ANSWER[2..]].concat();
    let uds = AnswerScript::new(&[0x22, 0xF1, 0x90], &[vin]);
    for (script, has_vin) in [(uds, true), (refuses(0x22), false)] {
        let config = KlineEcuConfig { vin: None, scripts: vec![script], ..ecu(0x11) };
        let (mut rig, vehicle) = self::rig("iso14230_fast", &[config]).await;
        rig.session.require_vin();
        opened(&mut rig, 1, json!({})).await;
        rig.send(1, PLAIN, &[0x10, 0x85]);
        rig.run(10 * MILLISECOND).await;
        assert_eq!(read_vin(&mut rig).await.is_some(), has_vin);
        rig.run(100 * MILLISECOND).await;
        let refused = usize::from(!has_vin);
        assert_eq!(rig.count(1, EventCode::SendFailed, 6), refused, "{:?}", rig.event_texts);
        assert!(
            rig.event_texts.iter().all(|text| text.contains("no ECU reports a VIN")),
            "{:?}",
            rig.event_texts
        );
        assert_eq!(vehicle.anomalies(), []);
    }
}

#[tokio::test(start_paused = true)]
async fn on_a_kline_a_silent_ecu_ends_the_reading_of_the_vin_and_loses_no_pdu() {
    let silent = AnswerScript::new(&[0x1A, 0x90], &[]);
    let config = KlineEcuConfig { scripts: vec![silent], ..ecu(0x11) };
    let (mut rig, _vehicle) = rig("iso14230_fast", &[config]).await;
    opened(&mut rig, 1, json!({})).await;
    assert!(rig.session.start_reading_vin(now(), 1500 * MILLISECOND, VinTrigger::Request));
    rig.run(10 * MILLISECOND).await;
    rig.send(1, PLAIN, &[0x21, 0x01]);
    assert_eq!(answers(&mut rig, 1, 1).await.len(), 1);
    rig.run(2 * SECOND).await;
    assert_eq!(rig.session.poll_vin(now()).map(|report| report.vin), Some(None));
    assert_eq!(rig.events(1), []);
}
