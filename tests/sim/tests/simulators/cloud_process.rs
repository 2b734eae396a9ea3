//! The sandbox cloud as a process: its output, its end, and its data after a kill.

use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

struct Program {
    child: Child,
    ready: Value,
}

fn command(state: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connector-sim"));
    command.args(["cloud", "--listen", "127.0.0.1:0", "--state"]).arg(state).args(more);
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Program {
    fn start(state: &Path, more: &[&str]) -> Self {
        let mut child = command(state, more).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self { child, ready: serde_json::from_str(&line).unwrap() }
    }

    fn end(&mut self, signal: Signal) -> std::process::ExitStatus {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }

    fn log(&mut self) -> String {
        let mut log = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log
    }

    fn http(&self) -> reqwest::Client {
        let pem = std::fs::read(self.ready["ca_file"].as_str().unwrap()).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        let certificate = rustls::pki_types::pem::PemObject::from_pem_slice(&pem).unwrap();
        roots.add(certificate).unwrap();
        let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        reqwest::Client::builder().tls_backend_preconfigured(tls).build().unwrap()
    }

    /// Logs in with the first connector's pincode.
    async fn login(&self, http: &reqwest::Client) -> String {
        let connector = &self.ready["connector"];
        let body = json!({"connector_uuid": connector["uuid"], "pincode": connector["pincode"]});
        let url = format!("{}/v2/authenticate/pincode", self.ready["api_url"].as_str().unwrap());
        let answer: Value = http.post(url).json(&body).send().await.unwrap().json().await.unwrap();
        answer["access_token"].as_str().unwrap().to_owned()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn the_cloud_prints_one_line_that_says_sandbox_and_ends_on_sigterm() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    let mut program = Program::start(&state, &[]);
    for pointer in [
        "/api_url",
        "/websocket_url",
        "/ca_file",
        "/connector/uuid",
        "/connector/pincode",
        "/operator/client_id",
        "/operator/client_secret",
        "/customer/client_id",
        "/customer/client_secret",
        "/customer/otp",
    ] {
        assert!(program.ready.pointer(pointer).is_some_and(Value::is_string), "{pointer}");
    }
    assert!(program.ready["connector"]["id"].is_i64());
    assert_eq!(program.ready["sandbox"], true);
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    for file in ["ca.key.pem", "state.redb"] {
        assert_eq!(
            std::fs::metadata(state.join(file)).unwrap().permissions().mode() & 0o777,
            0o600,
            "{file}"
        );
    }
    assert!(program.end(Signal::TERM).success());
    let log = program.log();
    assert!(log.contains("sandbox"));
    assert!(!log.contains(program.ready["operator"]["client_secret"].as_str().unwrap()));
}

#[tokio::test]
async fn answered_requests_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let mut program = Program::start(directory.path(), &[]);
    let http = program.http();
    let token = program.login(&http).await;
    let body = json!({
        "vin": null, "vehicle_model_id": null, "product_ids": [1], "connector_id": program.ready["connector"]["id"],
    });
    let url = format!("{}/sandbox/v1/tickets", program.ready["api_url"].as_str().unwrap());
    let response = http.post(url).bearer_auth(&token).json(&body).send().await.unwrap();
    assert_eq!(response.status(), 201);
    let ticket: Value = response.json().await.unwrap();
    program.end(Signal::KILL);

    let again = Program::start(directory.path(), &[]);
    assert_eq!(again.ready["connector"], program.ready["connector"]);
    assert_eq!(again.ready["operator"], program.ready["operator"]);
    let url = format!("{}/sandbox/v1/tickets/{}", again.ready["api_url"].as_str().unwrap(), ticket["id"]);
    let kept: Value = http.get(url).bearer_auth(&token).send().await.unwrap().json().await.unwrap();
    assert_eq!(kept, ticket);
}

#[tokio::test]
async fn every_connector_of_the_file_is_served_and_the_first_is_announced() {
    let directory = tempfile::tempdir().unwrap();
    let (first, second) = (uuid::Uuid::new_v4(), uuid::Uuid::new_v4());
    let file = directory.path().join("connectors.json");
    let connectors = json!([
        {"uuid": first, "pincode": 1234, "id": 9},
        {"uuid": second, "pincode": "0042", "hardware_type": "pro", "otp": "once"},
    ]);
    std::fs::write(&file, connectors.to_string()).unwrap();
    let program = Program::start(&directory.path().join("state"), &["--connectors", file.to_str().unwrap()]);
    let announced = json!({"id": 9, "uuid": first, "pincode": "1234"});
    assert_eq!(program.ready["connector"], announced);
    let url = format!("{}/v2/authenticate/pincode", program.ready["api_url"].as_str().unwrap());
    let body = json!({"connector_uuid": second, "pincode": "0042"});
    assert_eq!(program.http().post(url).json(&body).send().await.unwrap().status(), 200);
}

#[test]
fn an_invalid_connectors_file_is_reported_with_the_position() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("connectors.json");
    std::fs::write(&file, "[{\"uuid\": 5}]").unwrap();
    let more = ["--connectors", file.to_str().unwrap()];
    let output = command(&directory.path().join("state"), &more).output().unwrap();
    assert!(!output.status.success());
    assert!(output.stdout.is_empty());
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("connectors.json") && error.contains("line 1"), "{error}");
}

#[test]
fn a_state_directory_in_use_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _first = Program::start(directory.path(), &[]);
    let output = command(directory.path(), &[]).output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8(output.stderr).unwrap().contains("state"));
}
