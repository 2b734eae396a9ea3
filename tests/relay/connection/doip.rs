//! DoIP buses and channels: opening, refusals, several ECUs, groups, keep-alives, lost connections.

use connector_agent::protocol::doip::{
    DiagnosticMessage, DiagnosticNackCode, Message, Payload, ProtocolVersion,
};
use connector_agent::relay::connection::VinTrigger;
use connector_agent::relay::wire::codec::{EventCode, Header, Payload as RecordPayload, Records};
use serde_json::{Value, json};

use super::common::*;

const TESTER: u16 = 0x0E80;
const GATEWAY: u16 = 0x4010;
const ENGINE: u16 = 0x4020;
const BRAKES: u16 = 0x4021;
const FUNCTIONAL: u16 = 0xE400;
const TESTER_PRESENT: [u8; 2] = [0x3E, 0x80];

fn positive(request: &[u8]) -> Vec<(std::time::Duration, Vec<u8>)> {
    if request == TESTER_PRESENT {
        return Vec::new();
    }
    let mut answer = request.to_vec();
    answer[0] += 0x40;
    vec![(5 * MILLISECOND, answer)]
}

fn vehicle() -> Gateway {
    Gateway { ecus: vec![(ENGINE, positive), (BRAKES, positive)], ..Gateway::new(GATEWAY) }
}

fn channel(ecu: u16) -> Value {
    json!({"bus_name": "ETH", "gateway_id": GATEWAY, "tester_id": "0x0E80", "ecu_id": ecu})
}

async fn rig_with(gateway: Gateway) -> Rig {
    let mut rig = Rig::new();
    rig.gateways.set([gateway]);
    let reply = rig.configure(json!([doip_bus(5)])).await;
    assert_eq!(reply.action, "busesConfigured", "{reply:?}");
    rig
}

/// Opens a channel, and waits for the reply.
async fn open(rig: &mut Rig, number: u16, config: Value) -> connector_agent::relay::wire::Envelope {
    let before = rig.texts.len();
    rig.ask("openChannel", json!({"channel": number, "doip_channel": config}));
    assert!(rig.run_until(60 * SECOND, |rig| rig.texts.len() > before).await);
    rig.texts[before].clone()
}

async fn rig_with_channel() -> Rig {
    let mut rig = rig_with(vehicle()).await;
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(reply.action, "channelOpened", "{reply:?}");
    rig
}

#[tokio::test(start_paused = true)]
async fn a_request_goes_to_its_ecu_and_the_answer_bears_its_address() {
    let mut rig = rig_with_channel().await;
    rig.send(1, CONFIRM, &[0x22, 0xF1, 0x90]);
    rig.run(SECOND).await;
    let requests = rig.gateways.requests();
    assert_eq!(requests.len(), 1);
    assert_eq!((requests[0].1, requests[0].2), (TESTER, ENGINE));
    let got = rig.on(1);
    assert!(matches!(got[0], Got::Event { code: EventCode::Sent, .. }), "{got:?}");
    assert_eq!(got[1], Got::Pdu { address: u32::from(ENGINE), data: vec![0x62, 0xF1, 0x90] });
    assert_eq!(got.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pdu_of_4095_bytes_and_one_of_a_mebibyte_come_back_whole() {
    let mut rig = rig_with_channel().await;
    for length in [4095, 1 << 20] {
        let request: Vec<u8> = std::iter::once(0x36).chain((1..length).map(|n| n as u8)).collect();
        rig.send(1, PLAIN, &request);
        assert!(rig.run_until(SECOND, |rig| rig.pdus(1).last().is_some_and(|pdu| pdu.len() == length)).await);
        assert_eq!(rig.pdus(1).last().unwrap()[1..], request[1..]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_activation_error_contains_the_gateways_answer() {
    for code in [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0xE1] {
        let mut rig = rig_with(Gateway { activations: vec![code], ..vehicle() }).await;
        let reply = open(&mut rig, 1, channel(ENGINE)).await;
        assert_eq!(problem(&reply), (409, "gateway-refused".to_owned()));
        let detail = reply.message["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("(0x{code:02X})")) && detail.contains("0x4010"), "{detail}");
        assert_eq!(reply.message["in_reply_to"], "openChannel");
        // the number is free again
        rig.gateways.set([Gateway { activations: vec![0x10], ..vehicle() }]);
        assert_eq!(open(&mut rig, 1, channel(ENGINE)).await.action, "channelOpened");
    }
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_requires_tls_is_connected_by_tls() {
    let mut rig = rig_with(Gateway { activations: vec![0x07, 0x10], ..vehicle() }).await;
    assert_eq!(open(&mut rig, 1, channel(ENGINE)).await.action, "channelOpened");
    assert_eq!(rig.gateways.connects(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_tls_gateway_that_requires_tls_again_counts_as_a_refusal() {
    let mut rig = rig_with(Gateway { activations: vec![0x07], ..vehicle() }).await;
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(problem(&reply), (409, "gateway-refused".to_owned()));
    assert_eq!(rig.gateways.connects(), [false, true]);
}

#[tokio::test(start_paused = true)]
async fn a_missing_gateway_is_reported_with_the_gateways_found() {
    let mut rig = rig_with(vehicle()).await;
    let mut config = channel(ENGINE);
    config["gateway_id"] = json!(0x4011);
    let reply = open(&mut rig, 1, config).await;
    assert_eq!(problem(&reply), (404, "unknown-gateway".to_owned()));
    let detail = reply.message["detail"].as_str().unwrap();
    assert!(detail.contains("no gateway 0x4011") && detail.contains("0x4010 at 169.254.0.16"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_announces_itself_later_is_found() {
    let mut rig = rig_with(vehicle()).await;
    rig.gateways.set([]);
    rig.run(5 * SECOND).await;
    let mut config = channel(ENGINE);
    config["gateway_id"] = json!(0x4012);
    rig.ask("openChannel", json!({"channel": 1, "doip_channel": config}));
    rig.run(2 * SECOND).await;
    assert_eq!(rig.texts.len(), 1, "the search for the gateway continues");
    rig.gateways.set([Gateway { address: 0x4012, ..vehicle() }]);
    rig.gateways.announce();
    assert!(rig.run_until(SECOND, |rig| rig.texts.len() > 1).await);
    assert_eq!(rig.texts[1].action, "channelOpened");
}

#[tokio::test(start_paused = true)]
async fn a_silent_gateway_and_an_unreachable_one_have_different_problems() {
    let mut rig = rig_with(Gateway { activations: vec![], ..vehicle() }).await;
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(problem(&reply), (504, "gateway-unreachable".to_owned()));
    assert!(reply.message["detail"].as_str().unwrap().contains("did not answer the routing activation"));
    rig.gateways.set_unreachable(true);
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(problem(&reply), (504, "gateway-unreachable".to_owned()));
    assert!(reply.message["detail"].as_str().unwrap().contains("refused"), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_in_the_vehicle_is_awaited_for_a_bounded_time() {
    let mut rig = rig_with(Gateway { activations: vec![0x11], ..vehicle() }).await;
    let since = now();
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(problem(&reply), (409, "gateway-refused".to_owned()));
    assert!(reply.message["detail"].as_str().unwrap().contains("was not confirmed"), "{reply:?}");
    assert!((30 * SECOND..31 * SECOND).contains(&(now() - since)));
}

#[tokio::test(start_paused = true)]
async fn wrong_options_testers_and_channels_are_refused() {
    let mut rig = rig_with(vehicle()).await;
    for (option, number, expected) in [(1, 5, (404, "unknown-pins")), (3, 5, (400, "invalid-message"))] {
        let bus = json!({"bus_name": "X", "doip_bus": {"doip_option": option,
                         "doip_network_configuration": number}});
        let reply = rig.configure(json!([bus])).await;
        assert_eq!(problem(&reply), (expected.0, expected.1.to_owned()));
    }
    for number in [0, 10] {
        let bus = json!({"bus_name": "X", "doip_bus": {"doip_option": 2,
                         "doip_network_configuration": number}});
        assert_eq!(problem(&rig.configure(json!([bus])).await), (400, "invalid-message".to_owned()));
    }
    let mut config = channel(ENGINE);
    config["tester_id"] = json!(0x1234);
    assert_eq!(problem(&open(&mut rig, 1, config).await), (400, "invalid-message".to_owned()));
    let raw = rig.open(1, "raw_channel", json!({"bus_name": "ETH"})).await;
    assert_eq!(problem(&raw), (409, "wrong-bus-kind".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn buses_at_one_pin_are_refused_by_an_error_that_names_both() {
    let mut rig = rig_with(vehicle()).await;
    let can = json!({"bus_name": "MS", "can_bus": {"pin_plus": 3, "pin_min": 11, "can_protocol": "isotp",
                     "can_bit_rate": 125_000, "transceiver": "high"}});
    let reply = rig.configure(json!([can, doip_bus(5)])).await;
    assert_eq!(problem(&reply), (409, "pins-in-use".to_owned()));
    let expected =
        r#"Buses "MS" (can_bus, pins 3 and 11) and "ETH" (doip_bus, pins 3 and 11) both need pin 3."#;
    assert_eq!(reply.message["detail"], expected);
}

#[tokio::test(start_paused = true)]
async fn several_ecus_share_one_connection_and_another_tester_has_its_own() {
    let mut rig = rig_with_channel().await;
    assert_eq!(open(&mut rig, 2, channel(BRAKES)).await.action, "channelOpened");
    let mut other = channel(ENGINE);
    other["tester_id"] = json!(0x0E81);
    assert_eq!(open(&mut rig, 3, other).await.action, "channelOpened");
    assert_eq!((rig.gateways.connects().len(), rig.gateways.activations()), (2, 2));
    for number in 1..=3 {
        rig.send(number, PLAIN, &[0x22, number as u8]);
    }
    rig.run(SECOND).await;
    for (number, ecu) in [(1, ENGINE), (2, BRAKES), (3, ENGINE)] {
        let answer = Got::Pdu { address: u32::from(ecu), data: vec![0x62, number as u8] };
        assert_eq!(rig.on(number), [answer]);
    }
}

#[tokio::test(start_paused = true)]
async fn each_answer_to_a_functional_request_has_its_senders_address() {
    let mut rig = rig_with_channel().await;
    assert_eq!(open(&mut rig, 2, channel(FUNCTIONAL)).await.action, "channelOpened");
    rig.send(2, PLAIN, &[0x22, 0xF1, 0x90]);
    rig.run(SECOND).await;
    let mut answers = rig.on(2);
    answers.sort_by_key(|got| format!("{got:?}"));
    let answer = |ecu: u16| Got::Pdu { address: u32::from(ecu), data: vec![0x62, 0xF1, 0x90] };
    assert_eq!(answers, [answer(ENGINE), answer(BRAKES)]);
    // a channel does not receive the answers to another channel's request
    rig.send(1, PLAIN, &[0x31, 1]);
    rig.run(SECOND).await;
    assert_eq!(rig.on(2).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refused_message_is_reported_with_the_meaning_of_the_code() {
    for (nack, detail) in [(0x02, 6), (0x03, 4), (0x04, 2), (0x05, 5), (0x06, 4), (0x07, 4), (0x08, 4)] {
        let mut rig = rig_with(Gateway { nack, ..vehicle() }).await;
        assert_eq!(open(&mut rig, 1, channel(ENGINE)).await.action, "channelOpened");
        rig.send(1, PLAIN, &[0x22, 1]);
        rig.send(1, CHAINED, &[0x22, 2]);
        rig.run(SECOND).await;
        let code = DiagnosticNackCode::from(nack);
        assert_eq!(
            rig.events(1),
            [(EventCode::SendFailed, detail, 0), (EventCode::ChainBroken, 0, 1)],
            "{code}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn chained_pdus_wait_for_each_other_and_cost_one_round_trip() {
    let mut rig = rig_with_channel().await;
    for block in 1..=20u8 {
        rig.send(1, if block == 1 { PLAIN } else { CHAINED }, &[0x36, block, 0, 0]);
    }
    assert!(rig.run_until(SECOND, |rig| rig.pdus(1).len() == 20).await);
    let requests = rig.gateways.requests();
    let blocks: Vec<u8> = requests.iter().map(|(_, _, _, data)| data[1]).collect();
    assert_eq!(blocks, (1..=20).collect::<Vec<_>>());
    for pair in requests.windows(2) {
        assert!(pair[1].0 - pair[0].0 >= 5 * MILLISECOND, "a block waits for the answer to the previous one");
    }
}

#[tokio::test(start_paused = true)]
async fn keep_alives_and_alive_checks_continue_without_the_operator() {
    let mut rig = rig_with(vehicle()).await;
    let mut config = channel(ENGINE);
    config["keep_alive"] = json!("enabled");
    assert_eq!(open(&mut rig, 1, config).await.action, "channelOpened");
    rig.cut();
    for _ in 0..10 {
        rig.gateways.act(Act::Send(Payload::AliveCheckRequest));
        rig.run(2 * SECOND).await;
    }
    let alive = rig.gateways.received();
    let alive = alive
        .iter()
        .filter(|payload| matches!(payload, Payload::AliveCheckResponse(tester) if tester.get() == TESTER));
    assert_eq!(alive.count(), 10);
    let presents = rig.gateways.requests();
    assert!((9..=10).contains(&presents.len()), "{presents:?}");
    assert!(presents.iter().all(|(_, _, target, data)| *target == ENGINE && *data == TESTER_PRESENT));
    rig.resume().await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 1]]);
}

#[tokio::test(start_paused = true)]
async fn tester_present_over_doip_waits_for_a_response_on_another_channel_to_its_ecu() {
    fn slow(request: &[u8]) -> Vec<(std::time::Duration, Vec<u8>)> {
        if request == TESTER_PRESENT {
            return Vec::new();
        }
        vec![(3 * SECOND, vec![0x7F, request[0], 0x78]), (6 * SECOND, vec![request[0] + 0x40, 1])]
    }
    let ecus: Vec<(u16, Answer)> = vec![(ENGINE, slow), (BRAKES, positive)];
    let mut rig = rig_with(Gateway { ecus, ..vehicle() }).await;
    for (number, ecu, keep_alive) in [(1, ENGINE, true), (2, ENGINE, false), (3, BRAKES, true)] {
        let mut config = channel(ecu);
        config["p2_ms"] = json!(5000);
        config["keep_alive"] = json!(if keep_alive { "enabled" } else { "disabled" });
        assert_eq!(open(&mut rig, number, config).await.action, "channelOpened");
    }
    let opened = rig.gateways.requests().len();
    rig.send(2, PLAIN, &[0x31, 1]);
    rig.run(5900 * MILLISECOND).await;
    let presents = |rig: &Rig, ecu| {
        let requests = rig.gateways.requests();
        requests[opened..].iter().filter(|request| request.2 == ecu && request.3 == TESTER_PRESENT).count()
    };
    assert_eq!((presents(&rig, ENGINE), presents(&rig, BRAKES)), (0, 2));
    rig.run(500 * MILLISECOND).await;
    assert_eq!(presents(&rig, ENGINE), 1, "the response has come");
}

#[tokio::test(start_paused = true)]
async fn a_lost_doip_connection_is_restored_and_waiting_pdus_are_sent() {
    let mut rig = rig_with_channel().await;
    rig.run(10 * SECOND).await;
    rig.cut();
    rig.gateways.act(Act::Close);
    rig.run(SECOND).await;
    assert!(rig.session.take_returned());
    assert_eq!(rig.gateways.activations(), 2, "routing was activated again without the operator");
    rig.resume().await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 1]]);
    let states: Vec<_> =
        rig.events(1).iter().filter(|event| event.0 == EventCode::BusState).cloned().collect();
    assert_eq!(states, [(EventCode::BusState, 2, 0), (EventCode::BusState, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_of_any_version_is_spoken_with_in_the_version_it_announced() {
    for version in [2, 3, 4, 5, 0xFE].map(ProtocolVersion::from) {
        let mut rig = rig_with(Gateway { version, ..vehicle() }).await;
        assert_eq!(open(&mut rig, 1, channel(ENGINE)).await.action, "channelOpened");
        rig.send(1, PLAIN, &[0x22, 1]);
        rig.run(SECOND).await;
        assert_eq!(rig.pdus(1), [[0x62, 1]], "{version}");
        assert!(rig.gateways.versions().iter().all(|received| *received == version), "{version}");
    }
}

/// A vehicle whose gateway is named by its address and answers nothing by UDP.
async fn rig_with_silent_host(gateway: Gateway) -> Rig {
    let mut rig = Rig::new();
    rig.gateways.name_host_of(&gateway);
    rig.gateways.set_silent(true);
    rig.gateways.set([gateway]);
    assert_eq!(rig.configure(json!([doip_bus(5)])).await.action, "busesConfigured");
    rig
}

#[tokio::test(start_paused = true)]
async fn a_named_gateway_that_is_silent_by_udp_is_connected_for_a_channel() {
    let mut rig = rig_with_silent_host(vehicle()).await;
    let since = now();
    assert_eq!(open(&mut rig, 1, channel(ENGINE)).await.action, "channelOpened");
    assert!((500 * MILLISECOND..600 * MILLISECOND).contains(&(now() - since)), "{:?}", now() - since);
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 1]]);
    // the gateway is known from now on
    let mut other = channel(ENGINE);
    other["tester_id"] = json!(0x0E81);
    let since = now();
    assert_eq!(open(&mut rig, 2, other).await.action, "channelOpened");
    assert!(now() - since < 100 * MILLISECOND);
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_that_is_another_gateway_is_reported_with_its_address() {
    let mut rig = rig_with_silent_host(vehicle()).await;
    let mut config = channel(ENGINE);
    config["gateway_id"] = json!(0x4011);
    let reply = open(&mut rig, 1, config).await;
    assert_eq!(problem(&reply), (404, "unknown-gateway".to_owned()));
    let detail = reply.message["detail"].as_str().unwrap();
    assert!(detail.contains("no gateway 0x4011") && detail.contains("0x4010 at 169.254.0.16"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_host_that_cannot_be_connected_is_reported_with_both_failures() {
    let mut rig = rig_with_silent_host(vehicle()).await;
    rig.gateways.set_unreachable(true);
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(problem(&reply), (504, "gateway-unreachable".to_owned()));
    let detail = reply.message["detail"].as_str().unwrap();
    assert!(detail.contains("refused") && detail.contains("does not identify itself by UDP"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_network_behind_a_silent_host_is_connected_again() {
    let mut rig = rig_with_silent_host(vehicle()).await;
    assert_eq!(open(&mut rig, 1, channel(ENGINE)).await.action, "channelOpened");
    rig.gateways.lose();
    rig.run(3 * SECOND).await;
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 1]]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_is_asked_for_as_long_as_its_channel_is_being_opened() {
    let mut rig = Rig::new();
    rig.gateways.set([vehicle()]);
    rig.gateways.set_silent(true);
    assert_eq!(rig.configure(json!([doip_bus(5)])).await.action, "busesConfigured");
    rig.run(1_200 * MILLISECOND).await;
    rig.ask("openChannel", json!({"channel": 1, "doip_channel": channel(ENGINE)}));
    rig.run(2 * SECOND).await;
    assert_eq!(rig.texts.len(), 1);
    rig.gateways.set_silent(false);
    assert!(rig.run_until(SECOND, |rig| rig.texts.len() > 1).await);
    assert_eq!(rig.texts[1].action, "channelOpened");
}

#[tokio::test(start_paused = true)]
async fn a_network_that_is_lost_and_returns_is_reported_by_two_states() {
    let mut rig = rig_with_channel().await;
    rig.run(SECOND).await;
    rig.gateways.lose();
    rig.run(500 * MILLISECOND).await;
    assert_eq!(rig.session.bus_reports()[0].state, "off");
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0)]);
    rig.run(3 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0), (EventCode::BusState, 0, 0)]);
    assert_eq!(rig.session.bus_reports()[0].state, "active");
    assert!(rig.session.take_returned());
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 1]]);
}

#[tokio::test(start_paused = true)]
async fn a_network_lost_after_its_connection_is_reported_as_off_once() {
    let mut rig = rig_with_channel().await;
    rig.run(SECOND).await;
    rig.gateways.set_unreachable(true);
    rig.gateways.act(Act::Close);
    rig.run(2 * SECOND).await;
    rig.gateways.lose();
    rig.run(3 * SECOND).await;
    // the network is back, its gateway is not
    assert_eq!(rig.session.bus_reports()[0].state, "off");
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0)]);
    rig.gateways.set_unreachable(false);
    rig.run(3 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0), (EventCode::BusState, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_returns_later_than_its_network_is_found_without_announcement() {
    let mut rig = rig_with_channel().await;
    rig.gateways.set_silent(true);
    rig.gateways.lose();
    rig.run(20 * SECOND).await;
    rig.gateways.set_silent(false);
    rig.run(6 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0), (EventCode::BusState, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn two_gateways_with_one_address_are_refused_by_an_error_that_names_both() {
    let mut rig = Rig::new();
    rig.gateways.set([vehicle(), Gateway { host: 99, ..vehicle() }]);
    assert_eq!(rig.configure(json!([doip_bus(5)])).await.action, "busesConfigured");
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(problem(&reply), (404, "unknown-gateway".to_owned()));
    let detail = reply.message["detail"].as_str().unwrap();
    for part in ["2 gateways have the address 0x4010", "169.254.0.16", "169.254.0.99", "636363636363"] {
        assert!(detail.contains(part), "{detail}");
    }
    assert_eq!(rig.gateways.connects(), [] as [bool; 0]);
}

#[tokio::test(start_paused = true)]
async fn another_gateway_with_the_same_address_does_not_take_over_a_channel() {
    let mut rig = rig_with_channel().await;
    rig.run(SECOND).await;
    // another vehicle's gateway answers on the network that returns
    rig.gateways.set([Gateway { host: 99, ..vehicle() }]);
    rig.gateways.lose();
    rig.run(10 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0)]);
    assert_eq!(rig.gateways.activations(), 1);
    rig.gateways.set([vehicle()]);
    rig.run(10 * SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::BusState, 2, 0), (EventCode::BusState, 0, 0)]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_that_refuses_questions_is_named_with_its_code() {
    let mut rig = rig_with(Gateway { udp_refusal: Some(0x03), ..vehicle() }).await;
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    assert_eq!(problem(&reply), (404, "unknown-gateway".to_owned()));
    let detail = reply.message["detail"].as_str().unwrap();
    assert!(detail.contains("169.254.0.16:13400 refuses questions by UDP: out of memory (0x03)"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_gateway_whose_answers_cannot_be_read_is_named_with_the_reason() {
    let mut rig = rig_with(Gateway { version: ProtocolVersion::from(0), ..vehicle() }).await;
    let reply = open(&mut rig, 1, channel(ENGINE)).await;
    let detail = reply.message["detail"].as_str().unwrap();
    assert!(detail.contains("169.254.0.16:13400 sends what is not DoIP: protocol version 0x00"), "{detail}");
}

#[tokio::test(start_paused = true)]
async fn a_scan_covers_a_named_gateway_that_is_silent_by_udp() {
    let mut rig = rig_with_silent_host(vehicle()).await;
    rig.ask("scanEcus", json!({"bus_name": "ETH", "vehicle_stands": true}));
    assert!(rig.run_until(60 * SECOND, |rig| rig.texts.len() > 1).await);
    let reply = &rig.texts[1];
    assert_eq!(reply.action, "ecusFound", "{reply:?}");
    assert_eq!(reply.message["ecus"].as_array().unwrap().len(), 2, "{reply:?}");
}

/// The texts of the bus-state events, in order.
fn state_texts(rig: &Rig) -> Vec<String> {
    let mut texts = Vec::new();
    for message in &rig.messages {
        let header = Header::decode(message).unwrap();
        for record in Records::new(message, &header) {
            if let RecordPayload::Event { code: EventCode::BusState, text, .. } = record.unwrap().payload {
                texts.push(text.to_owned());
            }
        }
    }
    texts
}

#[tokio::test(start_paused = true)]
async fn the_event_of_a_lost_connection_names_the_reason() {
    for (act, reason) in [
        (Act::Close, "the gateway closed the connection"),
        (Act::SendBytes(b"\xFF\x00\x00\x07\x00\x00\x00\x00".to_vec()), "protocol version 0xFF"),
        (Act::SendBytes(b"\x02\xFD\x80\x01\xFF\xFF\xFF\xFF".to_vec()), "a message of 4294967295 bytes"),
    ] {
        let mut rig = rig_with_channel().await;
        rig.run(SECOND).await;
        rig.gateways.act(act);
        rig.run(SECOND).await;
        let texts = state_texts(&rig);
        assert!(texts.len() == 2 && texts[0].contains(reason), "{texts:?}");
        assert_eq!(texts[1], "routing is active again");
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_gateway_pdus_fail_in_2_s_and_it_is_retried_every_second() {
    let mut rig = rig_with_channel().await;
    rig.run(SECOND).await;
    rig.gateways.set_unreachable(true);
    rig.gateways.act(Act::Close);
    rig.run(SECOND).await;
    assert_eq!(rig.session.bus_reports()[0].state, "off");
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(1_900 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 3), 0);
    rig.run(200 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 3), 1);
    rig.gateways.set_unreachable(false);
    rig.run(2 * SECOND).await;
    assert_eq!(rig.session.bus_reports()[0].state, "active");
    rig.send(1, PLAIN, &[0x22, 2]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 2]], "the failed PDU is not sent later");
}

#[tokio::test(start_paused = true)]
async fn a_request_lost_with_its_connection_fails_and_is_not_repeated() {
    let mut rig = rig_with(Gateway { ecus: vec![(ENGINE, |_| Vec::new())], ..vehicle() }).await;
    assert_eq!(open(&mut rig, 1, channel(ENGINE)).await.action, "channelOpened");
    rig.run(SECOND).await;
    // the gateway neither acknowledges nor answers the request, because the connection ends
    rig.gateways.act(Act::SendBytes(b"\x02\xFD\x80\x01\xFF\xFF\xFF\xFF".to_vec()));
    rig.send(1, PLAIN, &[0x31, 1]);
    rig.run(3 * SECOND).await;
    assert!(rig.gateways.activations() >= 2, "a length of 4 GiB ends the connection");
    assert!(rig.gateways.requests().len() <= 1);
}

#[tokio::test(start_paused = true)]
async fn a_flood_from_the_gateway_is_bounded_and_leaves_the_channel_usable() {
    let mut rig = rig_with_channel().await;
    let alive = b"\x02\xFD\x00\x07\x00\x00\x00\x00".repeat(5_000);
    let nacks = b"\x02\xFD\x00\x00\x00\x00\x00\x01\x03".repeat(5_000);
    let strangers = b"\x02\xFD\x80\x01\x00\x00\x00\x06\x55\x55\x0E\x80\x7E\x00".repeat(5_000);
    for flood in [alive, nacks, strangers] {
        rig.gateways.act(Act::SendBytes(flood));
    }
    rig.run(SECOND).await;
    assert_eq!(rig.on(1), []);
    rig.send(1, PLAIN, &[0x22, 1]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 1]]);
}

#[tokio::test(start_paused = true)]
async fn a_gateway_faster_than_the_operator_is_slowed_down_without_loss() {
    let mut rig = rig_with_channel().await;
    let (count, length) = (1_500u32, 4_000);
    let mut flood = Vec::new();
    for number in 0..count {
        let mut data = vec![0x62; length];
        data[1..5].copy_from_slice(&number.to_be_bytes());
        let (source, target) = (ENGINE.into(), TESTER.into());
        let message = DiagnosticMessage { source, target, data };
        flood.extend(Message::new(ProtocolVersion::V2012, message).encode().unwrap());
    }
    rig.operator_reads = false;
    rig.gateways.act(Act::SendBytes(flood));
    rig.run(10 * SECOND).await;
    assert_eq!(rig.session.closed(), None);
    // one answer per possible alive check: T_TCP_Alive_Check is half a second
    let alive = rig.gateways.received();
    let alive = alive.iter().filter(|payload| matches!(payload, Payload::AliveCheckResponse(_))).count();
    assert!(alive >= 20, "{alive}");
    // requests are still sent, and are not reported as lost although their acknowledgements are unread
    rig.send(1, CONFIRM, &[0x22, 1]);
    rig.run(5 * SECOND).await;
    assert_eq!(rig.gateways.requests().len(), 1);
    rig.operator_reads = true;
    let all = count as usize + 1;
    assert!(rig.run_until(60 * SECOND, |rig| rig.pdus(1).len() == all).await, "{}", rig.pdus(1).len());
    let pdus = rig.pdus(1);
    for (number, pdu) in (0..count).zip(&pdus) {
        assert_eq!(pdu[1..5], number.to_be_bytes());
    }
    assert_eq!(pdus[all - 1], [0x62, 1]);
    assert_eq!(rig.count(1, EventCode::Sent, 0), 1);
    assert_eq!(rig.gateways.connects().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn messages_that_arrive_byte_by_byte_are_decoded() {
    let mut rig = rig_with_channel().await;
    for byte in b"\x02\xFD\x80\x01\x00\x00\x00\x07\x40\x20\x0E\x80\x62\xF1\x90" {
        rig.gateways.act(Act::SendBytes(vec![*byte]));
        rig.run(MILLISECOND).await;
    }
    assert_eq!(rig.pdus(1), [[0x62, 0xF1, 0x90]]);
}

#[tokio::test(start_paused = true)]
async fn closing_the_last_channel_closes_the_doip_connection() {
    let mut rig = rig_with_channel().await;
    assert_eq!(open(&mut rig, 2, channel(BRAKES)).await.action, "channelOpened");
    assert_eq!(rig.request("closeChannel", json!({"channel": 1})).await.action, "channelClosed");
    rig.send(2, PLAIN, &[0x22, 2]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(2), [[0x62, 2]]);
    assert_eq!(rig.request("closeChannel", json!({"channel": 2})).await.action, "channelClosed");
    assert_eq!(open(&mut rig, 2, channel(BRAKES)).await.action, "channelOpened");
    assert_eq!(rig.gateways.connects().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn the_vin_is_read_beside_the_channels_and_the_end_restores_the_default_session() {
    let mut rig = rig_with_channel().await;
    assert!(rig.session.start_reading_vin(now(), 1500 * MILLISECOND, VinTrigger::Request));
    rig.run(2 * SECOND).await;
    let report = rig.session.poll_vin(now()).expect("a report");
    assert_eq!(report.vin.unwrap().as_str(), "WVWZZZ1KZ6W000001");
    assert_eq!(serde_json::to_value(&report).unwrap()["source"], "doip");
    assert_eq!(report.address.unwrap().to_string(), "0x4010");
    rig.send(1, PLAIN, &[0x10, 0x03]);
    rig.run(SECOND).await;
    rig.session.return_to_default_sessions(now());
    assert!(rig.run_until(SECOND, |rig| rig.session.is_quiet()).await);
    assert_eq!(rig.gateways.requests().last().unwrap().3, [0x10, 0x01]);
}
