//! `connector-operator` as a process, with a vehicle, an agent and a cloud in the test's process.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::Duration;

use connector_hal::can::slcan::{DEFAULT_BAUD, Slcan};
use connector_hal::can::{CanBus as _, CanSettings};
use connector_hal::timer::TimerKind;
use connector_operator::EcuAddress;
use connector_operator::client::{Credentials, Customer};
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use connector_test_support::agent::{AgentSettings, Sandbox, TestAgent, bus};
use connector_test_support::can_tool::Tool;
use connector_test_support::data::catalogue;
use connector_test_support::doip_tool::{DoipTool, address, ask_by_udp};
use connector_test_support::id;

/// Reached only if the program hangs.
const HANG: Duration = Duration::from_secs(120);
const VIN: &str = "WVWLU5SP1H0375027";
/// How long the button is pressed, and released: shorter than the press that refuses.
const PRESS: Duration = Duration::from_millis(300);

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connector-operator"));
    command.args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    command
}

/// Starts a gateway, and returns the line of JSON that it prints when it is ready.
async fn start(arguments: &[&str]) -> (Child, Value) {
    let mut child = program(arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(HANG, lines.next_line()).await.unwrap().unwrap().unwrap();
    (child, serde_json::from_str(&line).unwrap())
}

/// A vehicle, a cloud and an agent, with a pending ticket.
struct Rig {
    directory: tempfile::TempDir,
    ready: PathBuf,
    cloud: Value,
    vehicle: Vehicle,
    agent: TestAgent,
    _sandbox: Sandbox,
}

fn write(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
}

impl Rig {
    async fn open() -> Self {
        Self::open_with(AgentSettings::default()).await
    }

    async fn open_with(settings: AgentSettings) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let bus = bus();
        let record = catalogue().find("VOLKSWAGEN_GOLF_MK7").unwrap().clone();
        let mut config = VehicleConfig { timer: TimerKind::Precise, ..VehicleConfig::new(record) };
        config.timing.erase = Duration::from_millis(200);
        let vehicle = Vehicle::start(&config, &bus);
        let sandbox = Sandbox::start(1).await;
        let cloud: Value = serde_json::from_str(&sandbox.cloud.ready_line()).unwrap();
        let ready = directory.path().join("ready.json");
        write(&ready, &cloud.to_string());
        let connector = sandbox.connectors[0].clone();
        let agent = TestAgent::start(&sandbox, &connector, &bus, settings);

        let text = |pointer: &str| cloud.pointer(pointer).unwrap().as_str().unwrap().to_owned();
        let credentials = Credentials {
            client_id: text("/customer/client_id"),
            client_secret: text("/customer/client_secret"),
        };
        let (api, websocket, ca) = (text("/api_url"), text("/websocket_url"), text("/ca_file"));
        let customer = Customer::login(&api, &websocket, Some(Path::new(&ca)), credentials).await.unwrap();
        let mut watch = customer.watch_connector(connector.id).await.unwrap();
        let known = watch.until(|update| update.vin_number.is_some());
        let known = tokio::time::timeout(HANG, known).await.unwrap().unwrap();
        assert_eq!(known.vin_number.as_deref(), Some(VIN));
        let wanted =
            json!({"vin": VIN, "vehicle_model_id": 1, "connector_id": connector.id, "product_ids": [1]});
        customer.create_ticket(&wanted).await.unwrap();
        Self { directory, ready, cloud, vehicle, agent, _sandbox: sandbox }
    }

    /// Runs a subcommand of the operator; returns its exit code, stdout and stderr.
    async fn operator(&self, arguments: &[&str]) -> (i32, String, String) {
        let mut all = vec!["--ready", self.ready.to_str().unwrap()];
        all.extend(arguments);
        outcome(program(&all).output()).await
    }

    /// Runs a subcommand that must succeed, and returns its stdout.
    async fn prints(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = self.operator(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
        stdout
    }

    /// Runs a subcommand that must fail with this code and print a remedy; returns its stderr.
    async fn fails(&self, arguments: &[&str], code: i32) -> String {
        let (actual, stdout, stderr) = self.operator(arguments).await;
        assert_eq!(actual, code, "{arguments:?}: {stdout}{stderr}");
        assert!(stderr.contains("What to do: "), "{stderr}");
        stderr
    }
}

async fn outcome(output: impl Future<Output = std::io::Result<Output>>) -> (i32, String, String) {
    let output = tokio::time::timeout(HANG, output).await.unwrap().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_serves_a_whole_ticket() {
    let rig = Rig::open().await;

    let tickets = rig.prints(&["tickets"]).await;
    assert!(tickets.contains("pending") && tickets.contains(VIN), "{tickets}");
    rig.fails(&["--ticket", "1", "join"], 5).await;
    let joined = rig.prints(&["join", "--vin", VIN]).await;
    assert!(joined.contains("is in progress"), "{joined}");
    assert!(rig.prints(&["tickets"]).await.contains("in progress"));

    let (_, vin, shown) = rig.operator(&["vin"]).await;
    assert!(vin.starts_with(VIN), "{vin}");
    let policy = "the connector's policy is enforced: bus needs not-moving; intrusive needs not-moving; programming \
                  needs not-moving and voltage; scan needs not-moving\n";
    assert!(shown.contains(policy), "{shown}");
    let read = rig.prints(&["read", "22F187F189F182"]).await;
    assert!(read.starts_with("0x7E8  62F187"), "{read}");
    let all = rig.prints(&["read", "0902", "--request-id", "0x7DF"]).await;
    assert!(all.starts_with("0x7E8  490201"), "{all}");
    let refused = rig.fails(&["read", "2701"], 8).await;
    assert!(refused.contains("0x7F: the service is not available in this session"), "{refused}");
    rig.fails(&["read", "3E00", "--request-id", "0x6F0", "--response-id", "0x6F8"], 7).await;
    rig.fails(&["read", "3E00", "--request-id", "0x6F0"], 1).await;
    let pins = rig.fails(&["read", "3E00", "--pins", "3,11"], 7).await;
    assert!(pins.contains("6 and 14"), "{pins}");

    let codes = rig.prints(&["dtcs", "--request-id", "0x757", "--response-id", "0x7C1"]).await;
    assert!(codes.contains("0x7C1  U2E4B-05  confirmed, pending, failing now"), "{codes}");
    assert!(rig.prints(&["dtcs"]).await.contains("no trouble codes"));

    let firmware: Vec<u8> = (0..20_000_u32).map(|number| (number % 251) as u8).collect();
    let file = rig.directory.path().join("firmware.bin");
    std::fs::write(&file, &firmware).unwrap();
    let flashed = rig.prints(&["flash", file.to_str().unwrap(), "--address", "0x1000"]).await;
    assert!(flashed.contains("Programmed and checked: 20000 bytes in 5 blocks"), "{flashed}");
    let engine = EcuAddress { request: id(0x7E0), response: id(0x7E8), extended: None };
    let memory = rig.vehicle.memory(engine);
    assert_eq!(
        memory.iter().map(|image| (image.address, &image.data)).collect::<Vec<_>>(),
        [(0x1000, &firmware)]
    );
    rig.fails(&["flash", "/nonexistent"], 1).await;
    let consent = rig.fails(&["consent", "programming"], 8).await;
    assert!(consent.contains("the connector cannot ask for consent"), "{consent}");

    assert_eq!(rig.prints(&["dump", "--seconds", "1"]).await, "");
    assert!(rig.prints(&["complete"]).await.contains("completed"));
    rig.fails(&["vin"], 5).await;
}

/// A vehicle whose programming needs consent by the connector's button, and a firmware.
async fn consent_needed() -> (Rig, Vec<u8>, String) {
    let policy = serde_json::from_value(json!({"require": {"programming": ["consent"]}})).unwrap();
    let settings = AgentSettings { policy: Some(policy), button: true, ..AgentSettings::default() };
    let rig = Rig::open_with(settings).await;
    let firmware = vec![0x5A; 5000];
    let file = rig.directory.path().join("firmware.bin");
    std::fs::write(&file, &firmware).unwrap();
    let file = file.to_str().unwrap().to_owned();
    (rig, firmware, file)
}

impl Rig {
    fn memory(&self) -> Vec<Vec<u8>> {
        let engine = EcuAddress { request: id(0x7E0), response: id(0x7E8), extended: None };
        self.vehicle.memory(engine).iter().map(|image| image.data.clone()).collect()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flash_ask_consent_flashes_when_the_person_at_the_vehicle_presses_the_button() {
    let (rig, firmware, file) = consent_needed().await;
    let refused = rig.fails(&["flash", &file], 8).await;
    assert!(refused.contains("policy: consent asked: programmingSession is refused"), "{refused}");
    assert!(rig.memory().is_empty());

    let arguments = ["flash", &file, "--ask-consent"];
    let mut flashing = Box::pin(rig.operator(&arguments));
    let mut is_pressed = false;
    // the first press may be too early to count
    let (code, stdout, stderr) = loop {
        rig.agent.board.set_button(Some(is_pressed));
        is_pressed = !is_pressed;
        if let Ok(outcome) = tokio::time::timeout(PRESS, &mut flashing).await {
            break outcome;
        }
    };
    assert_eq!(code, 0, "{stdout}{stderr}");
    assert!(stderr.contains("s to press the connector's button"), "{stderr}");
    assert!(stdout.contains("The person at the vehicle agreed to programming."), "{stdout}");
    assert_eq!(rig.memory(), [firmware]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flash_ask_consent_ends_when_the_person_at_the_vehicle_holds_the_button() {
    let (rig, _, file) = consent_needed().await;
    let mut arguments = vec!["--ready", rig.ready.to_str().unwrap()];
    arguments.extend(["flash", &file, "--ask-consent"]);
    let mut child = program(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let mut shown = String::new();
    while let Some(line) = tokio::time::timeout(HANG, lines.next_line()).await.unwrap().unwrap() {
        if line.contains("press the connector's button") {
            rig.agent.board.set_button(Some(true));
        }
        shown = format!("{shown}{line}\n");
    }
    let status = tokio::time::timeout(HANG, child.wait()).await.unwrap().unwrap();
    assert!(!status.success());
    let is_clear = shown.contains("the person at the vehicle refused programming")
        || shown.contains("the person at the vehicle ended the connection");
    assert!(is_clear && shown.contains("What to do: "), "{shown}");
    assert!(rig.memory().is_empty());
}

impl Rig {
    /// Starts one of the operator's gateways.
    async fn gateway(&self, arguments: &[&str]) -> (Child, Value) {
        let mut all = vec!["--ready", self.ready.to_str().unwrap()];
        all.extend(arguments);
        start(&all).await
    }
}

/// Ends a gateway as Ctrl-C does.
async fn interrupt(mut gateway: Child) {
    let pid = rustix::process::Pid::from_raw(gateway.id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    assert!(tokio::time::timeout(HANG, gateway.wait()).await.unwrap().unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_gateways_serve_tools_until_interrupted() {
    let rig = Rig::open().await;
    let slcan = rig.directory.path().join("tool");
    let link = slcan.to_str().unwrap();
    let (gateway, ready) =
        rig.gateway(&["can-gateway", "--slcan", link, "--ecu", "7E0/7E8", "--ecu", "757/7C1"]).await;
    assert_eq!((&ready["vin"], &ready["slcan"]), (&json!(VIN), &json!(link)));
    assert_eq!(ready["ecus"][1]["response_id"], "0x7C1");
    let mut can = Slcan::open(link, link, DEFAULT_BAUD).unwrap();
    can.configure(CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false }).await.unwrap();
    let engine = EcuAddress { request: id(0x7E0), response: id(0x7E8), extended: None };
    let mut tool = Tool::physical_over(Box::new(can), engine);
    let (answers, _) = tool.ask(&[0x22, 0xF1, 0x87, 0xF1, 0x89, 0xF1, 0x82], HANG).await;
    assert_eq!(answers.last().unwrap().pdu[..3], [0x62, 0xF1, 0x87]);
    drop(tool);
    interrupt(gateway).await;
    assert!(slcan.read_link().is_err(), "the link is removed");

    let arguments =
        ["doip-gateway", "--over", "can", "--listen", "127.0.0.1:0", "--announce-to", "127.0.0.1:9"];
    let (gateway, ready) = rig.gateway(&arguments).await;
    assert_eq!((&ready["vin"], &ready["logical_address"]), (&json!(VIN), &json!("0x4010")));
    assert_eq!(ready["ecus"][0], json!({"logical_address": "0x4011", "can": "0x7E0/0x7E8"}));
    let udp = address(&ready, "/udp");
    let response = ask_by_udp(udp, connector_agent::protocol::doip::Payload::IdentificationRequest).await;
    let connector_agent::protocol::doip::Payload::Announcement(announcement) = response else {
        panic!("{response:?}")
    };
    assert_eq!(announcement.vin().unwrap().as_str(), VIN);
    let mut tool = DoipTool::activated(address(&ready, "/tcp")).await;
    let answer = tool.ask(0x4011, &[0x22, 0xF1, 0x87, 0xF1, 0x89, 0xF1, 0x82]).await;
    assert_eq!(answer[..3], [0x62, 0xF1, 0x87]);
    interrupt(gateway).await;

    let (gateway, ready) = rig.gateway(&["openobd-gateway", "--listen", "127.0.0.1:0"]).await;
    assert!(ready["openobd_gateway"].as_str().unwrap().starts_with("127.0.0.1:"), "{ready}");
    interrupt(gateway).await;
    let plaintext = rig.fails(&["openobd-gateway", "--listen", "0.0.0.0:0"], 1).await;
    assert!(plaintext.contains("--tls-certificate"), "{plaintext}");
    rig.fails(&["openobd-gateway", "--listen", "127.0.0.1:0", "--answers", "/nonexistent"], 1).await;

    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    rig.fails(&["doip-gateway", "--over", "can", "--listen", &taken], 1).await;
    rig.fails(&["can-gateway", "--slcan", "/nowhere/tool"], 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_secret_and_an_unreachable_cloud_have_separate_exit_codes() {
    let rig = Rig::open().await;
    rig.fails(&["--client-secret", "wrong", "tickets"], 3).await;
    rig.fails(&["--api-url", "https://127.0.0.1:9", "tickets"], 4).await;
    let mut without_ca = rig.cloud.clone();
    without_ca["ca_file"] = Value::Null;
    write(&rig.ready, &without_ca.to_string());
    rig.fails(&["tickets"], 4).await;
    write(&rig.ready, "{}");
    rig.fails(&["tickets"], 1).await;
}

#[tokio::test]
async fn completions_for_every_shell_need_no_login() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let (code, stdout, stderr) = outcome(program(&["completions", shell]).output()).await;
        assert_eq!(code, 0, "{shell}: {stderr}");
        for subcommand in ["tickets", "doip-gateway", "openobd-gateway"] {
            assert!(stdout.contains(subcommand), "{shell}: {stdout}");
        }
    }
}
