//! `connector-sim vehicle --doip` as a process.

use std::process::Stdio;

use connector_agent::protocol::doip::{ActivationCode, Payload, PowerMode};
use connector_sim::vehicle::ecu::toy_key;
use connector_test_support::HANG;
use connector_test_support::data::{file, vehicles_file};
use connector_test_support::doip_tool::{DoipTool, address, ask_by_udp};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// Starts the process, and returns the line that it prints when it is ready.
async fn start(arguments: &[&str]) -> (Child, Value) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connector-sim"));
    command.args(["vehicle", "--doip", "127.0.0.1:0", "--doip-announce-to", "127.0.0.1:9"]);
    // this machine may be busy
    command.args(["--doip-initial-inactivity-ms", "60000"]);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(HANG, lines.next_line()).await.unwrap().unwrap().unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

/// Starts the process with a vehicle of the file and these arguments.
async fn start_golf(more: &[&str]) -> (Child, Value) {
    let vehicles = vehicles_file();
    let arguments = [&["--vehicles", &vehicles, "--platform", "VOLKSWAGEN_GOLF_MK7"], more].concat();
    start(&arguments).await
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_raw(child.id().unwrap() as i32).unwrap(), signal).unwrap();
}

#[tokio::test]
async fn a_vehicle_of_the_file_is_read_and_flashed_behind_its_gateway() {
    let memory = tempfile::tempdir().unwrap();
    let directory = memory.path().to_str().unwrap();
    let (mut child, ready) = start_golf(&["--memory-dir", directory, "--erase-ms", "100"]).await;
    let gateway = &ready["doip"][0];
    assert_eq!((&ready["vin"], &ready["slcan"]), (&json!("WVWLU5SP1H0375027"), &Value::Null));
    assert_eq!(gateway["ecus"][0], json!({"ecu": "gateway", "logical_address": "0x4010", "can": null}));
    let engine = json!({"ecu": "engine", "logical_address": "0x4011", "can": "0x7E0/0x7E8"});
    assert_eq!(gateway["ecus"][1], engine);

    let mut tool = DoipTool::activated(address(&ready, "/doip/0/tcp")).await;
    let vin = tool.ask(0x4010, &[0x22, 0xF1, 0x90]).await;
    assert_eq!(vin[3..], *b"WVWLU5SP1H0375027");
    assert_eq!(tool.ask(0x4011, &[0x10, 2]).await[..2], [0x50, 2]);
    let seed = tool.ask(0x4011, &[0x27, 1]).await;
    let key = toy_key(1, seed[2..].try_into().unwrap());
    assert_eq!(tool.ask(0x4011, &[&[0x27, 2], &key[..]].concat()).await, [0x67, 2]);
    assert_eq!(tool.ask(0x4011, &[0x31, 1, 0xFF, 0]).await, [0x71, 1, 0xFF, 0, 0]);
    let download = [0x34, 0, 0x44, 0, 0, 0x10, 0, 0, 0, 1, 0];
    assert_eq!(tool.ask(0x4011, &download).await, [0x74, 0x20, 0x0F, 0xFF]);
    assert_eq!(tool.ask(0x4011, &[&[0x36, 1], &[0x5A; 256][..]].concat()).await, [0x76, 1]);
    assert_eq!(tool.ask(0x4011, &[0x37]).await, [0x77]);
    let image = std::fs::read(memory.path().join("0x4011-0x00001000.bin")).unwrap();
    assert_eq!(image, [0x5A; 256]);

    let udp = address(&ready, "/doip/0/udp");
    let mode = Payload::PowerModeResponse;
    assert_eq!(ask_by_udp(udp, Payload::PowerModeRequest).await, mode(PowerMode::Ready));
    signal(&child, Signal::USR1);
    let switched =
        async { while ask_by_udp(udp, Payload::PowerModeRequest).await != mode(PowerMode::NotReady) {} };
    timeout(HANG, switched).await.unwrap();
    signal(&child, Signal::TERM);
    assert!(timeout(HANG, child.wait()).await.unwrap().unwrap().success());
}

#[tokio::test]
async fn the_command_offers_refusals_a_second_gateway_and_a_can_bus() {
    let directory = tempfile::tempdir().unwrap();
    let can = directory.path().join("can");
    let more =
        ["--slcan", can.to_str().unwrap(), "--doip-second", "127.0.0.1:0", "--doip-activation", "0x05"];
    let (_child, ready) = start_golf(&more).await;
    assert!(can.exists());
    let ecus = |gateway: usize| ready["doip"][gateway]["ecus"].as_array().unwrap().len();
    assert_eq!(ecus(0) + ecus(1), ready["ecus"].as_array().unwrap().len() + 2);
    assert_eq!(ready["doip"][1]["logical_address"], "0x4020");
    for gateway in ["/doip/0/tcp", "/doip/1/tcp"] {
        let mut tool = DoipTool::connect(address(&ready, gateway)).await;
        assert_eq!(tool.activate().await, ActivationCode::RejectedConfirmation);
    }
}

#[tokio::test]
async fn the_recorded_gateway_is_played() {
    let (_child, ready) =
        start(&["--doip-recording", &file("recordings/doip-gateway.txt").to_string_lossy()]).await;
    assert_eq!((&ready["platform"], &ready["doip"][0]["logical_address"]), (&Value::Null, &json!("0x4010")));
    let mut tool = DoipTool::activated(address(&ready, "/doip/0/tcp")).await;
    assert_eq!(tool.ask(0x4010, &[0x10, 3]).await, [0x50, 3, 0, 0x32, 1, 0xF4]);
    let answer = ask_by_udp(address(&ready, "/doip/0/udp"), Payload::IdentificationRequest).await;
    let Payload::Announcement(announcement) = answer else { panic!("{answer:?}") };
    assert_eq!(announcement.vin().unwrap().as_str(), "BAUNEE4MZ17042403");
}
