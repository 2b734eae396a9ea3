//! Scans for ECUs in a session that also has channels.

use connector_agent::relay::wire::codec::EventCode;
use connector_hal::can::CanFrame;
use connector_sim::vehicle::{Tp20EcuConfig, Vehicle, VehicleConfig};
use connector_test_support::data::golf;
use serde_json::{Value, json};

use super::common::*;

/// A Golf on the configured bus "HS".
async fn rig_with_golf(tp20: Vec<Tp20EcuConfig>) -> (Rig, Vehicle) {
    let rig = Rig::configured().await;
    let vehicle = Vehicle::start(&VehicleConfig { tp20, ..golf() }, &rig.buses[0]);
    (rig, vehicle)
}

/// The scan of a vehicle of which a person made sure that it stands.
fn hs_bus() -> Value {
    json!({"bus_name": "HS", "vehicle_stands": true})
}

/// Waits for `count` more text messages.
async fn texts(rig: &mut Rig, count: usize) -> Vec<connector_agent::relay::wire::Envelope> {
    let before = rig.texts.len();
    assert!(rig.run_until(20 * SECOND, |rig| rig.texts.len() >= before + count).await, "{:?}", rig.texts);
    rig.texts[before..].to_vec()
}

fn ids(found: &Value) -> Vec<(u64, u64)> {
    let ecus = found["ecus"].as_array().unwrap().iter();
    ecus.map(|ecu| (ecu["request_id"].as_u64().unwrap(), ecu["response_id"].as_u64().unwrap())).collect()
}

fn expected(vehicle: &Vehicle) -> Vec<(u64, u64)> {
    let address = |ecu: &connector_sim::vehicle::RunningEcu| {
        (u64::from(ecu.address.request.to_number()), u64::from(ecu.address.response.to_number()))
    };
    let mut ids: Vec<_> = vehicle.ecus().iter().map(address).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test(start_paused = true)]
async fn all_ecus_of_a_bus_are_reported_with_their_protocol() {
    let (mut rig, vehicle) = rig_with_golf(Tp20EcuConfig::golf()).await;
    rig.ask("scanEcus", hs_bus());
    let reply = texts(&mut rig, 1).await.remove(0);
    assert_eq!((reply.action.as_str(), reply.request_id.as_deref()), ("ecusFound", Some("7")));
    assert_eq!(reply.message["bus_name"], "HS");
    assert_eq!(ids(&reply.message), expected(&vehicle));
    let ecus = reply.message["ecus"].as_array().unwrap();
    let protocols = |name: &str| ecus.iter().filter(|ecu| ecu["protocol"] == name).count();
    assert_eq!((protocols("tp20"), protocols("isotp")), (5, ecus.len() - 5));
}

#[tokio::test(start_paused = true)]
async fn an_unknown_bus_is_an_error_and_an_empty_one_has_no_ecus() {
    let mut rig = Rig::configured().await;
    let reply = rig.request("scanEcus", json!({"bus_name": "LS"})).await;
    assert_eq!(problem(&reply), (404, "unknown-bus".to_owned()));
    rig.ask("scanEcus", hs_bus());
    let reply = texts(&mut rig, 1).await.remove(0);
    assert_eq!(
        (reply.action.as_str(), &reply.message),
        ("ecusFound", &json!({"bus_name": "HS", "ecus": []}))
    );
}

#[tokio::test(start_paused = true)]
async fn a_second_scan_request_gets_the_result_of_the_running_scan() {
    let (mut rig, vehicle) = rig_with_golf(vec![]).await;
    rig.ask("scanEcus", hs_bus());
    rig.run(SECOND).await;
    let envelope = connector_agent::relay::wire::Envelope::new(
        "scanEcus",
        &json!({"connection_uuid": UUID, "bus_name": "HS"}),
    );
    let request = connector_agent::relay::wire::request::Request::parse(&envelope).unwrap();
    rig.session.handle_request(now(), request, Some("8".to_owned()));
    let replies = texts(&mut rig, 2).await;
    let of: Vec<_> = replies.iter().map(|reply| reply.request_id.clone().unwrap()).collect();
    assert_eq!(of, ["7", "8"]);
    assert!(replies.iter().all(|reply| ids(&reply.message) == expected(&vehicle)));
    // a request after the end starts a new scan
    rig.ask("scanEcus", hs_bus());
    assert_eq!(ids(&texts(&mut rig, 1).await[0].message), expected(&vehicle));
}

#[tokio::test(start_paused = true)]
async fn channels_work_during_a_scan_and_a_tp20_channel_is_not_disturbed() {
    let (mut rig, vehicle) = rig_with_golf(Tp20EcuConfig::golf()).await;
    rig.open_isotp(1, json!({})).await;
    let opened = rig.open(2, "tp20_channel", json!({"bus_name": "HS", "logical_address": 1})).await;
    assert_eq!(opened.action, "channelOpened", "{opened:?}");
    rig.ask("scanEcus", hs_bus());
    let mut asked = 0;
    while !rig.texts.iter().any(|text| text.action == "ecusFound") {
        rig.send(1, PLAIN, &[0x22, 0xF1, 0x90]);
        rig.send(2, PLAIN, &[0x1A, 0x9B]);
        asked += 1;
        rig.run(100 * MILLISECOND).await;
        assert!(asked < 200, "the scan never ends");
    }
    let answers = |channel, service: u8| {
        rig.pdus(channel)
            .iter()
            .filter(|pdu| pdu[0] == service || pdu[0] == 0x7F && pdu[1] == service - 0x40)
            .count()
    };
    assert_eq!((answers(1, 0x62), answers(2, 0x5A)), (asked, asked));
    assert_eq!((rig.events(1), rig.events(2)), (vec![], vec![]));
    assert_eq!(ids(&rig.texts.last().unwrap().message), expected(&vehicle));
    assert_eq!(vehicle.anomalies(), []);
}

#[tokio::test(start_paused = true)]
async fn answers_to_a_scan_are_relayed_on_the_channels_that_receive_them() {
    let (mut rig, vehicle) = rig_with_golf(vec![]).await;
    rig.open_isotp(1, json!({})).await;
    rig.open_raw(2, json!({"response_id": 0x7E8})).await;
    rig.open_raw(3, json!({})).await;
    rig.ask("scanEcus", hs_bus());
    let found = texts(&mut rig, 1).await.remove(0);
    assert_eq!(ids(&found.message), expected(&vehicle));
    // the operator sent nothing: all of these answer the scan
    let answer = vec![0x7E, 0x00];
    assert!(rig.pdus(1).contains(&answer), "{:02X?}", rig.pdus(1));
    let single_frame = |frame: &CanFrame| frame.data().starts_with(&[2, 0x7E, 0x00]);
    assert!(rig.frames(2).iter().any(single_frame), "{:?}", rig.frames(2));
    for (_, response_id) in expected(&vehicle) {
        let is_answer = |frame: &CanFrame| u64::from(frame.id().to_number()) == response_id;
        assert!(rig.frames(3).iter().any(is_answer), "0x{response_id:X}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_survives_a_cut_link_and_its_result_comes_afterwards() {
    let (mut rig, vehicle) = rig_with_golf(vec![]).await;
    rig.open_isotp(1, json!({})).await;
    rig.send(1, PLAIN, &[0x3E, 0x00]);
    rig.run(SECOND).await;
    rig.ask("scanEcus", hs_bus());
    rig.run(SECOND).await;
    rig.cut();
    rig.session.poll_text();
    rig.run(500 * MILLISECOND).await;
    rig.resume().await;
    assert!(rig.run_until(20 * SECOND, |rig| rig.texts.last().unwrap().action == "ecusFound").await);
    assert_eq!(ids(&rig.texts.last().unwrap().message), expected(&vehicle));
}

#[tokio::test(start_paused = true)]
async fn a_new_configuration_ends_a_scan_with_an_answer_and_a_close_without() {
    let (mut rig, _vehicle) = rig_with_golf(vec![]).await;
    rig.ask("scanEcus", hs_bus());
    rig.run(SECOND).await;
    rig.ask("configureBuses", json!({"buses": [hs()]}));
    let replies = texts(&mut rig, 2).await;
    let stopped = replies.iter().find(|reply| reply.action == "error").unwrap();
    assert_eq!(problem(stopped), (409, "scan-stopped".to_owned()));
    assert_eq!(stopped.message["in_reply_to"], "scanEcus");
    rig.ask("scanEcus", hs_bus());
    rig.run(SECOND).await;
    let reply = rig.request("closeConnection", json!({})).await;
    assert_eq!(reply.action, "connectionClosed");
    let texts = rig.texts.len();
    rig.run(10 * SECOND).await;
    assert_eq!(rig.texts.len(), texts);
}

#[tokio::test(start_paused = true)]
async fn a_refused_or_stopped_scan_reports_only_its_own_findings() {
    let (mut rig, vehicle) = rig_with_golf(Tp20EcuConfig::golf()).await;
    let opened = rig.open(2, "tp20_channel", json!({"bus_name": "HS", "logical_address": 1})).await;
    assert_eq!(opened.action, "channelOpened", "{opened:?}");
    rig.ask("scanEcus", hs_bus());
    assert_eq!(ids(&texts(&mut rig, 1).await[0].message), expected(&vehicle));
    let detail = |reply: &connector_agent::relay::wire::Envelope| {
        assert_eq!(problem(reply), (409, "ignition-off".to_owned()));
        reply.message["detail"].as_str().unwrap().to_owned()
    };
    rig.session.handle_ignition(now(), Some(false));
    rig.ask("scanEcus", hs_bus());
    let refused = detail(&texts(&mut rig, 1).await[0]);
    assert!(refused.contains("found until then: 0."), "{refused}");
    rig.session.handle_ignition(now(), Some(true));
    rig.ask("scanEcus", hs_bus());
    rig.run(100 * MILLISECOND).await;
    rig.session.handle_ignition(now(), Some(false));
    let stopped = detail(&texts(&mut rig, 1).await[0]);
    assert!(
        stopped.contains("found until then: 1."),
        "the scan only listened, and counts the open channel: {stopped}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_moving_vehicle_or_one_with_the_ignition_off_is_not_scanned() {
    let mut rig = Rig::configured().await;
    let ecu = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    let mut speed = rig.buses[0].attach("speed");
    tokio::spawn(async move {
        use connector_hal::can::{CanBusExt, CanEvent};
        while let Ok(event) = speed.event().await {
            if let CanEvent::Received { frame, .. } = event
                && frame.id().raw() == 0x7DF
            {
                let id = connector_hal::can::CanId::standard_truncated(0x7EA);
                speed.send(&CanFrame::new(id, &[3, 0x41, 0x0D, 5, 0, 0, 0, 0]).unwrap()).await.unwrap();
            }
        }
    });
    rig.ask("scanEcus", hs_bus());
    assert_eq!(problem(&texts(&mut rig, 1).await[0]), (409, "vehicle-moving".to_owned()));
    assert_eq!(ecu.requests().len(), 0);
    // the policy refuses while the vehicle moves, and no longer when the speed is old and the ignition off
    rig.ask("scanEcus", hs_bus());
    assert_eq!(problem(&texts(&mut rig, 1).await[0]), (403, "refused-by-policy".to_owned()));
    rig.session.handle_ignition(now(), Some(false));
    rig.run(3 * SECOND).await;
    rig.ask("scanEcus", hs_bus());
    assert_eq!(problem(&texts(&mut rig, 1).await[0]), (409, "ignition-off".to_owned()));
    assert_eq!(rig.count(1, EventCode::SendFailed, 0), 0);
}

#[tokio::test(start_paused = true)]
async fn a_bus_without_evidence_is_scanned_with_consent_only() {
    let mut rig = Rig::configured().await;
    let _node = Ecu::attach(&rig.buses[0], 0x7E0, 0x7E8, silent);
    rig.ask("scanEcus", json!({"bus_name": "HS"}));
    let refused = texts(&mut rig, 1).await.remove(0);
    assert_eq!(problem(&refused), (409, "vehicle-may-move".to_owned()));
    let detail = refused.message["detail"].as_str().unwrap();
    assert!(detail.contains("vehicle_stands") && detail.contains("\"HS\""), "{detail}");
    rig.ask("scanEcus", hs_bus());
    let reply = texts(&mut rig, 1).await.remove(0);
    assert_eq!(reply.action, "ecusFound", "{reply:?}");
}

#[tokio::test(start_paused = true)]
async fn low_identifiers_are_scanned_only_in_ranges_that_are_named() {
    let mut rig = Rig::configured().await;
    let ecu =
        Ecu::attach(&rig.buses[0], 0x6A0, 0x6A8, |_| vec![(std::time::Duration::ZERO, vec![0x7E, 0x00])]);
    rig.ask("scanEcus", hs_bus());
    assert_eq!(ids(&texts(&mut rig, 1).await[0].message), []);
    assert_eq!(ecu.requests().len(), 0);
    rig.ask(
        "scanEcus",
        json!({"bus_name": "HS", "vehicle_stands": true, "ranges": [{"first_id": 0x6A0, "last_id": 0x6A7}]}),
    );
    assert_eq!(ids(&texts(&mut rig, 1).await[0].message), [(0x6A0, 0x6A8)]);
    let wrong = json!({"bus_name": "HS", "ranges": [{"first_id": 0x100, "last_id": 0x6FF}]});
    assert_eq!(problem(&rig.request("scanEcus", wrong).await).0, 400);
}
