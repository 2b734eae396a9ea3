//! `configureBuses`.

use connector_agent::relay::connection::VinTrigger;
use serde_json::{Value, json};

use super::common::*;

fn can(name: &str, pins: [u8; 2], more: Value) -> Value {
    let mut can = json!({"pin_plus": pins[0], "pin_min": pins[1], "can_bit_rate": 500_000});
    more.as_object().unwrap().iter().for_each(|(key, value)| can[key] = value.clone());
    json!({"bus_name": name, "can_bus": can})
}

const HS: [u8; 2] = [6, 14];
const MS: [u8; 2] = [3, 11];

#[tokio::test(start_paused = true)]
async fn buses_are_configured_and_named_in_the_reply() {
    let mut rig = Rig::new();
    let reply = rig.configure(json!([can("HS", HS, json!({})), can("MS", MS, json!({}))])).await;
    assert_eq!(reply.action, "busesConfigured");
    assert_eq!(reply.message, json!({"connection_uuid": UUID, "buses": ["HS", "MS"]}));
    let names: Vec<_> = rig.session.bus_reports().into_iter().map(|bus| (bus.bus_name, bus.state)).collect();
    assert_eq!(names, [("HS".to_owned(), "active"), ("MS".to_owned(), "active")]);
}

#[tokio::test(start_paused = true)]
async fn exactly_the_bit_rates_of_the_relay_protocol_are_accepted() {
    let rates = [
        1_000_000, 500_000, 250_000, 125_000, 100_000, 94_000, 83_300, 50_000, 33_300, 20_000, 10_000, 5_000,
    ];
    for rate in rates {
        let bus = connector_hal::can::virtual_bus::VirtualBusConfig { bit_rate: rate, ..Default::default() };
        let mut rig = Rig::with_bus(bus);
        let reply = rig.configure(json!([can("HS", HS, json!({ "can_bit_rate": rate }))])).await;
        assert_eq!(reply.action, "busesConfigured", "{rate}");
        // the ECU answers because the bit rate is that of the bus
        let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
        rig.open_isotp(1, json!({})).await;
        rig.send(1, PLAIN, &[0x3E, 0]);
        assert!(rig.run_until(SECOND, |rig| rig.pdus(1) == [[0x7E, 0]]).await, "{rate}");
    }
    for rate in [0, 1, 499_999, 800_000, 2_000_000, 33_333] {
        let mut rig = Rig::new();
        let reply = rig.configure(json!([can("HS", HS, json!({ "can_bit_rate": rate }))])).await;
        assert_eq!(problem(&reply), (400, "invalid-message".to_owned()), "{rate}");
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_may_be_strings() {
    let mut rig = Rig::new();
    let bus =
        json!({"bus_name": "HS", "can_bus": {"pin_plus": "6", "pin_min": "0x0E", "can_bit_rate": "500000"}});
    assert_eq!(rig.configure(json!([bus])).await.action, "busesConfigured");
    let node = Node::attach(&rig.buses[0]);
    let channel = json!({"channel": "0x3", "max_age_ms": "400",
        "isotp_channel": {"bus_name": "HS", "request_id": "0x7E0", "response_id": "2024", "padding_byte": "0x55"}});
    let reply = rig.request("openChannel", channel).await;
    assert_eq!(reply.message, json!({"connection_uuid": UUID, "channel": 3}), "{reply:?}");
    rig.send(3, PLAIN, &[0x3E, 0]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x7E0, &[2, 0x3E, 0, 0x55, 0x55, 0x55, 0x55, 0x55])]);
}

#[tokio::test(start_paused = true)]
async fn optional_fields_may_be_null() {
    let mut rig = Rig::new();
    let more = json!({"can_protocol": null, "transceiver": null, "data_bit_rate": null});
    let mut bus = can("HS", HS, more);
    bus["kline_bus"] = Value::Null;
    bus["doip_bus"] = Value::Null;
    let reply = rig.configure(json!([bus])).await;
    assert_eq!(reply.action, "busesConfigured", "{reply:?}");
    let isotp = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": null, "response_ids": null,
        "extended_request_address": null, "extended_response_address": null, "padding": null,
        "padding_byte": null, "keep_alive": null, "block_size": null, "st_min": null, "max_age_ms": null});
    let reply = rig
        .request(
            "openChannel",
            json!({"channel": 1, "isotp_channel": isotp, "raw_channel": null,
            "tp20_channel": null, "kline_channel": null, "doip_channel": null, "max_age_ms": null}),
        )
        .await;
    assert_eq!(reply.action, "channelOpened", "{reply:?}");
    let raw = json!({"bus_name": "HS", "request_id": null, "response_id": null});
    let reply =
        rig.request("openChannel", json!({"channel": 2, "raw_channel": raw, "isotp_channel": null})).await;
    assert_eq!(reply.action, "channelOpened", "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn unknown_fields_are_ignored() {
    let mut rig = Rig::new();
    let mut bus = can("HS", HS, json!({"termination": "120 ohm"}));
    bus["colour"] = json!("green");
    assert_eq!(rig.configure(json!([bus])).await.action, "busesConfigured");
}

#[tokio::test(start_paused = true)]
async fn configuring_replaces_all_buses_and_closes_their_channels() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    let reply = rig.configure(json!([can("MS", MS, json!({}))])).await;
    assert_eq!(reply.message["buses"], json!(["MS"]));
    rig.send(1, PLAIN, &[0x3E, 0]);
    rig.run(5 * SECOND).await;
    assert_eq!(node.frames(), [], "neither the PDU nor a keep-alive goes to the old bus");
    let closed = connector_agent::relay::wire::codec::EventCode::SendFailed;
    assert_eq!(rig.events(1), [(closed, 7, 0)]);
    let reply = rig.open(2, "raw_channel", json!({"bus_name": "HS"})).await;
    assert_eq!(problem(&reply), (404, "unknown-bus".to_owned()));
    // the number is free again
    let reply = rig.open(1, "raw_channel", json!({"bus_name": "MS"})).await;
    assert_eq!(reply.action, "channelOpened");
}

#[tokio::test(start_paused = true)]
async fn no_buses_at_all_may_be_configured() {
    let mut rig = Rig::configured().await;
    let reply = rig.configure(json!([])).await;
    assert_eq!(reply.message["buses"], json!([]));
    assert!(rig.session.bus_reports().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unsupported_bus_configuration_is_refused_and_the_buses_remain() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, positive);
    rig.open_isotp(1, json!({})).await;
    let kline = json!({"bus_name": "K", "kline_bus": {"pin": 16, "kline_protocol": "iso14230_fast", "kline_bit_rate": 10400}});
    let doip = json!({"bus_name": "E", "doip_bus": {"doip_option": 1, "doip_network_configuration": 5}});
    let terminal15 = json!({"bus_name": "T", "terminal15_bus": {"pin": 16}});
    for (buses, expected) in [
        (json!([can("A", [1, 9], json!({}))]), (404, "unknown-pins")),
        (json!([can("A", [14, 6], json!({}))]), (404, "unknown-pins")),
        (json!([can("A", HS, json!({})), can("A", MS, json!({}))]), (400, "invalid-message")),
        (json!([can("A", HS, json!({})), can("B", HS, json!({}))]), (409, "pins-in-use")),
        (json!([can("A", MS, json!({"data_bit_rate": 2_000_000}))]), (501, "unsupported")),
        (json!([can("A", HS, json!({"data_bit_rate": 100_000}))]), (400, "invalid-message")),
        (json!([can("A", HS, json!({"data_bit_rate": 9_000_000}))]), (400, "invalid-message")),
        (json!([can("A", HS, json!({"can_protocol": "tp16"}))]), (400, "invalid-message")),
        (json!([can("A", HS, json!({"can_protocol": "j1939"}))]), (400, "invalid-message")),
        (json!([can("A", HS, json!({"transceiver": "low"}))]), (501, "unsupported")),
        (json!([can("A", HS, json!({"pin_plus": 300}))]), (400, "invalid-message")),
        (json!([can("A", HS, json!({"pin_plus": "six"}))]), (400, "invalid-message")),
        (json!([can("A", HS, json!({"can_bit_rate": -5}))]), (400, "invalid-message")),
        (json!([can("", HS, json!({}))]), (400, "invalid-message")),
        (json!([can(&"x".repeat(65), HS, json!({}))]), (400, "invalid-message")),
        (json!([{"bus_name": "A"}]), (400, "invalid-message")),
        (json!([kline]), (404, "unknown-pins")),
        (json!([doip]), (404, "unknown-pins")),
        (json!([terminal15]), (404, "unknown-pins")),
        (
            json!((0..17).map(|n| can(&n.to_string(), HS, json!({}))).collect::<Vec<_>>()),
            (400, "invalid-message"),
        ),
        (json!("HS"), (400, "invalid-message")),
        (json!(null), (400, "invalid-message")),
    ] {
        let reply = rig.configure(buses.clone()).await;
        assert_eq!(problem(&reply), (expected.0, expected.1.to_owned()), "{buses}");
        assert_eq!(reply.message["in_reply_to"], "configureBuses");
    }
    rig.send(1, PLAIN, &[0x10, 1]);
    assert!(rig.run_until(SECOND, |rig| rig.pdus(1) == [[0x50, 1]]).await, "the channel still works");
    assert_eq!(ecu.requests(), [[0x10, 1]]);
}

#[tokio::test(start_paused = true)]
async fn requests_after_configure_buses_wait_for_the_configuration() {
    let mut rig = Rig::new();
    rig.ask("configureBuses", json!({"buses": [hs()]}));
    rig.ask("openChannel", json!({"channel": 1, "raw_channel": {"bus_name": "HS"}}));
    rig.ask("closeChannel", json!({"channel": 1}));
    rig.run(SECOND).await;
    let actions: Vec<_> = rig.texts.iter().map(|text| text.action.as_str()).collect();
    assert_eq!(actions, ["busesConfigured", "channelOpened", "channelClosed"]);
}

#[tokio::test(start_paused = true)]
async fn a_flood_of_requests_after_configure_buses_is_bounded() {
    let mut rig = Rig::new();
    rig.ask("configureBuses", json!({"buses": [hs()]}));
    for _ in 0..10_000 {
        rig.ask("closeChannel", json!({"channel": 1}));
    }
    rig.run(SECOND).await;
    assert!(rig.texts.len() <= 400, "{} replies were kept", rig.texts.len());
    assert!(rig.texts.iter().any(|text| text.action == "error" && text.message["status"] == 429));
    assert!(rig.texts.iter().any(|text| text.action == "busesConfigured"));
}

#[tokio::test(start_paused = true)]
async fn unread_replies_are_bounded() {
    let mut rig = Rig::configured().await;
    rig.open_raw(1, json!({})).await;
    for _ in 0..10_000 {
        rig.ask("openChannel", json!({"channel": 1, "raw_channel": {"bus_name": "HS"}}));
    }
    let before = rig.texts.len();
    rig.run(MILLISECOND).await;
    assert!(rig.texts.len() - before <= 512, "{} replies were kept", rig.texts.len() - before);
}

#[tokio::test(start_paused = true)]
async fn the_adapter_receives_every_frame_of_its_bus_whatever_channels_are_open() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({})).await;
    rig.open_raw(2, json!({"response_id": 0x123})).await;
    for number in 0..100 {
        node.send(frame(0x300 + number, &[0; 8]));
    }
    rig.run(SECOND).await;
    assert_eq!((rig.on(1), rig.on(2)), (vec![], vec![]));
    // a filter of the adapter would keep these frames out of the load
    let nodes = rig.buses[0].statistics().nodes;
    let adapter = nodes.iter().find(|node| node.name == "can0").unwrap();
    assert_eq!(adapter.received, 100);
}

#[tokio::test(start_paused = true)]
async fn a_device_that_fails_to_open_is_an_error_and_can_be_retried() {
    let mut rig = Rig::new();
    rig.opening_fails.store(true, std::sync::atomic::Ordering::Relaxed);
    rig.ask("configureBuses", json!({"buses": [hs()]}));
    rig.ask("openChannel", json!({"channel": 1, "raw_channel": {"bus_name": "HS"}}));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(problem(&rig.texts[0]), (503, "bus-unavailable".to_owned()));
    assert_eq!(
        problem(&rig.texts[1]),
        (404, "unknown-bus".to_owned()),
        "the waiting request is answered too"
    );
    assert!(rig.session.bus_reports().is_empty());
    rig.opening_fails.store(false, std::sync::atomic::Ordering::Relaxed);
    rig.configure_hs().await;
}

#[tokio::test(start_paused = true)]
async fn a_bit_rate_beyond_the_adapter_is_the_problem_unsupported() {
    let mut rig = Rig::new();
    rig.bit_rate_is_fixed.store(true, std::sync::atomic::Ordering::Relaxed);
    let reply = rig.configure(json!([can("HS", HS, json!({"can_bit_rate": 94_000}))])).await;
    assert_eq!(problem(&reply), (501, "unsupported".to_owned()));
    assert!(reply.message["detail"].as_str().unwrap().contains("cannot set 94000 bit/s"), "{reply:?}");
    rig.configure_hs().await;
}

#[tokio::test(start_paused = true)]
async fn reading_the_vin_ends_also_when_its_buses_are_replaced() {
    let mut rig = Rig::configured().await;
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
    rig.run(10 * MILLISECOND).await;
    let _node = Node::attach(&rig.buses[1]);
    rig.configure(json!([can("MS", MS, json!({}))])).await;
    rig.run(2 * SECOND).await;
    let report = rig.session.poll_vin(now()).expect("the reading has ended");
    assert_eq!(report.vin, None);
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
    rig.configure(json!([])).await;
    assert!(rig.session.poll_vin(now()).is_some());
}

#[tokio::test(start_paused = true)]
async fn reading_the_vin_on_a_bus_that_is_off_ends_immediately_and_can_be_repeated() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| match request {
        [0x22, 0xF1, 0x90] => vec![(MILLISECOND, [&[0x62, 0xF1, 0x90], &b"WVWZZZ1KZ6W000001"[..]].concat())],
        _ => positive(request),
    });
    rig.opening_fails.store(true, std::sync::atomic::Ordering::Relaxed);
    rig.buses[0].unplug("can0");
    rig.run(10 * MILLISECOND).await;
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
    assert_eq!(rig.session.poll_vin(now()).expect("the reading has ended").vin, None);
    rig.run(3 * SECOND).await;
    rig.opening_fails.store(false, std::sync::atomic::Ordering::Relaxed);
    rig.run(2 * SECOND).await;
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
    rig.run(SECOND).await;
    assert!(rig.session.poll_vin(now()).expect("the reading has ended").vin.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_bus_that_goes_off_before_the_first_question_ends_the_reading() {
    let mut rig = Rig::configured().await;
    assert!(rig.session.start_reading_vin(now(), SECOND, VinTrigger::Request));
    rig.buses[0].unplug("can0");
    rig.run(3 * SECOND).await;
    assert_eq!(rig.session.poll_vin(now()).expect("the reading has ended").vin, None);
}

#[tokio::test(start_paused = true)]
async fn the_vin_is_read_beside_the_channels() {
    let mut rig = Rig::configured().await;
    let vin = b"WVWZZZ1KZ6W000001";
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, move |request| {
        if request == [0x22, 0xF1, 0x90] {
            let mut answer = vec![0x62, 0xF1, 0x90];
            answer.extend(vin);
            return vec![(MILLISECOND, answer)];
        }
        positive(request)
    });
    rig.open_isotp(1, json!({"request_id": 0x7E1, "response_id": 0x7E9, "keep_alive": "enabled"})).await;
    assert!(rig.session.start_reading_vin(now(), 2 * SECOND, VinTrigger::Request));
    rig.run(2 * SECOND).await;
    let report = rig.session.poll_vin(now()).expect("the reading ends with its budget");
    assert_eq!(report.vin.map(|vin| vin.to_string()), Some("WVWZZZ1KZ6W000001".to_owned()));
    assert!(report.elapsed <= 2 * SECOND);
}
