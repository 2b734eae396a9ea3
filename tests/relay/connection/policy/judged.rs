//! Requests and PDUs are judged, on every kind of channel, when they arrive and when their turn comes.

use connector_agent::relay::wire::codec::SendFailedDetail;
use connector_hal::timer::TimerKind;
use connector_sim::vehicle::Tp20EcuConfig;
use connector_sim::vehicle::kline::{AnswerScript, KlineEcuConfig, KlineVehicle};

use super::*;

/// Sends a read and an intrusive PDU on a channel of a moving vehicle; then, in the standing one, the intrusive PDU.
async fn check(rig: &mut Rig, drive: &Drive, channel: u16, read: &[u8], intrusive: &[u8]) {
    set_speed(rig, drive, 12.0).await;
    rig.event_texts.clear();
    rig.send(channel, PLAIN, intrusive);
    rig.send(channel, CHAINED, read);
    rig.run(SECOND).await;
    assert_eq!(refusals(rig, channel), [0], "{:?}", rig.on(channel));
    assert_eq!(rig.count(channel, EventCode::ChainBroken, 0), 1, "{:?}", rig.on(channel));
    let text = &rig.event_texts[0];
    assert!(
        text.starts_with("policy: moving (12 km/h): ") && text.ends_with("stop the vehicle and send again"),
        "{text}"
    );
    assert_eq!(rig.pdus(channel).len(), 0, "no answer is invented");
    rig.send(channel, PLAIN, read);
    assert!(rig.run_until(5 * SECOND, |rig| rig.pdus(channel).len() == 1).await, "{:?}", rig.on(channel));
    set_speed(rig, drive, 0.0).await;
    rig.send(channel, PLAIN, intrusive);
    assert!(rig.run_until(5 * SECOND, |rig| rig.pdus(channel).len() == 2).await, "{:?}", rig.on(channel));
    assert_eq!(refusals(rig, channel), [0], "{:?}", rig.on(channel));
}

#[tokio::test(start_paused = true)]
async fn intrusive_pdus_on_isotp_are_refused_while_the_vehicle_moves() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    check(&mut rig, &drive, 1, &READ, &WRITE).await;
    assert_eq!(ecu.requests(), [READ.to_vec(), WRITE.to_vec()]);
    assert_eq!(rig.event_texts[0], MOVING);
}

#[tokio::test(start_paused = true)]
async fn functional_channels_with_an_address_byte_hide_no_request() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let node = Node::attach(&rig.buses[0]);
    set_speed(&mut rig, &drive, 12.0).await;
    let config = json!({"bus_name": "HS", "request_id": 0x7DF, "extended_request_address": 1});
    rig.open(1, "isotp_channel", config).await;
    // without the address byte: 01 04 clears the trouble codes
    rig.send(1, PLAIN, &[0x22, 0xF1, 0x90, 0]);
    rig.run(SECOND).await;
    assert_eq!((refusals(&rig, 1), node.single_frames(0x7DF).len()), (vec![0], 0));
    // the flow control to a listed ECU reads as 04 30 02 03: control of an output
    let listed = json!([{"response_id": 0x77E, "request_id": 0x714, "extended_request_address": 3}]);
    let config =
        json!({"bus_name": "HS", "request_id": 0x700, "response_ids": listed, "block_size": 2, "st_min": 3});
    let reply = rig.open(2, "isotp_channel", config).await;
    assert_eq!(problem(&reply), (403, "refused-by-policy".to_owned()), "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn intrusive_pdus_on_tp20_are_refused_while_the_vehicle_moves() {
    let mut rig = Rig::with_policy(by_signal(&json!({})));
    let (drive, _brakes) = brakes(&rig);
    let record = VehicleRecord { ecus: Vec::new(), ..connector_test_support::data::golf().record };
    let config = VehicleConfig { tp20: Tp20EcuConfig::golf(), ..VehicleConfig::new(record) };
    let vehicle = Vehicle::start(&config, &rig.buses[0]);
    let mut bus = hs();
    bus["can_bus"]["can_protocol"] = json!("tp20");
    assert_eq!(rig.configure(json!([bus])).await.action, "busesConfigured");
    let reply = rig.open(1, "tp20_channel", json!({"bus_name": "HS", "logical_address": 1})).await;
    assert_eq!(reply.action, "channelOpened", "{reply:?}");
    check(&mut rig, &drive, 1, &[0x10, 0x01], &[0x14, 0xFF, 0xFF, 0xFF]).await;
    vehicle.stop().await;
}

#[tokio::test(start_paused = true)]
async fn intrusive_pdus_on_a_k_line_are_refused_while_the_vehicle_moves() {
    let mut rig = Rig::with_policy(by_signal(&json!({})));
    let (drive, _brakes) = brakes(&rig);
    let ecu =
        KlineEcuConfig { tolerance: 3 * MILLISECOND, functions: Vec::new(), ..KlineEcuConfig::new(0x11) };
    let vehicle = KlineVehicle::start(&[ecu], &rig.kline, TimerKind::Runtime);
    assert_eq!(rig.configure(json!([hs(), kline_bus("iso14230_fast")])).await.action, "busesConfigured");
    let before = rig.texts.len();
    rig.ask("openChannel", json!({"channel": 1, "kline_channel": {"bus_name": "K", "ecu_id": 0x11}}));
    let is_open = |rig: &Rig| rig.texts[before..].iter().any(|text| text.action == "channelOpened");
    assert!(rig.run_until(20 * SECOND, is_open).await);
    check(&mut rig, &drive, 1, &[0x1A, 0x90], &[0x14, 0xFF, 0x00]).await;
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn the_speed_that_an_ecu_on_a_k_line_reports_to_the_operator_is_motion() {
    let mut rig = Rig::with_policy(json!({}));
    let speed = AnswerScript::new(&[0x01, 0x0D], &[vec![0x41, 0x0D, 50]]);
    let ecu =
        KlineEcuConfig { tolerance: 3 * MILLISECOND, scripts: vec![speed], ..KlineEcuConfig::new(0x11) };
    let vehicle = KlineVehicle::start(&[ecu], &rig.kline, TimerKind::Runtime);
    assert_eq!(rig.configure(json!([kline_bus("iso14230_fast")])).await.action, "busesConfigured");
    rig.ask("openChannel", json!({"channel": 1, "kline_channel": {"bus_name": "K", "ecu_id": 0x11}}));
    let is_open = |rig: &Rig| rig.texts.iter().any(|text| text.action == "channelOpened");
    assert!(rig.run_until(20 * SECOND, is_open).await);
    let clear = [0x14, 0xFF, 0x00];
    rig.send(1, PLAIN, &clear);
    assert!(rig.run_until(5 * SECOND, |rig| rig.pdus(1).len() == 1).await, "the speed is unknown");
    rig.send(1, PLAIN, &[0x01, 0x0D]);
    assert!(rig.run_until(5 * SECOND, |rig| rig.pdus(1).len() == 2).await, "{:?}", rig.on(1));
    rig.send(1, PLAIN, &clear);
    rig.run(SECOND).await;
    assert_eq!(refusals(&rig, 1), [0]);
    assert!(rig.event_texts[0].starts_with("policy: moving (50 km/h): "), "{:?}", rig.event_texts);
    assert_eq!((rig.pdus(1).len(), vehicle.anomalies()), (2, vec![]));
}

#[tokio::test(start_paused = true)]
async fn intrusive_pdus_on_doip_are_refused_while_the_vehicle_moves() {
    let mut rig = Rig::with_policy(by_signal(&json!({})));
    let (drive, _brakes) = brakes(&rig);
    let gateway = Gateway { ecus: vec![(0x4020, positive)], ..Gateway::new(0x4010) };
    rig.gateways.set([gateway]);
    assert_eq!(rig.configure(json!([hs(), doip_bus(5)])).await.action, "busesConfigured");
    let config = json!({"bus_name": "ETH", "gateway_id": 0x4010, "tester_id": 0x0E80, "ecu_id": 0x4020,
                        "keep_alive": "disabled"});
    let before = rig.texts.len();
    rig.ask("openChannel", json!({"channel": 1, "doip_channel": config}));
    let is_open = |rig: &Rig| rig.texts[before..].iter().any(|text| text.action == "channelOpened");
    assert!(rig.run_until(20 * SECOND, is_open).await);
    check(&mut rig, &drive, 1, &READ, &WRITE).await;
    let requests: Vec<Vec<u8>> = rig.gateways.requests().into_iter().map(|request| request.3).collect();
    assert_eq!(requests, [READ.to_vec(), WRITE.to_vec()]);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_the_rule_that_refuses_is_in_the_event() {
    let rules =
        json!([{"services": [0x11], "require": ["never"]}, {"services": [0x2E], "require": ["not-moving"]}]);
    let (mut rig, drive, _vehicle) = standing(&json!({"rule": rules})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.send(1, PLAIN, &[0x11, 0x01]);
    rig.send(1, PLAIN, &WRITE);
    rig.send(1, PLAIN, &[0x31, 0x01, 0x02, 0x03]);
    rig.run(100 * MILLISECOND).await;
    assert_eq!(refusals(&rig, 1), [1, 2, 0]);
    let never = "policy: never allowed: ECUReset is refused; the connector's configuration has to allow it";
    assert_eq!(rig.event_texts[..2], [never, MOVING]);
    assert_eq!(ecu.requests().len(), 0);
    assert_eq!(state(&rig).refused, 3);
}

#[tokio::test(start_paused = true)]
async fn a_pdu_that_waits_is_judged_again_when_its_turn_comes() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let slow = |request: &[u8]| vec![(500 * MILLISECOND, vec![request[0] + 0x40, request[1]])];
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, slow);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &READ);
    rig.send(1, CHAINED, &WRITE);
    rig.send(1, CHAINED, &READ);
    rig.run(100 * MILLISECOND).await;
    assert_eq!(refusals(&rig, 1), [0; 0], "it was allowed when it arrived");
    set_speed(&mut rig, &drive, 12.0).await;
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [READ]);
    assert_eq!(refusals(&rig, 1), [0]);
    assert_eq!(rig.event_texts[0], MOVING);
    assert_eq!(rig.count(1, EventCode::ChainBroken, 0), 1);
}

#[tokio::test(start_paused = true)]
async fn motion_does_not_cut_a_download_and_refuses_the_next_one() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.send(1, CHAINED, &[0x34, 0x00, 0x44, 0, 0, 0, 0, 0, 0, 1, 0]);
    rig.send(1, CHAINED, &[0x36, 1, 0xAA]);
    rig.run(SECOND).await;
    set_speed(&mut rig, &drive, 12.0).await;
    for block in 2..40 {
        rig.send(1, PLAIN, &[0x36, block, 0xAA]);
        rig.run(100 * MILLISECOND).await;
    }
    rig.send(1, PLAIN, &[0x37]);
    rig.run(SECOND).await;
    assert_eq!(refusals(&rig, 1), [0; 0], "{:?}", rig.event_texts);
    assert_eq!(ecu.requests().len(), 3 + 38 + 1);

    for request in
        [&[0x34, 0x00, 0x44, 0, 0, 0, 0, 0, 0, 1, 0][..], &[0x36, 1], &[0x10, 0x02], &[0x31, 1, 0xFF, 0]]
    {
        rig.send(1, PLAIN, request);
    }
    rig.run(SECOND).await;
    assert_eq!(refusals(&rig, 1), [0; 4]);
    assert_eq!(ecu.requests().len(), 42, "nothing of it reached the ECU");
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_rule_refuses_has_status_403_and_says_why() {
    let rules = json!([
        {"bus": "HS", "ids": [0x7E0], "require": ["never"]},
        {"bus": "LS", "require": ["not-moving"]},
    ]);
    let (mut rig, drive, _vehicle) = standing(&json!({"rule": rules})).await;
    let isotp = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": 0x7E8});
    let reply = rig.open(1, "isotp_channel", isotp).await;
    assert_eq!(problem(&reply), (403, "refused-by-policy".to_owned()));
    let never =
        "policy: never allowed: opening a channel is refused; the connector's configuration has to allow it.";
    assert_eq!(
        (&reply.message["detail"], &reply.message["in_reply_to"]),
        (&json!(never), &json!("openChannel"))
    );
    let other = json!({"bus_name": "HS", "request_id": 0x7E1, "response_id": 0x7E9});
    assert_eq!(rig.open(1, "isotp_channel", other).await.action, "channelOpened");

    set_speed(&mut rig, &drive, 12.0).await;
    let scan = json!({"bus_name": "HS", "vehicle_stands": true});
    let reply = next_reply(&mut rig, "scanEcus", scan.clone()).await;
    assert_eq!(problem(&reply), (403, "refused-by-policy".to_owned()));
    let moving =
        "policy: moving (12 km/h): a search for all ECUs is refused; stop the vehicle and send again.";
    assert_eq!(reply.message["detail"], moving);
    let mut ls = hs();
    ls["can_bus"]["pin_plus"] = json!(3);
    ls["can_bus"]["pin_min"] = json!(11);
    let reply = next_reply(&mut rig, "configureBuses", json!({"buses": [ls]})).await;
    assert_eq!(problem(&reply), (403, "refused-by-policy".to_owned()));

    set_speed(&mut rig, &drive, 0.0).await;
    let reply = next_reply(&mut rig, "scanEcus", scan).await;
    assert_eq!(reply.action, "ecusFound", "{reply:?}");
}

/// The next reply that is no report of the policy.
async fn next_reply(rig: &mut Rig, action: &str, message: Value) -> connector_agent::relay::wire::Envelope {
    let replies =
        |rig: &Rig| rig.texts.iter().filter(|text| text.action != "policyState").cloned().collect::<Vec<_>>();
    let before = replies(rig).len();
    rig.ask(action, message);
    assert!(rig.run_until(30 * SECOND, |rig| replies(rig).len() > before).await, "{action} is not answered");
    replies(rig)[before].clone()
}

#[tokio::test(start_paused = true)]
async fn the_mode_observe_refuses_nothing_and_counts() {
    let (mut rig, drive, _vehicle) = standing(&json!({"mode": "observe"})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    set_speed(&mut rig, &drive, 12.0).await;
    rig.send(1, PLAIN, &WRITE);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [WRITE]);
    assert_eq!((refusals(&rig, 1), rig.pdus(1).len()), (vec![], 1));
    let state = state(&rig);
    assert_eq!((state.motion, state.refused), ("moving", 1), "one intent counts once");
}

#[tokio::test(start_paused = true)]
async fn a_speed_that_was_lost_while_moving_counts_as_motion_for_ninety_seconds() {
    let (mut rig, drive, _vehicle) = standing(&json!({})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    set_speed(&mut rig, &drive, 80.0).await;
    drive.set_abs(false);
    rig.run(3 * SECOND).await;
    assert_eq!(state(&rig).motion, "unknown");
    rig.send(1, PLAIN, &WRITE);
    rig.run(SECOND).await;
    assert_eq!(refusals(&rig, 1), [0]);
    assert!(
        rig.event_texts[0].starts_with("policy: speed unknown since moving (80 km/h): "),
        "{:?}",
        rig.event_texts
    );
    rig.run(90 * SECOND).await;
    rig.send(1, PLAIN, &WRITE);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [WRITE]);
}

#[tokio::test(start_paused = true)]
async fn a_weak_battery_refuses_programming_and_neither_reading_nor_writing() {
    let (mut rig, _drive, _vehicle) = standing(&json!({})).await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({"keep_alive": "disabled"})).await;
    rig.session.handle_voltage(now(), Some(11.4));
    for request in [&READ[..], &WRITE, &[0x10, 0x02], &[0x34, 0, 0x44, 0, 0, 0, 0, 0, 0, 1, 0]] {
        rig.send(1, PLAIN, request);
        rig.run(100 * MILLISECOND).await;
    }
    assert_eq!(ecu.requests(), [READ.to_vec(), WRITE.to_vec()]);
    assert_eq!(refusals(&rig, 1), [0, 0]);
    let text = "policy: 11.4 V: programmingSession is refused; connect a charger and send again";
    assert_eq!(rig.event_texts[0], text);

    // the charger
    for _ in 0..7 {
        rig.session.handle_voltage(now(), Some(12.8));
        rig.run(SECOND).await;
    }
    rig.send(1, PLAIN, &[0x10, 0x02]);
    rig.run(SECOND).await;
    assert_eq!(ecu.requests().len(), 3);
    assert_eq!(rig.count(1, EventCode::SendFailed, SendFailedDetail::RefusedByPolicy as u16), 2);
}
