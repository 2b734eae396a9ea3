//! The client's own command line, `python -m openobd`, and the gateway's log.

use std::process::{Output, Stdio};

use connector_test_support::data::workspace;
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::dialogue::Dialogue;
use super::*;

/// A function that returns an ECU's answer, in a module that programs load or host.
const FUNCTION: &str = r#"
from openobd import OpenOBDFunction
from openobd.communication.isotp_socket import IsotpSocket
from openobd.communication.utils import set_bus_configuration
from openobd_protocol.Communication.Messages.Isotp_pb2 import IsotpChannel
from openobd_protocol.Configuration.Messages.BusConfiguration_pb2 import BusConfiguration
from openobd_protocol.Configuration.Messages.CanBus_pb2 import CanBus


class ReadVin(OpenOBDFunction):
    id = "5d9a8b0e-0f6a-4d7e-9a57-000000000003"
    name = "Read the VIN"
    version = "1"

    def run(self, request: str = "0902"):
        bus = CanBus(pin_plus=6, pin_min=14, can_protocol=1, can_bit_rate=2)
        set_bus_configuration(self.openobd_session, [BusConfiguration(bus_name="HS", can_bus=bus)])
        channel = IsotpChannel(bus_name="HS", request_id=0x7E0, response_id=0x7E8)
        answer = IsotpSocket(self.openobd_session, channel, timeout=60).request(request)
        print("ANSWER", answer, flush=True)
        return answer
"#;

const COMPOSITION: &str = r#"
from openobd import OpenOBDComposition


class Compose(OpenOBDComposition):
    id = "5d9a8b0e-0f6a-4d7e-9a57-000000000004"
    name = "Call a function"
    version = "1"

    def run(self):
        print("RESULT", self.function_call("5d9a8b0e-0f6a-4d7e-9a57-000000000003", request="0902"), flush=True)
"#;

/// The client's command line in a directory with a function and a composition.
struct Client {
    python: std::path::PathBuf,
    directory: tempfile::TempDir,
    variables: Vec<(&'static str, String)>,
}

impl Client {
    async fn new(job: &Value) -> Option<Self> {
        let python = python_with(PURPOSE, MODULES).await?;
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("hosted")).unwrap();
        std::fs::write(directory.path().join("hosted/read_vin.py"), FUNCTION).unwrap();
        std::fs::write(directory.path().join("compose.py"), COMPOSITION).unwrap();
        let text = |name: &str| job[name].as_str().unwrap().to_owned();
        let variables = vec![
            ("OPENOBD_PARTNER_CLIENT_ID", text("client_id")),
            ("OPENOBD_PARTNER_CLIENT_SECRET", text("client_secret")),
            ("OPENOBD_CLUSTER_ID", "002".to_owned()),
            ("OPENOBD_GRPC_HOST", text("host")),
            ("OPENOBD_GRPC_PORT", job["port"].to_string()),
        ];
        Some(Self { python, directory, variables })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.python);
        command.args(["-m", "openobd"]).args(arguments).current_dir(self.directory.path());
        command.env("PYTHONPATH", ".").env("PYTHONUNBUFFERED", "1").envs(self.variables.iter().cloned());
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs the client to its end. Returns standard output and standard error.
    async fn runs(&self, arguments: &[&str]) -> (String, String) {
        let output = self.command(arguments).output();
        let Output { stdout, stderr, .. } =
            tokio::time::timeout(Duration::from_secs(200), output).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (text(&stdout), text(&stderr))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_command_line_runs_on_connectors_and_tickets_with_local_functions() {
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    let gateway = TestGateway::start_with(&rig.sandbox, None, None, |settings| {
        settings.complete_tickets = false;
    })
    .await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let Some(client) = Client::new(&job).await else { return };
    let answer = format!("490201{}", hex(rig.vin().unwrap().as_bytes()).to_uppercase());
    let function = ["run", "--file", "hosted/read_vin.py"];
    let (uuid, id) = (rig.connector.uuid.to_string(), rig.connector.id.to_string());
    let (ticket, number) = (job["ticket"].as_str().unwrap(), job["number"].as_str().unwrap());
    for session in [["--connector", &uuid], ["--connector", &id], ["--ticket", ticket], ["--ticket", number]]
    {
        let (out, err) = client.runs(&[&function[..], &session].concat()).await;
        assert!(out.contains(&format!("ANSWER {answer}")), "{session:?}: {out}{err}");
    }
    let composition = ["run", "--file", "compose.py", "--ticket", number, "--modules", "hosted"];
    let (out, err) = client.runs(&[&composition[..], &["--bypass-function-broker"]].concat()).await;
    assert!(out.contains(&format!("RESULT {answer}")), "{out}{err}");
    assert!(err.contains("bypassing the function broker"), "{err}");
    let (out, err) = client.runs(&[&composition[..], &["--log-level", "DEBUG"]].concat()).await;
    assert!(!out.contains("RESULT"), "{out}");
    assert!(err.contains("no program hosts function") && err.contains("DEBUG"), "{err}");
    let (_, err) = client.runs(&[&function[..], &["--ticket", "999999"]].concat()).await;
    assert!(err.contains("there is no ticket"), "{err}");
    let (_, err) =
        client.runs(&[&function[..], &["--ticket", number, "--client-secret", "wrong"]].concat()).await;
    assert!(err.contains("does not accept the operator's login"), "{err}");
    let in_progress = rig.sandbox.operator.in_progress_tickets().await.unwrap();
    assert_eq!(in_progress[0].id, ticket, "without --complete-tickets, the ticket goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn functions_are_served_with_fresh_identifiers_and_a_prefix() {
    let sandbox = Sandbox::start(1).await;
    let gateway = TestGateway::start(&sandbox, None).await;
    let job = job(&sandbox, &gateway, &sandbox.connectors[0], None).await;
    let Some(client) = Client::new(&job).await else { return };
    let mut command = client.command(&["serve", "--modules", "hosted", "--unique", "--prefix", "AB"]);
    let mut host = command.stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(host.stderr.take().unwrap()).lines();
    let mut log = String::new();
    let registered = async {
        while !log.contains("registration was successful") {
            log = format!("{log}{}\n", lines.next_line().await.unwrap().expect("the host has ended"));
        }
    };
    let is_in_time = tokio::time::timeout(Duration::from_secs(100), registered).await.is_ok();
    assert!(is_in_time && log.contains("[AB] Read the VIN"), "{log}");
    assert!(!log.contains("000000000003"), "the identifier is a fresh one: {log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lines_of_scripts_are_in_the_gateways_log_escaped_and_cut() {
    let Some(mut command) = script("log").await else { return };
    let sandbox = Sandbox::start(1).await;
    let rig = Rig::start_in(sandbox, "VOLKSWAGEN_GOLF_MK7", AgentSettings::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let cloud = directory.path().join("cloud.json");
    std::fs::write(&cloud, rig.sandbox.cloud.ready_line()).unwrap();
    std::fs::set_permissions(&cloud, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut gateway = Command::new(env!("CARGO_BIN_EXE_connector-operator"));
    gateway.arg("--ready").arg(&cloud).args(["openobd-gateway", "--listen", "127.0.0.1:0"]);
    gateway.env("RUST_LOG", "debug").current_dir(workspace()).stdin(Stdio::null()).kill_on_drop(true);
    let mut gateway = gateway.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut ready = BufReader::new(gateway.stdout.take().unwrap()).lines();
    let ready: Value = serde_json::from_str(&ready.next_line().await.unwrap().unwrap()).unwrap();
    let port: u16 = ready["openobd_gateway"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    let in_process = TestGateway::start(&rig.sandbox, None).await;
    let job = job(&rig.sandbox, &in_process, &rig.connector, rig.vin()).await;
    let mut script = Dialogue::start(&mut command, &with(job, json!({"port": port})));
    let session = script.hears().await;

    let mut lines = BufReader::new(gateway.stderr.take().unwrap()).lines();
    let mut shown = Vec::new();
    let reading = async {
        while shown.len() < 5 {
            let line = lines.next_line().await.unwrap().expect("the gateway has ended");
            if line.contains("script: ") {
                shown.push(line);
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(100), reading).await.expect("all lines are in the log");
    for (line, level) in shown.iter().zip(["DEBUG", "INFO", "WARN", "ERROR", "ERROR"]) {
        assert!(line.contains(level) && line.contains(session.as_str().unwrap()), "{line}");
    }
    assert!(shown[0].contains("script: one"), "{}", shown[0]);
    assert!(shown[3].contains("script: a\\u{1b}[2Jb\\nc"), "{}", shown[3]);
    assert!(shown[4].contains("more bytes)") && shown[4].len() < 6_000, "{}", shown[4]);
}
