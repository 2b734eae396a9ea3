//! A diagnostic tool that is not ours, `tests/peers/uds_peer.py`, for the tests of gateways.

#![allow(dead_code, clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)] // helpers: each test takes what it needs

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use connector_sim::vehicle::catalogue::EcuRecord;
use connector_sim::vehicle::ecu::{Ecu, EcuConfig, Image};
use serde_json::{Value, json};
use tokio::process::Command;

/// How long any single response may take: no machine is so busy that it is reached.
const TIMEOUT: u64 = 60;
/// Only reached when something hangs.
const HANG: Duration = Duration::from_secs(240);

/// The workspace, from whichever of its packages is tested.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().find(|directory| directory.join("tests/peers").is_dir()).unwrap()
}

fn python() -> PathBuf {
    std::env::var_os("CONNECTOR_TEST_PYTHON")
        .map_or_else(|| workspace().join(".venv/bin/python"), PathBuf::from)
}

/// The peer's program, if the Python there is has these modules; else says that the test is skipped.
pub async fn peer(program: &str, what: &str, modules: &str) -> Option<Command> {
    let python = python();
    let check = Command::new(&python).args(["-c", &format!("import {modules}")]).output().await;
    if !check.is_ok_and(|output| output.status.success()) {
        // not by println, which the test harness keeps to itself; on a line of its own, wherever the harness is
        let why = format!("\nSKIPPED: {what}: {} has not all of {modules}\n", python.display());
        let _ = std::io::stderr().write_all(why.as_bytes());
        return None;
    }
    let mut command = Command::new(&python);
    command.arg(workspace().join("tests/peers").join(program));
    command.stdin(Stdio::null()).kill_on_drop(true);
    Some(command)
}

/// As Python prints bytes.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The place among these of one that has trouble codes to tell.
pub fn with_trouble_codes(platform: &str, nodes: &[EcuRecord]) -> usize {
    let has = |node: &EcuRecord| {
        node.address.extended.is_none()
            && !node.exchanges.is_empty()
            && !Ecu::new(EcuConfig::new(platform, node)).dtcs().is_empty()
    };
    nodes.iter().position(has).unwrap()
}

/// What the tool is to do.
pub struct Job {
    pub read: Vec<u8>,
    pub size: usize,
}

impl Job {
    pub fn arguments(&self) -> String {
        json!({"read": hex(&self.read), "size": self.size, "timeout": TIMEOUT}).to_string()
    }

    /// The firmware that it makes up.
    pub fn firmware(&self) -> Vec<u8> {
        (0..self.size).map(|i| (i * 7 + i / 256) as u8).collect()
    }
}

/// Runs the peer to its end; what it prints.
pub async fn run(mut command: Command) -> Value {
    let Output { status, stdout, stderr } = tokio::time::timeout(HANG, command.output())
        .await
        .unwrap_or_else(|_| panic!("the peer hangs"))
        .unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{stderr}");
    serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

/// All that the tool was told is what the ECU knows, and the firmware is in its memory.
pub fn check(result: &Value, job: &Job, response: &[u8], ecu: &EcuConfig, memory: Option<&Image>) {
    assert_eq!(result["read"], hex(response), "{result}");
    let dtcs: Vec<_> = Ecu::new(ecu.clone())
        .dtcs()
        .iter()
        .map(|dtc| json!([u32::from_be_bytes([0, dtc.code[0], dtc.code[1], dtc.code[2]]), dtc.status]))
        .collect();
    assert_eq!(result["dtcs"], Value::Array(dtcs));
    assert_eq!(result["refused"], 0x31, "{result}");
    assert_eq!(result["check"], "00", "{result}");
    let memory = memory.unwrap_or_else(|| panic!("nothing was flashed: {result}"));
    assert_eq!((memory.address, &memory.data), (0x0800_0000, &job.firmware()));
    // by the ECU's own digest of it
    assert_eq!(result["image"], true, "{result}");
}
