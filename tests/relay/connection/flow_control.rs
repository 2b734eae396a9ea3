//! Where flow control of ISO-TP channels goes, and in which frames.

use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::virtual_bus::VirtualBusConfig;
use connector_hal::can::{CanFrame, FdFlags};
use serde_json::{Value, json};

use super::common::*;

const VIN: &[u8] = b"\x62\xF1\x90WVWZZZ1KZ6W000001";
const BRS: FdFlags = FdFlags { bit_rate_switch: true, error_state: false };

/// A functional channel whose list of responders has this one entry.
async fn functional(rig: &mut Rig, entry: Value) {
    let config = json!({"bus_name": "HS", "request_id": 0x700, "response_ids": [entry]});
    assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
}

/// An ECU whose request identifier is not 8 below its response identifier, as Volkswagen numbers them.
fn dashboard(rig: &Rig) -> Ecu {
    Ecu::attach(&rig.buses[0], 0x714, 0x77E, |_| vec![(MILLISECOND, VIN.to_vec())])
}

#[tokio::test(start_paused = true)]
async fn a_listed_ecu_without_its_request_identifier_gets_no_flow_control() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    functional(&mut rig, json!(0x77E)).await;
    let first = frame(0x77E, &[0x10, 20, 0x62, 0xF1, 0x90, b'W', b'V', b'W']);
    node.send(first);
    rig.run(10 * MILLISECOND).await;
    node.send(frame(0x77E, &[3, 0x7F, 0x22, 0x31]));
    rig.run(SECOND).await;
    assert_eq!(node.frames(), [], "0x776 is the response identifier of another ECU");
    assert_eq!(rig.events(1), [(EventCode::ReceiveFailed, 1, 0)]);
    assert_eq!(rig.pdus(1), [[0x7F, 0x22, 0x31]], "single frames are received");
}

#[tokio::test(start_paused = true)]
async fn a_listed_ecu_with_its_request_identifier_gets_flow_control_there() {
    for entry in [
        json!({"response_id": 0x77E, "request_id": "0x714"}),
        json!({"response_id": "0x77E", "request_id": 0x714, "extended_request_address": null}),
    ] {
        let mut rig = Rig::configured().await;
        let node = Node::attach(&rig.buses[0]);
        let _ecu = dashboard(&rig);
        functional(&mut rig, entry).await;
        node.send(frame(0x714, &[3, 0x22, 0xF1, 0x90]));
        rig.run(SECOND).await;
        assert_eq!(rig.pdus(1), [VIN]);
        let own: Vec<_> = node.frames().into_iter().filter(|frame| frame.data()[0] == 0x30).collect();
        assert_eq!(own, [frame(0x714, &[0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC])]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ecu_of_an_open_channel_gets_that_channels_flow_control_only() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let _ecu = dashboard(&rig);
    functional(&mut rig, json!(0x77E)).await;
    rig.open_isotp(2, json!({"request_id": 0x714, "response_id": 0x77E})).await;
    rig.send(2, PLAIN, &[0x22, 0xF1, 0x90]);
    rig.run(SECOND).await;
    assert_eq!(rig.pdus(1), [VIN]);
    assert_eq!(rig.pdus(2), [VIN]);
    assert_eq!(rig.events(1), []);
    let controls: Vec<_> = node.frames().into_iter().filter(|frame| frame.data()[0] == 0x30).collect();
    assert_eq!(controls, [frame(0x714, &[0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC])]);
}

#[tokio::test(start_paused = true)]
async fn flow_control_of_a_functional_channel_has_the_address_of_the_ecu() {
    let mut rig = Rig::configured().await;
    let node = Node::attach(&rig.buses[0]);
    let ecu = json!({"response_id": 0x612, "request_id": 0x6F1, "extended_request_address": 0x12});
    let config = json!({"bus_name": "HS", "request_id": 0x6F1, "response_ids": [ecu],
        "extended_request_address": 0xDF, "extended_response_address": 0xF1});
    assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
    node.send(frame(0x612, &[0xF1, 0x10, 8, 0x62, 0xF1, 0x90, 1, 2]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(node.frames(), [frame(0x6F1, &[0x12, 0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC])]);
    node.send(frame(0x612, &[0xF1, 0x21, 3, 4, 5]));
    rig.run(10 * MILLISECOND).await;
    assert_eq!(rig.pdus(1), [[0x62, 0xF1, 0x90, 1, 2, 3, 4, 5]]);
}

#[tokio::test(start_paused = true)]
async fn flow_control_has_no_address_byte_where_only_the_frames_of_the_ecu_have_one() {
    let entry = json!({"response_id": 0x612, "request_id": 0x6F1, "extended_response_address": 0xF1});
    for (config, response, request) in [
        (json!({"bus_name": "HS", "request_id": 0x700, "response_ids": [entry]}), 0x612, 0x6F1),
        (json!({"bus_name": "HS", "request_id": 0x7DF, "extended_response_address": 0xF1}), 0x7E8, 0x7E0),
    ] {
        let mut rig = Rig::configured().await;
        let node = Node::attach(&rig.buses[0]);
        assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
        node.send(frame(response, &[0xF1, 0x10, 8, 0x62, 0xF1, 0x90, 1, 2]));
        rig.run(10 * MILLISECOND).await;
        assert_eq!(node.frames(), [frame(request, &[0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC])]);
        node.send(frame(response, &[0xF1, 0x21, 3, 4, 5]));
        rig.run(10 * MILLISECOND).await;
        assert_eq!(rig.pdus(1), [[0x62, 0xF1, 0x90, 1, 2, 3, 4, 5]]);
    }
}

#[tokio::test(start_paused = true)]
async fn an_invalid_entry_of_response_ids_is_refused_with_a_reason() {
    let mut rig = Rig::configured().await;
    for (entry, more, reason) in [
        (json!({"response_id": 0x77E}), json!({}), "request_id"),
        (json!("7E"), json!({}), "response_ids"),
        (json!({"response_id": 0x77E, "request_id": 0x3FFF_FFFF}), json!({}), "request_id"),
        (
            json!({"response_id": 0x612, "request_id": 0x6F1}),
            json!({"extended_request_address": 0xDF, "extended_response_address": 0xF1}),
            "0x612 needs an extended_request_address",
        ),
    ] {
        let mut config = json!({"bus_name": "HS", "request_id": 0x700, "response_ids": [entry]});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = rig.open(1, "isotp_channel", config).await;
        assert_eq!(problem(&reply), (400, "invalid-message".to_owned()), "{entry}");
        assert!(reply.message.to_string().contains(reason), "{}", reply.message);
    }
}

async fn fd_rig() -> Rig {
    let mut rig = Rig::with_bus(VirtualBusConfig { data_bit_rate: Some(2_000_000), ..Default::default() });
    let mut bus = hs();
    bus["can_bus"]["data_bit_rate"] = json!(2_000_000);
    assert_eq!(rig.configure(json!([bus])).await.action, "busesConfigured");
    rig
}

#[tokio::test(start_paused = true)]
async fn flow_control_has_the_format_of_the_frame_that_it_answers() {
    let fd = |data: &[u8], flags| CanFrame::new_fd(id(0x7E8), flags, data).unwrap();
    let data = [0x10, 20, 0x62, 0xF1, 0x90, b'W', b'V', b'W'];
    let long = [&[0x10, 70][..], &[0x62; 62]].concat();
    let no_switch = FdFlags::default();
    for (first, is_fd, flags) in [
        (frame(0x7E8, &data), false, no_switch),
        (fd(&data, no_switch), true, no_switch),
        (fd(&data, BRS), true, BRS),
        (fd(&long, BRS), true, BRS),
    ] {
        for request in [json!({"response_id": 0x7E8, "request_id": 0x7E0}), json!({"request_id": 0x7DF})] {
            let mut rig = fd_rig().await;
            let node = Node::attach(&rig.buses[0]);
            let mut config = request.clone();
            config["bus_name"] = json!("HS");
            assert_eq!(rig.open(1, "isotp_channel", config).await.action, "channelOpened");
            node.send(first);
            rig.run(10 * MILLISECOND).await;
            let control = [0x30, 0, 0, 0xCC, 0xCC, 0xCC, 0xCC, 0xCC];
            let expected = match is_fd {
                true => CanFrame::new_fd(id(0x7E0), flags, &control).unwrap(),
                false => frame(0x7E0, &control),
            };
            assert_eq!(node.frames(), [expected], "{first} {request}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_channel_of_an_fd_bus_sends_in_its_frame_format_and_length() {
    for (more, lengths) in [
        (json!({}), vec![(true, 48)]),
        (json!({"frame_format": null, "tx_dl": null}), vec![(true, 48)]),
        (json!({"frame_format": "fd"}), vec![(true, 48)]),
        (json!({"tx_dl": 16}), vec![(true, 16)]),
        (json!({"frame_format": "fd", "tx_dl": "8"}), vec![(true, 8)]),
        (json!({"frame_format": "classic"}), vec![(false, 8)]),
        (json!({"frame_format": "classic", "tx_dl": 8}), vec![(false, 8)]),
    ] {
        let mut rig = fd_rig().await;
        let node = Node::attach(&rig.buses[0]);
        rig.open_isotp(1, more.clone()).await;
        rig.send(1, PLAIN, &[0x22; 41]);
        rig.run(10 * MILLISECOND).await;
        let sent: Vec<_> = node.frames().iter().map(|frame| (frame.is_fd(), frame.len())).collect();
        assert_eq!(sent, lengths, "{more}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_format_that_the_bus_does_not_have_is_refused_with_a_reason() {
    for (is_fd, more, reason) in [
        (false, json!({"frame_format": "fd"}), "data_bit_rate"),
        (false, json!({"tx_dl": 64}), "tx_dl"),
        (true, json!({"frame_format": "classic", "tx_dl": 64}), "tx_dl"),
        (true, json!({"tx_dl": 10}), "8, 12, 16, 20, 24, 32, 48 and 64"),
        (true, json!({"tx_dl": 256}), "out of range"),
        (true, json!({"frame_format": "canfd"}), "canfd"),
    ] {
        let mut rig = if is_fd { fd_rig().await } else { Rig::configured().await };
        let mut config = json!({"bus_name": "HS", "request_id": 0x7E0, "response_id": 0x7E8});
        config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let reply = rig.open(1, "isotp_channel", config).await;
        assert_eq!(problem(&reply), (400, "invalid-message".to_owned()), "{more}");
        assert!(reply.message.to_string().contains(reason), "{more}: {}", reply.message);
    }
}
