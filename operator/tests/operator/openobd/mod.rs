//! The gateway for scripts, with the vendor's client openobd, unmodified: `tests/peers/openobd_peer.py`.
//!
//! Needs a Python with `openobd`, named by `CONNECTOR_TEST_PYTHON` (default: `.venv/bin/python` in the workspace).
//! Without it, each test prints one line `SKIPPED: …` and passes.

mod buses;
mod command_line;
mod controls;
mod cuts;
mod dialogue;
mod ends;
mod scripts;

use std::sync::Arc;
use std::time::Duration;

use connector_hal::can::CanId;
use connector_operator::openobd::{Answers, OpenobdError, OpenobdServer, OpenobdSettings, TlsFiles};
use connector_sim::network::{BadNetwork, BadNetworkConfig};
use connector_sim::vehicle::catalogue::{EcuAddress, VehicleRecord};
use connector_test_support::agent::{AgentSettings, Connector, Rig, Sandbox};
use connector_test_support::hex;
use connector_test_support::peers::{peer, python_with, run};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::task::JoinHandle;

/// The modules that the peer needs.
const MODULES: &str = "openobd, grpc";
const PURPOSE: &str = "the vendor's client openobd";

/// A gateway in this process.
struct TestGateway {
    port: u16,
    task: JoinHandle<()>,
}

impl Drop for TestGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl TestGateway {
    async fn start(sandbox: &Sandbox, answers: Option<Value>) -> Self {
        Self::start_with(sandbox, answers, None, |_| {}).await
    }

    async fn start_with(
        sandbox: &Sandbox,
        answers: Option<Value>,
        tls: Option<&TlsFiles>,
        change: impl FnOnce(&mut OpenobdSettings),
    ) -> Self {
        let address = sandbox.cloud.address;
        let (api_url, websocket_url) = (format!("https://{address}"), format!("wss://{address}/sandbox/ws"));
        let mut settings = OpenobdSettings {
            api_url,
            websocket_url,
            ca_file: Some(sandbox.cloud.ca_file.clone()),
            complete_tickets: true,
            button: false,
        };
        change(&mut settings);
        // without answers, a person at the terminal of the test would be asked
        let answers = Answers::parse(&answers.unwrap_or_else(|| json!({})).to_string()).unwrap();
        let loopback = "127.0.0.1:0".parse().unwrap();
        let server = OpenobdServer::bind(loopback, tls, settings, Some(answers)).await.unwrap();
        let port = server.address().port();
        let task = tokio::spawn(async move { server.run(std::future::pending()).await.unwrap() });
        Self { port, task }
    }
}

/// What every scenario needs, for a new pending ticket of this connector.
async fn job(sandbox: &Sandbox, gateway: &TestGateway, connector: &Connector, vin: Option<&str>) -> Value {
    let ticket = sandbox.pending(connector, vin).await;
    let tickets = sandbox.operator.pending_tickets().await.unwrap();
    let number = tickets.iter().find(|one| one.id == ticket).unwrap().ticket_number.clone();
    json!({
        "host": "127.0.0.1", "port": gateway.port, "ticket": ticket, "number": number, "connector": connector.uuid,
        "client_id": sandbox.cloud.operator.client_id, "client_secret": sandbox.cloud.operator.client_secret,
    })
}

/// A script that waits to be started, or `None` if the client is not installed.
async fn script(scenario: &str) -> Option<Command> {
    let mut command = peer("openobd_peer.py", PURPOSE, MODULES).await?;
    command.arg(scenario);
    Some(command)
}

fn with(mut job: Value, more: Value) -> Value {
    job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    job
}

fn number(id: CanId) -> u32 {
    id.to_number()
}

fn ecu(address: EcuAddress, requests: Vec<String>) -> Value {
    json!({"request_id": number(address.request), "response_id": number(address.response),
           "extended": address.extended, "requests": requests})
}

/// All ECUs of a vehicle with their known requests, and the answers as the client prints them.
fn known(record: &VehicleRecord) -> (Vec<Value>, Vec<Vec<String>>) {
    let pairs = record.ecus.iter().map(|one| {
        let requests = one.exchanges.iter().map(|exchange| hex(&exchange.request)).collect();
        let answers = one.exchanges.iter().map(|exchange| hex(&exchange.response).to_uppercase()).collect();
        (ecu(one.address, requests), answers)
    });
    pairs.unzip()
}

/// Runs a scenario in a vehicle; returns what the script prints.
async fn in_vehicle(platform: &str, scenario: &str, answers: Option<Value>) -> Option<(Rig, Value)> {
    let mut command = script(scenario).await?;
    let rig = Rig::start(platform).await;
    let gateway = TestGateway::start(&rig.sandbox, answers).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let job = with(job, json!({"ecus": known(&rig.record).0}));
    let result = run_to_end(command.arg(job.to_string())).await;
    Some((rig, result))
}

async fn run_to_end(command: &mut Command) -> Value {
    let output = tokio::time::timeout(Duration::from_secs(400), command.output()).await.unwrap().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
    serde_json::from_str(text(&output.stdout).lines().last().unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_compiled_protocol_is_the_clients_own() {
    let Some(mut command) = peer("openobd_protocol_peer.py", PURPOSE, MODULES).await else { return };
    let result = run({
        command.arg(connector_test_support::data::workspace().join("operator/proto"));
        command
    })
    .await;
    assert_eq!(result, json!({"differences": [], "messages": 65, "services": 15}));
}

/// A certificate for `localhost` with its key.
fn tls_files() -> (tempfile::TempDir, TlsFiles) {
    let directory = tempfile::tempdir().unwrap();
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let tls = TlsFiles { certificate: directory.path().join("cert"), key: directory.path().join("key") };
    std::fs::write(&tls.certificate, made.cert.pem()).unwrap();
    std::fs::write(&tls.key, made.signing_key.serialize_pem()).unwrap();
    (directory, tls)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_works_over_tls_on_any_port() {
    let Some(mut command) = script("identify").await else { return };
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    let (_directory, tls) = tls_files();
    let gateway = TestGateway::start_with(&rig.sandbox, None, Some(&tls), |_| {}).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let (asked, answered) = known(&rig.record);
    // for the client, port 443 means TLS, and the host may have a port of its own
    let host = format!("localhost:{}", gateway.port);
    let job = with(job, json!({"host": host, "port": 443, "ecus": asked}));
    command.env("GRPC_DEFAULT_SSL_ROOTS_FILE_PATH", &tls.certificate);
    assert_eq!(run_to_end(command.arg(job.to_string())).await, json!({"answers": answered}));
}

#[tokio::test]
async fn plaintext_is_served_on_loopback_addresses_only() {
    let settings = OpenobdSettings {
        api_url: "https://127.0.0.1:9".to_owned(),
        websocket_url: "wss://127.0.0.1:9".to_owned(),
        ca_file: None,
        complete_tickets: false,
        button: false,
    };
    let everywhere = "0.0.0.0:0".parse().unwrap();
    let refused = OpenobdServer::bind(everywhere, None, settings.clone(), None).await.err().unwrap();
    assert!(matches!(refused, OpenobdError::Plaintext(_)), "{refused}");
    assert!(refused.to_string().contains("--tls-certificate"), "{refused}");
    let missing = TlsFiles { certificate: "/nonexistent".into(), key: "/nonexistent".into() };
    let refused =
        OpenobdServer::bind(everywhere, Some(&missing), settings.clone(), None).await.err().unwrap();
    assert!(matches!(refused, OpenobdError::Read { .. }), "{refused}");

    let (_directory, tls) = tls_files();
    let server = OpenobdServer::bind(everywhere, Some(&tls), settings, None).await.unwrap();
    server.run(std::future::ready(())).await.unwrap();
}
