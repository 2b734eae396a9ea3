//! Scripts on raw CAN, TP2.0, K-line, DoIP and terminal 15.

use clap::Parser as _;
use connector_agent::protocol::tp20::TimeByte;
use connector_hal::timer::TimerKind;
use connector_operator::doip_entity::ListenConfig;
use connector_sim::vehicle::doip::{FIRST_ECU, GATEWAY};
use connector_sim::vehicle::kline::KlineArgs;
use connector_sim::vehicle::{DoipConfig, DoipGateway, Tp20EcuConfig, Vehicle, VehicleConfig};
use connector_test_support::agent::{TestAgent, bus};
use connector_test_support::data::catalogue;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_frames_go_both_ways_and_wrong_ones_are_refused() {
    let Some((_rig, result)) = in_vehicle("VOLKSWAGEN_GOLF_MK7", "raw", None).await else { return };
    assert!(result["answer"].as_str().unwrap().starts_with("027E00"), "{result}");
    assert!(result["seen"][0][0].is_number(), "{result}");
    for (name, status) in [
        ("too long", 3),
        ("not hexadecimal", 3),
        ("receive-only", 9),
        ("no bus", 5),
        ("no bus name", 3),
        ("identifier too great", 3),
    ] {
        assert_eq!(result[name], status, "{name}: {result}");
    }
}

/// A vehicle of which only the ECUs behind TP2.0 matter.
pub(super) fn without_vin() -> VehicleRecord {
    VehicleRecord {
        make: "Volkswagen".to_owned(),
        platform: "GOLF_MK5".to_owned(),
        vin: None,
        vin_exchanges: Vec::new(),
        ecus: Vec::new(),
    }
}

/// The ECUs with times that a busy machine keeps too.
pub(super) fn patient(mut ecus: Vec<Tp20EcuConfig>) -> Vec<Tp20EcuConfig> {
    for ecu in &mut ecus {
        ecu.tolerance = Duration::from_secs(60);
        ecu.parameters.t1 = TimeByte(0xFE);
    }
    ecus
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_reads_ecus_behind_tp20() {
    let Some(mut command) = script("tp20").await else { return };
    let (sandbox, bus) = (Sandbox::start(1).await, bus());
    let connector = sandbox.connectors[0].clone();
    let ecus = patient(Tp20EcuConfig::golf());
    let config =
        VehicleConfig { tp20: ecus.clone(), timer: TimerKind::Precise, ..VehicleConfig::new(without_vin()) };
    let _vehicle = Vehicle::start(&config, &bus);
    let _agent = TestAgent::start(&sandbox, &connector, &bus, AgentSettings::default());
    sandbox.portal(&connector).await.sees_online().await;
    let gateway = TestGateway::start(&sandbox, None).await;
    let (asked, answered): (Vec<Value>, Vec<Vec<String>>) = ecus
        .iter()
        .map(|one| {
            let requests: Vec<_> = one.exchanges.iter().map(|exchange| hex(&exchange.request)).collect();
            let answers =
                one.exchanges.iter().map(|exchange| hex(&exchange.response).to_uppercase()).collect();
            (json!({"logical_address": one.ecu.get(), "requests": requests}), answers)
        })
        .unzip();
    let job = with(job(&sandbox, &gateway, &connector, None).await, json!({"ecus": asked}));
    let result = run_to_end(command.arg(job.to_string())).await;
    let failures = json!({"absent": 4, "no bus": 5, "address too great": 3});
    assert_eq!(result, json!({"answers": answered, "failures": failures}));
}

/// The K-line arguments of `connector-sim vehicle`.
#[derive(clap::Parser)]
pub(super) struct Line {
    #[command(flatten)]
    pub(super) kline: KlineArgs,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_reads_an_ecu_on_a_kline() {
    let Some(mut command) = script("kline").await else { return };
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("line");
    let arguments = ["vehicle", "--kline-init", "fast", "--kline-bit-rate", "10400", "--kline"];
    let arguments = arguments.iter().map(std::ffi::OsStr::new).chain([device.as_os_str()]);
    let _line = Line::parse_from(arguments).kline.start(None).unwrap().unwrap();
    let sandbox = Sandbox::start(1).await;
    let connector = sandbox.connectors[0].clone();
    let settings = AgentSettings { klines: vec![device], ..AgentSettings::default() };
    let _agent = TestAgent::start(&sandbox, &connector, &bus(), settings);
    sandbox.portal(&connector).await.sees_online().await;
    let gateway = TestGateway::start(&sandbox, None).await;
    let job = with(job(&sandbox, &gateway, &connector, None).await, json!({"pin": 1}));
    let result = run_to_end(command.arg(job.to_string())).await;
    assert_eq!(result["answer"], hex(b"\x5A\x90WVWZZZ1KZ6W000001").to_uppercase());
    assert_eq!(result["codes"], json!(["58020100E1030061", "54FF00", "5800"]));
    assert_eq!(result["failures"], json!({"absent": 4, "no bus": 5, "address too great": 3}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_reads_an_ecu_behind_doip() {
    let Some(mut command) = script("doip").await else { return };
    let vehicle = VehicleConfig::new(catalogue().find("VOLKSWAGEN_GOLF_MK7").unwrap().clone());
    let listen = ListenConfig {
        announce_to: Some("127.0.0.1:9".parse().unwrap()),
        ..ListenConfig::new("127.0.0.1:0".parse().unwrap())
    };
    let entity = DoipGateway::start(&vehicle, DoipConfig::new(&vehicle, listen)).await.unwrap();
    let sandbox = Sandbox::start(1).await;
    let connector = sandbox.connectors[0].clone();
    let settings =
        AgentSettings { doip: Some(entity.addresses().tcp.to_string()), ..AgentSettings::default() };
    let _agent = TestAgent::start(&sandbox, &connector, &bus(), settings);
    sandbox.portal(&connector).await.sees_online().await;
    let gateway = TestGateway::start(&sandbox, None).await;
    let nodes = vehicle.record.nodes();
    let exchange = &nodes[0].exchanges[0];
    let more = json!({"gateway": GATEWAY.get(), "ecu": FIRST_ECU, "request": hex(&exchange.request)});
    let job = with(job(&sandbox, &gateway, &connector, None).await, more);
    let result = run_to_end(command.arg(job.to_string())).await;
    assert_eq!(result["answer"], hex(&exchange.response).to_uppercase());
    assert_eq!((&result["codes"][1], &result["codes"][2]), (&json!("54"), &json!("59027F")), "{result}");
    let failures = json!({"absent": 14, "another gateway": 4, "no bus": 5, "address too great": 3});
    assert_eq!(result["failures"], failures);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_learns_terminal_15_immediately_and_on_every_change() {
    let Some(mut command) = script("terminal15").await else { return };
    let sandbox = Sandbox::start(1).await;
    let settings = AgentSettings::default();
    let rig = Rig::start_in(sandbox, "VOLKSWAGEN_GOLF_MK7", settings).await;
    let gateway = TestGateway::start(&rig.sandbox, None).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let mut child = command.arg(job.to_string()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await.unwrap();
        line.unwrap().unwrap_or_default()
    };
    assert_eq!(next().await, "\"ON\"");
    rig.agent.board.set_ignition(Some(false));
    assert_eq!(next().await, "\"OFF\"");
    let last: Value = serde_json::from_str(&next().await).unwrap();
    assert_eq!(last, json!({"states": ["ON", "OFF"]}));
}
