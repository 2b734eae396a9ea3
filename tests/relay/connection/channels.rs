//! `openChannel`, `closeChannel`, and ISO-TP channels of every kind.

use connector_agent::protocol::isotp::{Addressing, Config, FrameSize, Padding};
use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::virtual_bus::VirtualBusConfig;
use serde_json::json;

use super::common::*;

#[tokio::test(start_paused = true)]
async fn a_pdu_of_any_length_goes_to_the_ecu_and_its_answer_comes_back_with_its_address() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |request| {
        let mut answer = request.to_vec();
        answer[0] += 0x40;
        vec![(MILLISECOND, answer)]
    });
    rig.open_isotp(1, json!({})).await;
    for length in [1, 7, 8, 4095, 4096, 10_000] {
        let mut request = vec![0xA5; length];
        request[0] = 0x36;
        rig.send(1, PLAIN, &request);
        let before = rig.heard.len();
        assert!(rig.run_until(5 * SECOND, |rig| rig.heard.len() > before).await, "{length}");
        assert_eq!(ecu.requests().last(), Some(&request));
        request[0] = 0x76;
        assert_eq!(rig.heard[before].got, Got::Pdu { address: 0x7E8, data: request }, "{length}");
        assert_eq!(rig.heard[before].channel, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn identifiers_have_29_bits_above_0x7ff_or_with_the_eff_bit() {
    let mut rig = Rig::configured().await;
    let _gateway = Ecu::attach(&rig.buses[0], 0x18DA_10F1, 0x18DA_F110, positive);
    let _small = Ecu::attach(&rig.buses[0], 0x8000_0123, 0x8000_0456, positive);
    rig.open_isotp(1, json!({"request_id": 0x18DA_10F1u32, "response_id": 0x18DA_F110u32})).await;
    rig.open_isotp(2, json!({"request_id": 0x8000_0123u32, "response_id": "0x80000456"})).await;
    rig.send(1, PLAIN, &[0x10, 1]);
    rig.send(2, PLAIN, &[0x10, 2]);
    rig.run(50 * MILLISECOND).await;
    assert_eq!(rig.on(1), [Got::Pdu { address: 0x18DA_F110, data: vec![0x50, 1] }]);
    assert_eq!(rig.on(2), [Got::Pdu { address: 0x8000_0456, data: vec![0x50, 2] }]);
}

#[tokio::test(start_paused = true)]
async fn extended_addresses_are_the_first_byte_of_each_frame() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let addressing = Addressing::extended(id(0x612), id(0x6F1), 0xF1, 0x12);
    let _ecu =
        Ecu::with_config(&rig.buses[0], Config::new(addressing), |_| vec![(MILLISECOND, vec![0x62; 20])]);
    let more = json!({"request_id": 0x6F1, "response_id": 0x612, "extended_request_address": 0x12,
        "extended_response_address": 0xF1});
    rig.open_isotp(1, more).await;
    rig.send(1, PLAIN, &[0x22; 20]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62; 20]]);
    for frame in node.frames() {
        let expected = if frame.id() == id(0x6F1) { 0x12 } else { 0xF1 };
        assert_eq!(frame.data()[0], expected, "{frame}");
    }
}

#[tokio::test(start_paused = true)]
async fn frames_are_padded_as_asked() {
    for (more, expected) in [
        (json!({}), vec![2, 0x10, 1, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC]),
        (json!({"padding": "enabled", "padding_byte": 0x55}), vec![2, 0x10, 1, 0x55, 0x55, 0x55, 0x55, 0x55]),
        (json!({"padding": "toward-ecu"}), vec![2, 0x10, 1, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC]),
        (json!({"padding": "disabled"}), vec![2, 0x10, 1]),
        (json!({"padding": "from-ecu"}), vec![2, 0x10, 1]),
    ] {
        let mut rig = Rig::configured().await;
        let node = Node::attach(&rig.buses[0]);
        rig.open_isotp(1, more.clone()).await;
        rig.send(1, PLAIN, &[0x10, 1]);
        rig.run(10 * MILLISECOND).await;
        assert_eq!(node.frames(), [frame(0x7E0, &expected)], "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn detected_padding_follows_the_ecu() {
    for (padding, length) in [(Padding::Disabled, 3), (Padding::Enabled(0), 8)] {
        let mut rig = Rig::configured().await;
        let node = Node::attach(&rig.buses[0]);
        let addressing = Addressing::normal(id(0x7E8), id(0x7E0));
        let config = Config { padding, ..Config::new(addressing) };
        let _ecu = Ecu::with_config(&rig.buses[0], config, positive);
        rig.open_isotp(1, json!({"padding": "detection"})).await;
        rig.send(1, PLAIN, &[0x10, 1]);
        rig.run(10 * MILLISECOND).await;
        rig.send(1, PLAIN, &[0x10, 2]);
        rig.run(10 * MILLISECOND).await;
        let own_frames: Vec<_> = node.frames().into_iter().filter(|frame| frame.id() == id(0x7E0)).collect();
        assert_eq!(own_frames.last().map(|frame| frame.len()), Some(length), "{padding:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn flow_control_carries_the_channels_block_size_and_separation_time() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |_| vec![(MILLISECOND, vec![0x62; 60])]);
    rig.open_isotp(1, json!({"block_size": 4, "st_min": 5})).await;
    rig.send(1, PLAIN, &[0x22, 1, 2]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62; 60]]);
    let flow_controls: Vec<_> = node
        .frames()
        .into_iter()
        .filter(|frame| frame.id() == id(0x7E0) && frame.data()[0] == 0x30)
        .collect();
    assert_eq!(flow_controls, [frame(0x7E0, &[0x30, 4, 5, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC]); 2]);
}

#[tokio::test(start_paused = true)]
async fn an_fd_bus_carries_pdus_in_fd_frames() {
    let mut rig = Rig::with_bus(VirtualBusConfig { data_bit_rate: Some(2_000_000), ..Default::default() });
    let node = Node::attach(&rig.buses[0]);
    let mut bus = hs();
    bus["can_bus"]["data_bit_rate"] = json!(2_000_000);
    assert_eq!(rig.configure(json!([bus])).await.action, "busesConfigured");
    let config = Config {
        frame_size: FrameSize::fd(64, true).unwrap(),
        ..Config::new(Addressing::normal(id(0x7E8), id(0x7E0)))
    };
    let _ecu = Ecu::with_config(&rig.buses[0], config, |_| vec![(MILLISECOND, vec![0x62; 62])]);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x22; 40]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62; 62]]);
    let lengths: Vec<_> = node.frames().iter().map(|frame| (frame.is_fd(), frame.len())).collect();
    assert_eq!(lengths, [(true, 48), (true, 64)]);
}

#[tokio::test(start_paused = true)]
async fn a_functional_channel_hears_the_whole_obd_range_and_answers_each_first_frame() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let _engine = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    let functional = |response: u32, request: u32, length: usize| {
        let config = Config::new(Addressing::normal(id(response), id(request)));
        (config, move |_: &[u8]| vec![(MILLISECOND, vec![0x49; length])])
    };
    // an ECU receives functional requests, and flow control on its physical identifier, so that two nodes
    // simulate one ECU
    for (response, length) in [(0x7E8, 5), (0x7EF, 5), (0x7E7, 5)] {
        let (config, script) = functional(response, 0x7DF, length);
        Box::leak(Box::new(Ecu::with_config(&rig.buses[0], config, script)));
    }
    let reply = rig.open(1, "isotp_channel", json!({"bus_name": "HS", "request_id": 0x7DF})).await;
    assert_eq!(reply.action, "channelOpened");
    rig.send(1, CONFIRM, &[0x09, 2]);
    rig.run(100 * MILLISECOND).await;
    let mut addresses: Vec<_> = rig
        .on(1)
        .into_iter()
        .filter_map(|got| if let Got::Pdu { address, .. } = got { Some(address) } else { None })
        .collect();
    addresses.sort_unstable();
    assert_eq!(addresses, [0x7E8, 0x7EF]);
    assert_eq!(rig.count(1, EventCode::Sent, 0), 1);
    assert_eq!(node.single_frames(0x7DF), [[0x09, 2]]);
    // a long answer gets flow control on the physical identifier
    node.send(frame(0x7EA, &[0x10, 20, 0x49, 2, 1, b'W', b'V', b'W']));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames().last(), Some(&frame(0x7E2, &[0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC])));
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_two_channels_gets_one_flow_control() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |_| vec![(MILLISECOND, vec![0x62; 200])]);
    rig.open(1, "isotp_channel", json!({"bus_name": "HS", "request_id": 0x7DF})).await;
    rig.open_isotp(2, json!({"block_size": 5})).await;
    rig.send(2, PLAIN, &[0x22, 0xF1, 0x90]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [[0x62; 200]], "every answer is received");
    assert_eq!(rig.pdus(2), [[0x62; 200]]);
    assert_eq!(rig.events(1), []);
    let flow_controls =
        node.frames().iter().filter(|frame| frame.id() == id(0x7E0) && frame.data()[0] >> 4 == 3).count();
    // 28 consecutive frames in blocks of 5
    assert_eq!(flow_controls, 6);
    // the remaining channel sends flow control itself
    assert_eq!(rig.request("closeChannel", json!({"channel": 2})).await.action, "channelClosed");
    node.send(frame(0x7E8, &[0x10, 20, 0x49, 2, 1, b'W', b'V', b'W']));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames().last(), Some(&frame(0x7E0, &[0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC])));
}

#[tokio::test(start_paused = true)]
async fn a_functional_channel_with_29_bits_hears_all_that_answer_to_the_tester() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let config = json!({"bus_name": "HS", "request_id": "0x18DB33F1"});
    assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
    node.send(frame(0x18DA_F110, &[2, 0x7E, 0]));
    node.send(frame(0x18DA_F1FE, &[2, 0x7E, 1]));
    node.send(frame(0x18DA_F210, &[2, 0x7E, 2]));
    node.send(frame(0x7E8, &[2, 0x7E, 3]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(
        rig.on(1),
        [
            Got::Pdu { address: 0x18DA_F110, data: vec![0x7E, 0] },
            Got::Pdu { address: 0x18DA_F1FE, data: vec![0x7E, 1] }
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn a_non_obd_functional_channel_hears_only_its_listed_responders() {
    for (list, expected) in [(json!([0x4E8, "0x5E8"]), 2), (json!([]), 0), (json!(null), 0)] {
        let mut rig = Rig::configured().await;
        let node = Node::attach(&rig.buses[0]);
        let config = json!({"bus_name": "HS", "request_id": 0x700, "response_ids": list});
        assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
        for number in [0x4E8, 0x5E8, 0x6E8, 0x7E8, 0x708] {
            node.send(frame(number, &[2, 0x7E, 0]));
        }
        rig.run(10 * MILLISECOND).await;
        assert_eq!(rig.pdus(1).len(), expected, "{list}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_of_responders_does_not_take_the_obd_range_away() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let config = json!({"bus_name": "HS", "request_id": 0x7DF, "response_ids": [0x77A]});
    assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
    node.send(frame(0x7EF, &[2, 0x7E, 0]));
    node.send(frame(0x77A, &[2, 0x7E, 1]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.pdus(1), [[0x7E, 0], [0x7E, 1]]);
}

#[tokio::test(start_paused = true)]
async fn a_functional_channel_with_extended_addresses_takes_them_off_the_answers() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let config = json!({"bus_name": "HS", "request_id": 0x6F1, "response_ids": [0x612, 0x640],
        "extended_request_address": 0xDF, "extended_response_address": 0xF1});
    assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
    rig.send(1, PLAIN, &[0x3E, 0]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x6F1, &[0xDF, 2, 0x3E, 0, 0xCC, 0xCC, 0xCC, 0xCC])]);
    node.send(frame(0x612, &[0xF1, 2, 0x7E, 0]));
    node.send(frame(0x640, &[0xF1, 2, 0x7E, 1]));
    node.send(frame(0x640, &[0xF2, 2, 0x7E, 2]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.pdus(1), [[0x7E, 0], [0x7E, 1]]);
}

#[tokio::test(start_paused = true)]
async fn a_functional_request_longer_than_a_frame_is_refused() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open(1, "isotp_channel", json!({"bus_name": "HS", "request_id": 0x7DF})).await;
    rig.send(1, PLAIN, &[0x22; 8]);
    rig.run(SECOND).await;
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 6, 0)]);
    assert_eq!(node.frames(), []);
}

#[tokio::test(start_paused = true)]
async fn an_invalid_channel_is_refused_with_a_reason() {
    let mut rig = Rig::configured().await;
    rig.open_isotp(5, json!({})).await;
    let isotp = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": 0x7E8});
    let with = |key: &str, value: serde_json::Value| {
        let mut isotp = isotp.clone();
        isotp[key] = value;
        json!({"channel": 1, "isotp_channel": isotp})
    };
    let many: Vec<_> = (0..257).collect();
    for (message, expected) in [
        (json!({"channel": 1}), (400, "invalid-message")),
        (json!({"channel": 0, "isotp_channel": isotp}), (400, "invalid-message")),
        (json!({"channel": 65536, "isotp_channel": isotp}), (400, "invalid-message")),
        (json!({"isotp_channel": isotp}), (400, "invalid-message")),
        (
            json!({"channel": 1, "isotp_channel": isotp, "raw_channel": {"bus_name": "HS"}}),
            (400, "invalid-message"),
        ),
        (json!({"channel": 5, "raw_channel": {"bus_name": "HS"}}), (409, "channel-in-use")),
        (with("bus_name", json!("LS")), (404, "unknown-bus")),
        (with("request_id", json!(null)), (400, "invalid-message")),
        (with("request_id", json!(0x2000_0000)), (400, "invalid-message")),
        (with("response_id", json!("0xE0000000")), (400, "invalid-message")),
        (with("extended_request_address", json!(256)), (400, "invalid-message")),
        (with("extended_response_address", json!(1)), (400, "invalid-message")),
        (with("padding", json!("sometimes")), (400, "invalid-message")),
        (with("keep_alive", json!(true)), (400, "invalid-message")),
        (
            json!({"channel": 1, "isotp_channel": {"bus_name": "HS", "request_id": 1, "response_ids": many}}),
            (400, "invalid-message"),
        ),
        (
            json!({"channel": 1, "raw_channel": {"bus_name": "HS", "request_id": 0x3FFF_FFFF}}),
            (400, "invalid-message"),
        ),
        (json!({"channel": 1, "kline_channel": {"bus_name": "HS", "ecu_id": 51}}), (409, "wrong-bus-kind")),
        (json!({"channel": 1, "terminal15_channel": {"bus_name": "HS"}}), (409, "wrong-bus-kind")),
        (json!({"channel": 1, "terminal15_channel": {"bus_name": "T"}}), (404, "unknown-bus")),
        (json!({"channel": 1, "doip_channel": {"bus_name": "HS"}}), (400, "invalid-message")),
        (
            json!({"channel": 1, "raw_channel": {"bus_name": "HS"}, "terminal15_channel": {"bus_name": "HS"}}),
            (400, "invalid-message"),
        ),
    ] {
        let reply = rig.request("openChannel", message.clone()).await;
        assert_eq!(problem(&reply), (expected.0, expected.1.to_owned()), "{message}");
        assert_eq!(reply.message["in_reply_to"], "openChannel");
    }
    let reply = rig.request("closeChannel", json!({"channel": 1})).await;
    assert_eq!(problem(&reply), (404, "unknown-channel".to_owned()), "no channel was opened");
}

#[tokio::test(start_paused = true)]
async fn opening_an_open_channel_again_is_answered_equally_and_changes_nothing() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |_| vec![(500 * MILLISECOND, vec![0x50, 3])]);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.send(1, CHAINED, &[0x27, 1]);
    rig.run(100 * MILLISECOND).await;
    rig.open_isotp(1, json!({})).await;
    rig.run(SECOND).await;
    assert_eq!(ecu.requests(), [[0x10, 3], [0x27, 1]], "the queued PDU is still sent");
}

#[tokio::test(start_paused = true)]
async fn channels_are_bounded_in_number() {
    let mut rig = Rig::configured().await;
    for channel in 1..=256 {
        rig.open_raw(channel, json!({"response_id": 1})).await;
    }
    let reply = rig.open(65535, "raw_channel", json!({"bus_name": "HS"})).await;
    assert_eq!(problem(&reply), (409, "too-many-channels".to_owned()));
    assert_eq!(rig.request("closeChannel", json!({"channel": 1})).await.action, "channelClosed");
    rig.open_raw(65535, json!({})).await;
}

#[tokio::test(start_paused = true)]
async fn a_confirmation_states_how_long_the_frames_took() {
    let mut rig = Rig::configured().await;
    let _ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, CONFIRM, &[0x36; 4095]);
    rig.run(SECOND).await;
    let [(EventCode::Sent, 0, micros)] = rig.events(1)[..] else { panic!("{:?}", rig.events(1)) };
    // 586 frames of 111 to 135 bits, and the delays of the runtime's timer
    assert!((130_000..700_000).contains(&micros), "{micros} µs");
    rig.send(1, PLAIN, &[0x3E, 0x80]);
    rig.run(SECOND).await;
    assert_eq!(rig.events(1).len(), 1, "without confirm there is no event");
}

#[tokio::test(start_paused = true)]
async fn a_pdu_that_an_ecu_does_not_accept_is_reported_with_the_reason() {
    // the ECU sends no flow control
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x36; 100]);
    rig.run(900 * MILLISECOND).await;
    assert_eq!(rig.events(1), []);
    rig.run(200 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 1, 0)]);
    // flow control with status overflow
    rig.send(1, PLAIN, &[0x36; 100]);
    rig.run(MILLISECOND).await;
    node.send(frame(0x7E8, &[0x32, 0, 0]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1)[1..], [(EventCode::SendFailed, 2, 0)]);
    // an empty PDU is invalid
    rig.send(1, PLAIN, &[]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1)[2..], [(EventCode::SendFailed, 6, 0)]);
}

#[tokio::test(start_paused = true)]
async fn on_an_empty_bus_a_pdu_fails_unacknowledged_and_is_not_sent_later() {
    let mut rig = Rig::configured().await;
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(1100 * MILLISECOND).await;
    assert_eq!(rig.count(1, EventCode::SendFailed, 4), 1);
    rig.run(SECOND).await;
    let node = Node::attach(&rig.buses[0]);
    rig.run(5 * SECOND).await;
    assert_eq!(node.frames(), [], "the adapter has dropped the frame");
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.run(100 * MILLISECOND).await;
    assert_eq!(node.single_frames(0x7E0), [[0x10, 3]], "the bus is usable");
}

#[tokio::test(start_paused = true)]
async fn an_abandoned_reception_is_reported_with_the_reason() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({})).await;
    let first_frame = frame(0x7E8, &[0x10, 20, 0x62, 1, 2, 3, 4, 5]);
    node.send(first_frame);
    rig.run(1100 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::ReceiveFailed, 1, 0)], "N_Cr");
    node.send(first_frame);
    rig.run(10 * MILLISECOND).await;
    node.send(frame(0x7E8, &[0x22, 6, 7, 8, 9, 10, 11, 12]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1)[1..], [(EventCode::ReceiveFailed, 2, 0)], "wrong sequence number");
    node.send(frame(0x7E8, &[0x10, 0, 0x7F, 0xFF, 0xFF, 0xFF, 1, 2]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1)[2..], [(EventCode::ReceiveFailed, 3, 0)], "too long");
    assert_eq!(node.frames().last().unwrap().data()[0], 0x32, "the ECU receives flow control with overflow");
}

#[tokio::test(start_paused = true)]
async fn closing_a_channel_discards_its_waiting_pdus() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, |_| vec![(100 * MILLISECOND, vec![0x76, 1])]);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    for block in 1..20 {
        rig.send(1, if block == 1 { PLAIN } else { CHAINED }, &[0x36, block]);
    }
    rig.run(250 * MILLISECOND).await;
    let sent = ecu.requests().len();
    assert!((2..5).contains(&sent), "{sent} were sent");
    assert_eq!(rig.request("closeChannel", json!({"channel": 1})).await.action, "channelClosed");
    rig.run(10 * SECOND).await;
    assert_eq!(ecu.requests().len(), sent, "neither a queued PDU nor a keep-alive is sent");
    rig.send(1, CONFIRM, &[0x36, 99]);
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.events(1), [(EventCode::SendFailed, 7, 0)]);
}

#[tokio::test(start_paused = true)]
async fn channels_with_any_numbers_share_a_bus() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_raw(65535, json!({"request_id": 0x100})).await;
    rig.open_raw(1, json!({"request_id": 0x101})).await;
    for count in 0..200 {
        rig.send_frame(65535, frame(0x100, &[count]));
    }
    for count in 0..20 {
        rig.send_frame(1, frame(0x101, &[count]));
    }
    rig.run(20 * MILLISECOND).await;
    let frames = node.frames();
    let last = frames.iter().rposition(|frame| frame.id() == id(0x101)).unwrap();
    assert_eq!(frames[..=last].iter().filter(|frame| frame.id() == id(0x101)).count(), 20);
    assert!(last < 60, "the last of 20 frames had to wait for {last} others");
}

#[tokio::test(start_paused = true)]
async fn an_unknown_action_is_an_error() {
    let mut rig = Rig::configured().await;
    let reply = rig.request("noSuchAction", json!({})).await;
    assert_eq!(problem(&reply), (404, "unknown-action".to_owned()));
    assert_eq!(reply.message["in_reply_to"], "noSuchAction");
}

#[tokio::test(start_paused = true)]
async fn closing_a_connection_on_request_is_confirmed_and_leaves_the_buses() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    rig.open_isotp(1, json!({"keep_alive": "enabled"})).await;
    let reply = rig.request("closeConnection", json!({})).await;
    assert_eq!((reply.action.as_str(), &reply.message["reason"]), ("connectionClosed", &json!("closed")));
    assert_eq!(rig.close_reason(), Some(connector_agent::relay::connection::CloseReason::Closed));
    rig.send(1, PLAIN, &[0x10, 3]);
    rig.ask("configureBuses", json!({"buses": [hs()]}));
    rig.run(10 * SECOND).await;
    assert_eq!(node.frames(), [], "nothing is sent after the close");
    assert!(rig.session.bus_reports().is_empty(), "a closed connection does not reopen its buses");
}
