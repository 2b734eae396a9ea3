//! An independent DoIP tool (udsoncan over doipclient) at the simulated gateway.
//!
//! Needs a Python with these packages, named by `CONNECTOR_TEST_PYTHON` (default: `.venv/bin/python` in the
//! workspace). Without it, the tests print one line `SKIPPED: …` and pass.

use std::time::Duration;

use connector_agent::protocol::doip::{ActivationCode, DiagnosticNackCode, PowerMode, ProtocolVersion};
use connector_operator::doip_entity::tls::EntityTls;
use connector_operator::doip_entity::{Answer, ListenConfig, Timeouts};
use connector_sim::vehicle::doip::{DoipRecording, FIRST_ECU};
use connector_sim::vehicle::ecu::EcuConfig;
use connector_sim::vehicle::{DoipConfig, DoipGateway};
use connector_test_support::data::{DOIP_LOG, golf};
use connector_test_support::hex;
use connector_test_support::peers::{Job, check, peer, run, with_trouble_codes};
use serde_json::{Value, json};

const MODULES: &str = "doipclient, udsoncan";

fn listen() -> ListenConfig {
    ListenConfig {
        announce_to: Some("127.0.0.1:9".parse().unwrap()),
        ..ListenConfig::new("127.0.0.1:0".parse().unwrap())
    }
}

/// The timeouts of a gateway, long enough for a busy machine.
fn long_timeouts() -> Timeouts {
    Timeouts { initial_inactivity: Duration::from_secs(60), ..Timeouts::default() }
}

async fn gateway(change: impl FnOnce(&mut DoipConfig)) -> DoipGateway {
    let vehicle = golf();
    let mut config = DoipConfig::new(&vehicle, listen());
    config.entity.timeouts = long_timeouts();
    change(&mut config);
    DoipGateway::start(&vehicle, config).await.unwrap()
}

/// The output of `doip_peer.py` for a gateway.
async fn ask(gateway: &DoipGateway, steps: Value) -> Option<Value> {
    let mut peer = peer("doip_peer.py", "doipclient at the simulated gateway", MODULES).await?;
    let addresses = gateway.addresses();
    let job = json!({"tcp": addresses.tcp.port(), "udp": addresses.udp.port(),
        "tls": addresses.tls.map(|tls| tls.port()), "steps": steps});
    peer.arg(job.to_string());
    Some(run(peer).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tool_reads_and_flashes_an_ecu_behind_the_simulated_gateway() {
    let Some(mut peer) = peer("uds_peer.py", "udsoncan over doipclient", MODULES).await else { return };
    let vehicle = golf();
    let gateway = gateway(|_| {}).await;
    let nodes = vehicle.record.nodes();
    let place = with_trouble_codes(&vehicle.record.platform, &nodes);
    let (node, address) = (&nodes[place], FIRST_ECU + u16::try_from(place).unwrap());
    let exchange = &node.exchanges[0];
    let job = Job { read: exchange.request.clone(), size: 100_000 };
    let port = gateway.addresses().tcp.port().to_string();
    peer.args(["doip", "127.0.0.1", &port, &address.to_string(), &job.arguments()]);
    let result = run(peer).await;
    let memory = gateway.memory(address.into());
    let ecu = EcuConfig::new(&vehicle.record.platform, node);
    check(&result, &job, &exchange.response, &ecu, memory.last().map(AsRef::as_ref));
    assert!(gateway.anomalies().is_empty(), "{:?}", gateway.anomalies());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn discovery_status_and_power_mode_are_understood() {
    let gateway = gateway(|config| {
        config.entity.version = ProtocolVersion::V2019;
        config.entity.max_sockets = 3;
    })
    .await;
    let vin = golf().record.vin.unwrap().to_string();
    gateway.set_power_mode(Some(PowerMode::NotReady)).await;
    let steps = json!([{"identify": {}}, {"identify": {"vin": vin}}, {"identify": {"eid": "020000004010"}},
        {"status": 1}, {"power_mode": 1}, {"alive": 1}]);
    let Some(result) = ask(&gateway, steps).await else { return };
    let identification = json!({"vin": vin, "logical_address": 0x4010, "eid": "020000004010",
        "gid": "020000004010", "further_action": 0, "sync_status": 0});
    let status = json!({"node_type": 0, "max_sockets": 3, "open_sockets": 1, "max_data_size": 0x10_0000});
    assert_eq!(result, json!([identification, identification, identification, status, 0, 0x4010]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_of_routing_are_reported_with_their_codes() {
    for code in [0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x11] {
        let gateway =
            gateway(|config| config.entity.activation.answer = Answer::Always(ActivationCode::from(code)))
                .await;
        let Some(result) = ask(&gateway, json!([{"activate": 0}])).await else { return };
        assert_eq!(result, json!([code]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_ecus_answer_on_one_connection_and_strange_ones_are_refused() {
    let vehicle = golf();
    let gateway = gateway(|_| {}).await;
    let nodes = vehicle.record.nodes();
    let asks: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(place, node)| json!({"ask": {"to": usize::from(FIRST_ECU) + place, "pdu": hex(&node.exchanges[0].request)}}))
        .collect();
    let expected: Vec<_> = nodes.iter().map(|node| json!(hex(&node.exchanges[0].response))).collect();
    let Some(result) = ask(&gateway, json!(asks)).await else { return };
    assert_eq!(result, json!(expected));

    let vin = vehicle.record.vin.unwrap();
    let steps = json!([{"ask": {"to": 0x4010, "pdu": "22f190"}}, {"ask": {"to": 0x4711, "pdu": "22f190"}},
        {"functional": {"to": 0xE400, "pdu": "3e00", "answers": nodes.len() + 1}}]);
    let result = ask(&gateway, steps).await.unwrap();
    assert_eq!(result[0], format!("62f190{}", hex(vin.as_str().as_bytes())));
    assert_eq!(result[1], json!({"nack": u8::from(DiagnosticNackCode::UnknownTargetAddress)}));
    let mut responders: Vec<u64> = Vec::new();
    for answer in result[2].as_array().unwrap() {
        assert_eq!(answer[1], "7e00");
        responders.push(answer[0].as_u64().unwrap());
    }
    responders.sort_unstable();
    let all = std::iter::once(0x4010).chain((u64::from(FIRST_ECU)..).take(nodes.len()));
    assert_eq!(responders, all.collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn routing_by_tls_only_is_refused_without_tls_and_granted_with_it() {
    let tls = EntityTls::self_signed(&["127.0.0.1".to_owned()]).unwrap();
    let certificate = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(certificate.path(), &tls.certificate).unwrap();
    let gateway = gateway(|config| {
        config.listen.tls = Some((0, tls.config));
        config.entity.activation.tls_required = true;
    })
    .await;
    let steps =
        json!([{"activate": 0}, {"secure": certificate.path()}, {"ask": {"to": 0x4011, "pdu": "3e00"}}]);
    let Some(result) = ask(&gateway, steps).await else { return };
    assert_eq!(result, json!([0x07, 0x10, "7e00"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_ecus_send_response_pending() {
    let mut vehicle = golf();
    vehicle.timing.processing = Duration::from_millis(300);
    let mut config = DoipConfig::new(&vehicle, listen());
    config.entity.timeouts = long_timeouts();
    let gateway = DoipGateway::start(&vehicle, config).await.unwrap();
    let Some(result) = ask(&gateway, json!([{"ask_all": {"to": 0x4011, "pdu": "3e00"}}])).await else {
        return;
    };
    assert_eq!(result, json!([["7f3e78", "7e00"]]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_recorded_gateway_answers_as_recorded() {
    let recording = DoipRecording::parse(DOIP_LOG).unwrap();
    let gateway = DoipGateway::play(&recording, listen(), long_timeouts()).await.unwrap();
    let steps = json!([{"identify": {}}, {"status": 1}, {"power_mode": 1},
        {"ask": {"to": 0x4010, "pdu": "1003"}}, {"ask_all": {"to": 0x4010, "pdu": "1002"}},
        {"ask": {"to": 0x4010, "pdu": "1002"}}, {"ask": {"to": 0x4010, "pdu": "3e00"}}]);
    let Some(result) = ask(&gateway, steps).await else { return };
    assert_eq!(result[0]["vin"], "BAUNEE4MZ17042403");
    assert_eq!(result[0]["eid"], "001a37bfee74");
    assert_eq!((&result[1]["max_sockets"], &result[1]["max_data_size"]), (&json!(1), &json!(0xFFF)));
    assert_eq!(result[2], 0);
    assert_eq!(result[3], "5003003201f4");
    assert_eq!(result[4], json!(["7f1078", "5002003201f4"]));
    assert_eq!((&result[5], &result[6]), (&json!("7f107e"), &json!("7f3e11")));
    let anomalies = gateway.anomalies();
    assert_eq!(anomalies.len(), 1);
    assert_eq!(anomalies[0].1.unrecorded_requests, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gateways_of_a_vehicle_share_its_ecus_and_are_distinguished() {
    let vehicle = golf();
    let mut config = DoipConfig::new(&vehicle, listen());
    config.entity.timeouts = long_timeouts();
    let (first, second) = config.split(&vehicle, listen());
    let nodes = vehicle.record.nodes();
    let last = usize::from(FIRST_ECU) + nodes.len() - 1;
    let response = json!(hex(&nodes[nodes.len() - 1].exchanges[0].response));
    let request = hex(&nodes[nodes.len() - 1].exchanges[0].request);
    let steps = json!([{"identify": {}}, {"ask": {"to": last, "pdu": request}}]);
    let vin = json!(vehicle.record.vin.unwrap().as_str());
    for (config, address, answer) in [(first, 0x4010, json!({"nack": 3})), (second, 0x4020, response)] {
        let gateway = DoipGateway::start(&vehicle, config).await.unwrap();
        let Some(result) = ask(&gateway, steps.clone()).await else { return };
        assert_eq!((&result[0]["vin"], &result[0]["logical_address"]), (&vin, &json!(address)));
        assert_eq!(result[1], answer);
    }
}
