//! The audit of a whole agent, and the command that checks it.

use std::path::{Path, PathBuf};
use std::process::Output;

use connector_agent::config::Config;
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::codec::{Payload, PduFlags, Tag};
use connector_hal::can::virtual_bus::VirtualBus;
use connector_sim::vehicle::ecu::{EcuStatus, Session};
use connector_test_support::agent::{AgentSettings, bus, vehicle};
use connector_test_support::config::hs;
use connector_test_support::{data, now, soon};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::watch;
use uuid::Uuid;

use super::scripted::{Rig, Websocket};

/// A vehicle with an engine ECU at 0x7E0.
const VEHICLE: &str = "AUDI_A3_MK3";
const CONNECTION: Uuid = Uuid::from_u128(0x97a0_0001_0000_4000_8000_0000_0000_0001);
/// The key of SecurityAccess, and the data of a transfer, of a written identifier and of a frame.
const KEY: [u8; 5] = [0x5E, 0xC2, 0xE7, 0x1D, 0x3A];
const BLOCK: [u8; 24] = [0xB1; 24];
const WRITTEN: [u8; 4] = [0xD7, 0xA9, 0xC6, 0x4B];

/// An agent with this state directory. The policy refuses SecurityAccess, a reset, and to write by identifier.
async fn start(bus: &VirtualBus, state: &Path) -> Rig {
    let policy = "rule = [{ services = [0x11, 0x27, 0x2E], require = [\"never\"] }]";
    Rig::start_on(bus, AgentSettings::default(), |config: &mut Config| {
        config.connector.state_directory = Some(state.to_owned());
        config.policy = toml::from_str(policy).unwrap();
    })
    .await
}

async fn open(websocket: &mut Websocket, ecu: (u32, u32)) {
    let open = json!({"connection_uuid": CONNECTION, "ticket_id": 7_014_044, "unattended": true});
    websocket.open("1", open).await;
    let buses = json!({"connection_uuid": CONNECTION, "buses": [hs()]});
    assert_eq!(websocket.ask("2", "configureBuses", buses).await["action"], "busesConfigured");
    let isotp = json!({"bus_name": "HS", "request_id": ecu.0, "response_id": ecu.1});
    let channel = json!({"connection_uuid": CONNECTION, "channel": 1, "isotp_channel": isotp});
    assert_eq!(websocket.ask("3", "openChannel", channel).await["action"], "channelOpened");
}

async fn close(websocket: &mut Websocket) -> Value {
    let closed = websocket.ask("9", "closeConnection", json!({"connection_uuid": CONNECTION})).await;
    assert_eq!(closed["action"], "connectionClosed", "{closed}");
    closed["message"]["audit_head"].clone()
}

fn log(state: &Path) -> String {
    std::fs::read_to_string(state.join("audit.jsonl")).unwrap()
}

fn kinds(log: &str) -> Vec<String> {
    let kind = |line| serde_json::from_str::<Value>(line).unwrap()["entry"].as_str().unwrap().to_owned();
    log.lines().map(kind).collect()
}

async fn audit(state: &Path, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connector-agent"));
    command.arg("audit").args(arguments).arg("--directory").arg(state);
    let output = soon("the command", command.output()).await.unwrap();
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    (output, text)
}

/// A session with refusals, consent by the ticket, and the beginning of a flash. Returns the head of the audit.
async fn flash(rig: &Rig, ecu: (u32, u32), status: &mut watch::Receiver<EcuStatus>) -> (Websocket, Link) {
    let (mut websocket, _) = rig.online().await;
    open(&mut websocket, ecu).await;
    let mut operator = Link::new(Role::Operator, Tag::from(CONNECTION), now());
    let key = [&[0x27, 0x02][..], &KEY].concat();
    let write = [&[0x2E, 0xF1, 0x5A][..], &WRITTEN].concat();
    let block = [&[0x36, 0x01][..], &BLOCK].concat();
    let requests = [&[0x11, 0x01][..], &[0x11, 0x01], &key, &write, &[0x10, 0x02], &block];
    for request in requests {
        let pdu = Payload::Pdu { address: 0, flags: PduFlags::default(), data: request };
        operator.push(now(), now(), 1, pdu).unwrap();
    }
    while let Some(message) = operator.poll_message(now()) {
        websocket.relay(message).await;
    }
    let programming = status.wait_for(|ecu| ecu.session == Session::Programming);
    soon("the ECU's session", programming).await.unwrap();
    (websocket, operator)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_leaves_a_chain_without_its_keys_and_data_and_the_cloud_learns_the_head() {
    let directory = tempfile::tempdir().unwrap();
    let (state, bus, record) = (directory.path().join("state"), bus(), data::record(VEHICLE));
    let vehicle = vehicle(&record, &bus);
    let address = record.ecus[0].address;
    let ecu = (address.request.raw(), address.response.raw());
    let mut status = vehicle.ecu(address).unwrap().status.clone();
    let rig = start(&bus, &state).await;
    let (mut websocket, _operator) = flash(&rig, ecu, &mut status).await;
    let head = close(&mut websocket).await;

    let log = log(&state);
    let given = ["consent-given"; 2];
    let refused = ["refused"; 3];
    let begun = ["programming-begun"];
    let ended = ["consent-ended", "consent-ended", "refused-again", "programming-ended"];
    assert_eq!(kinds(&log), [&given[..], &refused, &begun, &ended].concat(), "{log}");
    assert_eq!(log.matches("\"ticket\":\"7014044\"").count(), log.lines().count(), "{log}");
    let lower = log.to_lowercase();
    for secret in [&KEY[..], &BLOCK, &WRITTEN] {
        for separator in ["", " ", ",", ", "] {
            let hex: Vec<_> = secret.iter().map(|byte| format!("{byte:02x}")).collect();
            let decimal: Vec<_> = secret.iter().map(u8::to_string).collect();
            assert!(!lower.contains(&hex.join(separator)), "{log}");
            assert!(separator.is_empty() || !log.contains(&decimal.join(separator)), "{log}");
        }
    }

    let head = head.as_str().unwrap().to_owned();
    let (output, text) = audit(&state, &["verify", "--head", &head]).await;
    assert!(output.status.success(), "{text}");
    assert_eq!(text, format!("{}: 10 lines, intact\nhead: {head}\n", state.join("audit.jsonl").display()));
    let (_, text) = audit(&state, &["show", "--last", "1"]).await;
    assert!(text.contains("the connection ended") && text.lines().count() == 1, "{text}");
    let (_, text) = audit(&state, &["show"]).await;
    assert!(text.contains("the ticket gave consent to programming"), "{text}");
    assert!(text.contains("SecurityAccess 27 sub-function 02"), "{text}");

    let changed = log.replacen("\"sub_function\":\"01\"", "\"sub_function\":\"02\"", 1);
    std::fs::write(state.join("audit.jsonl"), &changed).unwrap();
    let (output, text) = audit(&state, &["verify"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(text.starts_with(&format!("{}:4: ", state.join("audit.jsonl").display())), "{text}");
    let without_last = log.lines().count() - 1;
    let cut: String = log.split_inclusive('\n').take(without_last).collect();
    std::fs::write(state.join("audit.jsonl"), cut).unwrap();
    let (output, text) = audit(&state, &["verify", "--head", &head]).await;
    assert_eq!(output.status.code(), Some(1), "lines that are missing at the end: {text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_the_agent_was_killed_the_chain_of_the_audit_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let (state, bus, record) = (directory.path().join("state"), bus(), data::record(VEHICLE));
    let vehicle = vehicle(&record, &bus);
    let address = record.ecus[0].address;
    let ecu = (address.request.raw(), address.response.raw());
    let mut status = vehicle.ecu(address).unwrap().status.clone();
    let rig = start(&bus, &state).await;
    let (websocket, operator) = flash(&rig, ecu, &mut status).await;
    let begun = async {
        while !std::fs::read_to_string(state.join("audit.jsonl")).is_ok_and(|log| log.contains("begun")) {
            tokio::task::yield_now().await;
        }
    };
    soon("the beginning of programming in the audit", begun).await;
    rig.agent.kill().await;
    drop((websocket, operator));
    let log = log(&state);
    std::fs::write(state.join("audit.jsonl"), &log[..log.len() - 20]).unwrap();
    let (output, text) = audit(&state, &["verify"]).await;
    assert_eq!(output.status.code(), Some(1), "the last line is torn: {text}");

    let rig = start(&bus, &state).await;
    let (mut websocket, _) = rig.online().await;
    open(&mut websocket, ecu).await;
    let head = close(&mut websocket).await;
    let (output, text) = audit(&state, &["verify", "--head", head.as_str().unwrap()]).await;
    assert!(output.status.success() && text.contains("1 incomplete and marked"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_audit_that_cannot_be_written_stops_nothing() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let state: PathBuf = file.path().join("state");
    let (bus, record) = (bus(), data::record(VEHICLE));
    let vehicle = vehicle(&record, &bus);
    let address = record.ecus[0].address;
    let ecu = (address.request.raw(), address.response.raw());
    let mut status = vehicle.ecu(address).unwrap().status.clone();
    let rig = start(&bus, &state).await;
    let (mut websocket, _operator) = flash(&rig, ecu, &mut status).await;
    assert_eq!(close(&mut websocket).await, Value::Null);
    let (output, _) = audit(&state, &["verify"]).await;
    assert_eq!(output.status.code(), Some(1));
}

#[tokio::test]
async fn commands_end_with_their_status_when_no_one_reads_their_output() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("agent.toml");
    std::fs::write(&file, "[connector]\n").unwrap();
    for (arguments, status) in [(&["check"][..], 78), (&["policy", "explain", "--pdu", "22F190"], 0)] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let mut command = Command::new(env!("CARGO_BIN_EXE_connector-agent"));
        command.args(arguments).stdout(writer.try_clone().unwrap()).stderr(writer);
        if arguments == ["check"] {
            command.arg("--config").arg(&file);
        }
        let ended = command.status().await.unwrap();
        assert_eq!(ended.code(), Some(status), "{arguments:?}");
    }
}
