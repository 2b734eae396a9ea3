//! `connector-sim demo` as a process.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

/// Reached only if the demo hangs.
const HANG: Duration = Duration::from_secs(120);
const VIN: &str = "WVWLU5SP1H0375027";

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connector-sim"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

async fn outcome(output: impl Future<Output = std::io::Result<Output>>) -> (i32, String, String) {
    let output = tokio::time::timeout(HANG, output).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn the_demo_succeeds_over_a_slow_link_with_repeated_cuts() {
    let demo = program(&["demo", "--rtt", "40", "--cut-every", "4", "--size", "30000"]).output();
    let (code, stdout, stderr) = outcome(demo).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    for right in ["VIN ", "ECUs read", "ECU's memory", "As the ECUs saw it", "Agent"] {
        let line = stdout.lines().find(|line| line.trim_start().starts_with(right)).unwrap();
        assert!(line.ends_with("right"), "{line}");
    }
    assert!(stdout.contains(VIN) && stdout.contains("of the bus's limit"), "{stdout}");
}

#[tokio::test]
async fn the_demo_lets_a_portal_in_python_use_the_documented_apis() {
    let purpose = "the demo's portal";
    let Some(python) = connector_test_support::peers::python_with(purpose, "requests, websockets").await
    else {
        return;
    };
    let demo = program(&["demo", "--size", "5000", "--portal", python.to_str().unwrap()]).output();
    let (code, stdout, stderr) = outcome(demo).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let line = stdout.lines().find(|line| line.trim_start().starts_with("Documented APIs")).unwrap();
    assert!(line.ends_with("right"), "{line}");
    assert!(stdout.contains("picked it up"), "{stdout}");
}

#[tokio::test]
async fn the_demo_also_runs_over_doip() {
    let demo = program(&["demo", "--doip", "--rtt", "40", "--cut-every", "4", "--size", "30000"]).output();
    let (code, stdout, stderr) = outcome(demo).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    for right in ["VIN ", "ECUs read", "ECU's memory", "As the ECUs saw it", "Agent"] {
        let line = stdout.lines().find(|line| line.trim_start().starts_with(right)).unwrap();
        assert!(line.ends_with("right"), "{line}");
    }
    assert!(stdout.contains(VIN) && stdout.contains("read by doip"), "{stdout}");
}

#[tokio::test]
async fn the_demo_of_a_vehicle_that_drives_refuses_to_flash_until_it_stands_and_consent() {
    let demo = program(&["demo", "--drive", "--size", "5000"]).output();
    let (code, stdout, stderr) = outcome(demo).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let steps = [
        "drives at 50 km/h",
        "refuses: policy: moving (50 km/h)",
        "brakes",
        "reports: the vehicle stands",
        "refuses: policy: consent",
        "presses the button",
        "consent to programming until",
        "holds the firmware, byte for byte",
    ];
    let mut rest = stdout.as_str();
    for step in steps {
        rest = rest.split_once(step).unwrap_or_else(|| panic!("no {step:?} in its place in {stdout}")).1;
    }
    let (code, _, stderr) = outcome(program(&["demo", "--drive", "--bus", "kline"]).output()).await;
    assert_eq!(code, 2, "{stderr}");
}

#[tokio::test]
async fn the_demo_takes_a_vehicle_without_a_vin_and_one_with_29_bit_identifiers() {
    for platform in ["COMMA_BODY", "HONDA_CIVIC"] {
        let demo = program(&["demo", "--platform", platform, "--size", "5000"]).output();
        let (code, stdout, stderr) = outcome(demo).await;
        assert_eq!(code, 0, "{platform}: {stdout}{stderr}");
    }
    let (code, _, stderr) = outcome(program(&["demo", "--platform", "VOLKSWAGEN_GULF"]).output()).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("VOLKSWAGEN_GOLF_MK7"), "{stderr}");
}

#[tokio::test]
async fn the_demo_starts_a_given_agent_or_reports_that_it_cannot() {
    let own = format!("env {} agent", env!("CARGO_BIN_EXE_connector-sim"));
    let (code, stdout, stderr) =
        outcome(program(&["demo", "--agent", &own, "--size", "5000"]).output()).await;
    assert_eq!(code, 0, "{stdout}{stderr}");
    let (code, _, stderr) = outcome(program(&["demo", "--agent", "/nowhere/connector-agent"]).output()).await;
    assert_eq!(code, 1);
    assert!(stderr.contains("the agent cannot be started"), "{stderr}");
}

#[tokio::test]
async fn an_interrupted_demo_leaves_no_process_and_no_file_behind() {
    let directory = tempfile::tempdir().unwrap();
    let mut demo = program(&["demo", "--size", "1000000"])
        .env("TMPDIR", directory.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(demo.stdout.take().unwrap()).lines();
    let mut agent = None;
    while let Ok(Some(line)) = tokio::time::timeout(HANG, lines.next_line()).await.unwrap() {
        if let Some((_, rest)) = line.split_once("as process ") {
            agent = rest.split(',').next().map(str::to_owned);
        }
        if line.contains("transferring") {
            break;
        }
    }
    let pid = rustix::process::Pid::from_raw(demo.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (status, _) = tokio::join!(demo.wait(), async { while let Ok(Some(_)) = lines.next_line().await {} });
    assert_eq!(status.unwrap().code(), Some(130));
    assert!(!Path::new("/proc").join(agent.unwrap()).exists());
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
