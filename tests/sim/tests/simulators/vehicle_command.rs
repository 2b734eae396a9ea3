//! `connector-sim vehicle` as a process. A tool sends requests through its SLCAN device.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use connector_hal::can::slcan::{DEFAULT_BAUD, Slcan};
use connector_hal::can::{CanBus, CanSettings};
use connector_sim::vehicle::catalogue::EcuAddress;
use connector_sim::vehicle::ecu::toy_key;
use connector_sim::vehicle::hex;
use connector_test_support::can_tool::Tool;
use connector_test_support::data::file;
use connector_test_support::data::vehicles_file;
use connector_test_support::id;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(20);

/// The recorded flash session.
fn log() -> String {
    file("recordings/ecu-flash.candump.log").to_str().unwrap().to_owned()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connector-sim"));
    command.arg("vehicle").args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Starts the process, and returns the line that it prints when it is ready.
async fn start(arguments: &[&str]) -> (Child, Value) {
    let mut child = command(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

async fn fails(arguments: &[&str]) -> String {
    let Output { status, stderr, .. } = timeout(LIMIT, command(arguments).output()).await.unwrap().unwrap();
    assert!(!status.success());
    String::from_utf8(stderr).unwrap()
}

async fn stop(mut child: Child, signal: Signal) {
    let pid = Pid::from_raw(child.id().unwrap() as i32).unwrap();
    kill_process(pid, signal).unwrap();
    let status = timeout(LIMIT, child.wait()).await.unwrap().unwrap();
    assert!(status.success(), "{status}");
}

async fn tool(device: &Path, request: u32, response: u32) -> Tool {
    let device = device.to_str().unwrap();
    let mut can = Slcan::open(device, device, DEFAULT_BAUD).unwrap();
    let settings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
    can.configure(settings).await.unwrap();
    let address = EcuAddress { request: id(request), response: id(response), extended: None };
    Tool::physical_over(Box::new(can), address)
}

async fn ask(tool: &mut Tool, request: &str) -> String {
    let (answers, _) = tool.ask(&hex::parse(request).unwrap(), LIMIT).await;
    answers.last().map(|answer| hex::format(&answer.pdu)).unwrap_or_default()
}

#[tokio::test]
async fn a_vehicle_of_the_file_answers_and_is_flashed_behind_its_slcan_device() {
    let directory = tempfile::tempdir().unwrap();
    let (slcan, memory) = (directory.path().join("can"), directory.path().join("memory"));
    let platform = "CHRYSLER_PACIFICA_2018";
    let (child, ready) = start(&[
        "--vehicles",
        &vehicles_file(),
        "--platform",
        platform,
        "--slcan",
        slcan.to_str().unwrap(),
        "--memory-dir",
        memory.to_str().unwrap(),
        "--erase-ms",
        "100",
        "--load",
        "20",
    ])
    .await;
    assert_eq!(ready["platform"], platform);
    assert_eq!(ready["slcan"], json!(slcan));
    assert_eq!((&ready["bit_rate"], &ready["vin"]), (&json!(500_000), &json!("1C4PSBEH6L9016061")));
    assert_eq!(ready["ecus"].as_array().unwrap().len(), 7);
    assert_eq!(
        ready["ecus"][5],
        json!({"ecu":"engine","request_id":"0x7E0","response_id":"0x7E8","extended_address":null})
    );

    let mut tool = tool(&slcan, 0x7E0, 0x7E8).await;
    assert_eq!(ask(&mut tool, "0902").await, "4902013143345053424548364C39303136303631");
    assert_eq!(ask(&mut tool, "1002").await, "5002003201F4");
    let seed = hex::parse(&ask(&mut tool, "2701").await).unwrap();
    let key = toy_key(1, seed[2..].try_into().unwrap());
    assert_eq!(ask(&mut tool, &format!("2702{}", hex::format(&key))).await, "6702");
    assert_eq!(ask(&mut tool, "3101FF00").await, "7101FF0000");
    assert_eq!(ask(&mut tool, "3400440000100000000100").await, "74200FFF");
    assert_eq!(ask(&mut tool, &format!("3601{}", "5A".repeat(256))).await, "7601");
    assert_eq!(ask(&mut tool, "37").await, "77");
    assert_eq!(std::fs::read(memory.join("0x7E0-0x00001000.bin")).unwrap(), [0x5A; 256]);

    stop(child, Signal::TERM).await;
    assert!(!slcan.exists() && slcan.read_link().is_err(), "the link is removed");
}

#[tokio::test]
async fn a_recording_answers_behind_its_slcan_device() {
    let directory = tempfile::tempdir().unwrap();
    let slcan = directory.path().join("can");
    let (child, ready) = start(&["--recording", &log(), "--slcan", slcan.to_str().unwrap()]).await;
    assert_eq!((&ready["platform"], &ready["vin"]), (&Value::Null, &Value::Null));
    assert_eq!(ready["ecus"][0]["response_id"], "0x71A");
    let mut tool = tool(&slcan, 0x710, 0x71A).await;
    assert_eq!(ask(&mut tool, "1003").await, "5003003201F4");
    assert_eq!(ask(&mut tool, "31010203").await, "71010203");
    stop(child, Signal::INT).await;
    assert!(slcan.read_link().is_err(), "the link is removed");
}

#[tokio::test]
async fn unsupported_simulations_are_refused_with_a_reason() {
    let directory = tempfile::tempdir().unwrap();
    let slcan = directory.path().join("can");
    let slcan = slcan.to_str().unwrap();
    let unknown =
        fails(&["--vehicles", &vehicles_file(), "--platform", "HONDA_CIVC", "--slcan", slcan]).await;
    assert!(
        unknown.contains("no vehicle has the platform HONDA_CIVC; similar names: HONDA_CIVIC"),
        "{unknown}"
    );
    let missing = fails(&["--vehicles", "/nowhere", "--platform", "X", "--slcan", slcan]).await;
    assert!(missing.contains("cannot read /nowhere"), "{missing}");
    let neither = fails(&["--slcan", slcan]).await;
    assert!(neither.contains("--vehicles <FILE>"), "{neither}");
    let no_log = fails(&["--recording", &vehicles_file(), "--slcan", slcan]).await;
    assert!(no_log.contains("line 1:"), "{no_log}");
    let nowhere = fails(&["--recording", &log(), "--slcan", "/nowhere/can"]).await;
    assert!(nowhere.contains("cannot create the SLCAN adapter at /nowhere/can"), "{nowhere}");
}

#[tokio::test]
async fn commands_on_standard_input_drive_the_vehicle() {
    let directory = tempfile::tempdir().unwrap();
    let (slcan, voltage) = (directory.path().join("can"), directory.path().join("voltage"));
    let vehicles = vehicles_file();
    let mut arguments = vec!["--vehicles", &vehicles, "--platform", "VOLKSWAGEN_GOLF_MK7", "--commands"];
    arguments.extend(["--slcan", slcan.to_str().unwrap(), "--voltage-file", voltage.to_str().unwrap()]);
    let mut child = command(&arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut stdin = child.stdin.take().unwrap();
    timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
    stdin.write_all(b"speed 50\nvolts 11.5\nfly\n").await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..3 {
        let line = timeout(LIMIT, lines.next_line()).await.unwrap().unwrap().unwrap();
        answers.push(serde_json::from_str::<Value>(&line).unwrap());
    }
    assert_eq!(answers[0], json!({"speed_kmh": 50.0, "engine": true}));
    assert!(answers[2]["error"].as_str().unwrap().contains("is no command"), "{answers:?}");
    assert_eq!(std::fs::read_to_string(&voltage).unwrap(), "11500\n");
    let mut tool = tool(&slcan, 0x7E0, 0x7E8).await;
    assert_eq!(ask(&mut tool, "010D").await, "410D32");
    // the vehicle ends though its standard input is open
    stop(child, Signal::TERM).await;
    drop(stdin);
}
