//! Independent implementations in Python, `tests/peers/*.py`, as peers.

use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::time::Duration;

use connector_sim::vehicle::catalogue::EcuRecord;
use connector_sim::vehicle::ecu::{Ecu, EcuConfig, Image};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::data::workspace;
use crate::hex;
use crate::skip::skip;

/// The tool's timeout for a response, in seconds: longer than any response takes, even on a busy machine.
const TIMEOUT: u64 = 60;
/// Reached only if the peer hangs.
const HANG: Duration = Duration::from_secs(240);

/// The Python of the peers: `CONNECTOR_TEST_PYTHON`, by default `.venv/bin/python` in the workspace.
fn python() -> PathBuf {
    std::env::var_os("CONNECTOR_TEST_PYTHON")
        .map_or_else(|| workspace().join(".venv/bin/python"), PathBuf::from)
}

/// The Python of the peers, if it has these modules; otherwise prints that the test is skipped.
pub async fn python_with(purpose: &str, modules: &str) -> Option<PathBuf> {
    let python = python();
    let check = Command::new(&python).args(["-c", &format!("import {modules}")]).output().await;
    if !check.is_ok_and(|output| output.status.success()) {
        skip(&format!("{purpose}: {} has not all of {modules}", python.display()));
        return None;
    }
    Some(python)
}

/// The program of `tests/peers`, if Python has these modules; otherwise prints that the test is skipped.
pub async fn peer(program: &str, purpose: &str, modules: &str) -> Option<Command> {
    let mut command = Command::new(python_with(purpose, modules).await?);
    command.arg(workspace().join("tests/peers").join(program));
    command.stdin(Stdio::null()).kill_on_drop(true);
    Some(command)
}

/// The index of the first of these ECUs that has trouble codes.
pub fn with_trouble_codes(platform: &str, nodes: &[EcuRecord]) -> usize {
    let has = |node: &EcuRecord| {
        node.address.extended.is_none()
            && !node.exchanges.is_empty()
            && !Ecu::new(EcuConfig::new(platform, node)).dtcs().is_empty()
    };
    nodes.iter().position(has).unwrap()
}

/// The tool's task: a request to read, and a firmware of `size` bytes to write.
pub struct Job {
    pub read: Vec<u8>,
    pub size: usize,
}

impl Job {
    pub fn arguments(&self) -> String {
        json!({"read": hex(&self.read), "size": self.size, "timeout": TIMEOUT}).to_string()
    }

    /// The firmware that the tool writes.
    pub fn firmware(&self) -> Vec<u8> {
        (0..self.size).map(|i| (i * 7 + i / 256) as u8).collect()
    }
}

/// Runs the peer to its end; returns the JSON that it prints.
pub async fn run(mut command: Command) -> Value {
    let Output { status, stdout, stderr } = tokio::time::timeout(HANG, command.output())
        .await
        .unwrap_or_else(|_| panic!("the peer hangs"))
        .unwrap();
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{stderr}");
    serde_json::from_slice(&stdout).unwrap_or_else(|error| panic!("{error}: {stderr}"))
}

/// Checks the tool's results against the ECU's data, and the firmware in the ECU's memory.
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
    // the tool compares the ECU's digest of its memory
    assert_eq!(result["image"], true, "{result}");
}
