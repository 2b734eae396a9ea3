//! Scripts on ISO-TP, sessions, functions and information.

use std::time::Instant;

use connector_operator::client::Timing;
use connector_test_support::agent::{TestAgent, bus, vehicle};
use connector_test_support::config::{configure, isotp};
use connector_test_support::data::{record, workspace};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ecu_of_ten_vehicles_is_identified_by_a_script() {
    let platforms = [
        "VOLKSWAGEN_GOLF_MK7",
        "AUDI_A3_MK3",
        "TOYOTA_COROLLA_TSS2",
        "HONDA_CIVIC",
        "HYUNDAI_IONIQ_5",
        "KIA_EV6",
        "FORD_EXPLORER_MK6",
        "MAZDA_CX5",
        "SUBARU_OUTBACK",
        "SKODA_SUPERB_MK3",
    ];
    for platform in platforms {
        let Some((rig, result)) = in_vehicle(platform, "identify", None).await else { return };
        assert_eq!(result, json!({"answers": known(&rig.record).1}), "{platform}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_reads_and_clears_the_trouble_codes_of_every_ecu() {
    let shown = in_vehicle("VOLKSWAGEN_GOLF_MK7", "trouble_codes", None).await;
    let Some((rig, result)) = shown else { return };
    let ecus = result["ecus"].as_array().unwrap();
    assert_eq!(ecus.len(), rig.record.ecus.len());
    let mut total = 0;
    for ecu in ecus {
        let number = ecu["number"].as_u64().unwrap() as usize;
        let stored = ecu["stored"].as_str().unwrap();
        assert!(stored.starts_with("59027F"), "{ecu}");
        // each code has three bytes, and one of status
        assert_eq!(stored.len(), "59027F".len() + 8 * number, "{ecu}");
        assert_eq!((&ecu["cleared"], &ecu["left"]), (&json!("54"), &json!("59027F")), "{ecu}");
        total += number;
    }
    assert!(total > 0, "{result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scripts_on_two_connectors_work_at_the_same_time() {
    let Some(mut command) = script("sessions").await else { return };
    let sandbox = Sandbox::start(2).await;
    let gateway = TestGateway::start(&sandbox, None).await;
    let (mut running, mut tickets, mut ecus, mut answers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut first = Value::Null;
    for (connector, platform) in sandbox.connectors.clone().iter().zip(["VOLKSWAGEN_GOLF_MK7", "HONDA_CIVIC"])
    {
        let (bus, record) = (bus(), record(platform));
        let in_bus = vehicle(&record, &bus);
        let agent = TestAgent::start(&sandbox, connector, &bus, AgentSettings::default());
        sandbox.portal(connector).await.sees_online().await;
        running.push((in_bus, agent));
        first = job(&sandbox, &gateway, connector, None).await;
        tickets.push(first["ticket"].clone());
        let (mut asked, mut answered) = known(&record);
        ecus.push(asked.swap_remove(0));
        answers.push(vec![answered.swap_remove(0).swap_remove(0); 5]);
    }
    let job = with(first, json!({"tickets": tickets, "ecus": ecus}));
    let result = run_to_end(command.arg(job.to_string())).await;
    let expected = json!({
        "answers": answers, "names": ["0", "1"], "states": ["active", "active"], "after": answers[1][0], "ended": 9,
    });
    assert_eq!(result, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ticket_of_a_script_that_dies_is_free_for_the_next_script() {
    let (Some(mut dies), Some(mut next)) = (script("holds").await, script("takes_over").await) else {
        return;
    };
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    let gateway = TestGateway::start(&rig.sandbox, None).await;
    let (asked, answered) = known(&rig.record);
    let job = with(job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await, json!({"ecus": asked}));
    let mut child = dies.arg(job.to_string()).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line = tokio::time::timeout(Duration::from_secs(120), lines.next_line()).await.unwrap().unwrap();
    assert_eq!(line.as_deref(), Some("\"working\""));
    child.kill().await.unwrap();
    let result = run_to_end(next.arg(job.to_string())).await;
    assert_eq!(result, json!({"answers": answered, "states": ["finished", "interrupted"]}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_have_the_documented_states_and_refuse_wrong_tokens() {
    let Some((_rig, result)) = in_vehicle("VOLKSWAGEN_GOLF_MK7", "lifecycle", None).await else { return };
    assert_eq!(result["states"], json!(["available", "active", "interrupted", "finished"]));
    let checks = &result["checks"];
    assert_eq!(checks["endpoint"][0], "127.0.0.1", "{checks}");
    for (name, status) in [
        ("wrong secret", 16),
        ("unknown ticket", 5),
        ("unknown session", 5),
        ("not authenticated", 16),
        ("token used twice", 16),
        ("unknown token", 16),
        ("second session", 9),
        ("no terminal 15", 9),
        ("interrupted stream", 10),
        ("interrupted", 10),
        ("finished", 9),
    ] {
        assert_eq!(checks[name], status, "{name}: {checks}");
    }
    assert_eq!(checks["listed"], json!(["finished", "interrupted"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn buses_are_configured_as_asked_or_refused_with_a_status() {
    let Some((_rig, result)) = in_vehicle("VOLKSWAGEN_GOLF_MK7", "configuration", None).await else { return };
    assert_eq!((&result["buses"], &result["channels"]), (&json!(["HS"]), &json!(1)), "{result}");
    for name in ["no bit rate", "no protocol", "no definition", "no name", "bad pin"] {
        assert_eq!(result["refused"][name], 3, "{name}: {result}");
    }
    assert!(result["refused"]["missing hardware"].is_number(), "{result}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_padding_and_keep_alive_opens_a_channel() {
    let Some((_rig, result)) = in_vehicle("VOLKSWAGEN_GOLF_MK7", "paddings", None).await else { return };
    assert_eq!(result, json!({"answers": vec!["7E00"; 18], "no identifier": 3}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_documented_exception_reaches_the_script() {
    let Some((_rig, result)) = in_vehicle("VOLKSWAGEN_GOLF_MK7", "exceptions", None).await else { return };
    let raised = &result["raised"];
    for (name, exception) in [
        ("unknown identifier", "RequestOutOfRangeException"),
        ("unknown service", "ServiceNotSupportedException"),
        ("wrong session", "ServiceNotSupportedInActiveSessionException"),
        ("wrong length", "IncorrectMessageLengthOrInvalidFormatException"),
        ("no answer", "NoResponseException"),
        ("no flow control", "OpenOBDStreamException"),
        ("after the failure", "OpenOBDStreamException"),
        ("bad payload", "OpenOBDStreamException"),
        ("no bus", "OpenOBDStreamException"),
        ("stopped stream", "OpenOBDStreamStoppedException"),
        ("finished session", "OpenOBDException"),
    ] {
        assert_eq!(raised[name][0], exception, "{name}: {raised}");
    }
    for (name, status) in [("no flow control", 4), ("bad payload", 3), ("no bus", 5), ("finished session", 9)]
    {
        assert_eq!(raised[name][1], status, "{name}: {raised}");
    }
    assert_eq!(result["silent"], "7F2231");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn scopes_of_variables_and_function_contexts_are_separate() {
    let Some((_rig, result)) = in_vehicle("VOLKSWAGEN_GOLF_MK7", "variables", None).await else { return };
    let expected = json!({
        "deleted 1": 5, "deleted 2": 5, "deleted 3": 5, "no scope": 3, "no details": 5, "no call": 9, "not hosted": 14,
        "not registered": 5, "global inside": "1", "function inside": 5, "argument": [["x", "y"]], "after finish": 9,
        "result": [["r", "s"]],
    });
    assert_eq!(result, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn controls_are_answered_from_the_file_and_others_are_refused() {
    let answers = json!({"Ignition?": true, "Variant": "B", "Name": "Ada", "Odometer": 12});
    let shown = in_vehicle("VOLKSWAGEN_GOLF_MK7", "user_interface", Some(answers)).await;
    let Some((_rig, result)) = shown else { return };
    assert_eq!(result, json!({"shown": [null, null, true, 1, "Ada", 12], "unanswered": 9}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connector_vehicle_ticket_and_ecus_are_known_to_a_script() {
    let Some((rig, result)) = in_vehicle("VOLKSWAGEN_GOLF_MK7", "information", None).await else { return };
    let connected = result["connected"].as_array().unwrap();
    assert!(connected.len() >= 3 && connected.iter().all(|one| *one == true), "{result}");
    assert_eq!(result["healthy"], true);
    assert_eq!(result["vehicle"][2], rig.vin().unwrap());
    assert!(result["ticket"][0].as_u64().unwrap() > 0, "{result}");
    assert_eq!(result["products"].as_array().unwrap().len(), 1);
    let found: Vec<Value> = result["ecus"].as_array().unwrap().clone();
    for one in rig.record.ecus.iter().filter(|one| one.address.extended.is_none()) {
        let pair = json!([number(one.address.request), number(one.address.response)]);
        assert!(found.contains(&pair), "{pair}: {result}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_flashes_64_kib_over_300_ms_and_cut_links() {
    let Some(mut command) = script("flash").await else { return };
    let sandbox = Sandbox::start(1).await;
    let round_trip = Duration::from_millis(300);
    let bad = BadNetworkConfig {
        round_trip,
        cut_every: Some(Duration::from_secs(8)),
        ..BadNetworkConfig::default()
    };
    let network = Arc::new(BadNetwork::start(sandbox.cloud.address, bad).await.unwrap());
    let settings = AgentSettings { through: Some(network.address()), ..AgentSettings::default() };
    let rig = Rig::start_in(sandbox, "VOLKSWAGEN_GOLF_MK7", settings).await;
    let gateway = TestGateway::start(&rig.sandbox, None).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let engine = ecu(rig.ecu(), Vec::new());
    let job = with(job, json!({"ecus": [engine], "size": 64 << 10}));
    let result = run_to_end(command.arg(job.to_string())).await;
    assert_eq!(result, json!({"check": "7101020200", "image": true}));
    let tickets = rig.sandbox.operator.tickets().await.unwrap();
    assert!(tickets.is_empty(), "the script's success has completed the ticket: {tickets:?}");
}

/// Prints what the gateway costs; `docs/benchmarks.md` describes the figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_adds_little_to_the_time_of_a_request() {
    const REQUESTS: usize = 500;
    let Some(mut command) = script("latency").await else { return };
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    let gateway = TestGateway::start(&rig.sandbox, None).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let ticket = rig.sandbox.operator.join(job["ticket"].as_str().unwrap(), "desk 1").await.unwrap();
    let connection = rig.join(ticket.connection().unwrap()).await;
    configure(&connection).await;
    let channel = connection.open_isotp(isotp(rig.ecu())).await.unwrap();
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..REQUESTS {
        let began = Instant::now();
        channel.request(&[0x3E, 0x00], &Timing::default()).await.unwrap();
        times.push(began.elapsed());
    }
    times.sort();
    connection.close().await.unwrap();
    let job = with(job, json!({"ecus": [ecu(rig.ecu(), Vec::new())], "requests": REQUESTS}));
    let script = run_to_end(command.arg(job.to_string())).await;
    let median = times[REQUESTS / 2].as_micros();
    let a_second = (REQUESTS as f64 / times.iter().sum::<Duration>().as_secs_f64()).round();
    println!("| library | {median} µs | {a_second} a second |");
    for (name, what) in [("request", "script"), ("call", "call of the script")] {
        println!("| {what} | {} µs | {} a second |", script[name][0], script[name][1]);
        assert!(script[name][1].as_u64().unwrap() > 0, "{script}");
    }
}

const READ_VIN: &str = r#"
from openobd import OpenOBDFunction
from openobd.communication.isotp_socket import IsotpSocket
from openobd.communication.utils import set_bus_configuration
from openobd_protocol.Communication.Messages.Isotp_pb2 import IsotpChannel
from openobd_protocol.Configuration.Messages.BusConfiguration_pb2 import BusConfiguration
from openobd_protocol.Configuration.Messages.CanBus_pb2 import CanBus


class ReadVin(OpenOBDFunction):
    id = "5d9a8b0e-0f6a-4d7e-9a57-000000000001"
    name = "Read the VIN"
    version = "1"

    def run(self, request: str = ""):
        bus = CanBus(pin_plus=6, pin_min=14, can_protocol=1, can_bit_rate=2)
        set_bus_configuration(self.openobd_session, [BusConfiguration(bus_name="HS", can_bus=bus)])
        channel = IsotpChannel(bus_name="HS", request_id=0x7E0, response_id=0x7E8)
        return IsotpSocket(self.openobd_session, channel, timeout=60).request(request)
"#;

const COMPOSE: &str = r#"
from openobd import OpenOBDComposition


class Compose(OpenOBDComposition):
    id = "5d9a8b0e-0f6a-4d7e-9a57-000000000002"
    name = "Call another program's function"
    version = "1"

    def run(self):
        self.session_variables["from"] = "the caller"
        answer = self.function_call("5d9a8b0e-0f6a-4d7e-9a57-000000000001", request="0902")
        print("ANSWER", answer, self.session_variables["from"], flush=True)
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clients_command_line_serves_and_calls_functions_across_programs() {
    let Some(python) = python_with(PURPOSE, MODULES).await else { return };
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    let gateway = TestGateway::start(&rig.sandbox, None).await;
    let job = job(&rig.sandbox, &gateway, &rig.connector, rig.vin()).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("hosted")).unwrap();
    std::fs::write(directory.path().join("hosted/read_vin.py"), READ_VIN).unwrap();
    std::fs::write(directory.path().join("compose.py"), COMPOSE).unwrap();
    let text = |name: &str| job[name].as_str().unwrap().to_owned();
    let port = gateway.port.to_string();
    let client = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-m", "openobd"]).args(arguments).current_dir(directory.path());
        command.args(["--host", "127.0.0.1", "--port", &port, "--client-id", &text("client_id")]);
        command.args(["--client-secret", &text("client_secret")]).kill_on_drop(true);
        command.env("PYTHONPATH", ".").env("PYTHONUNBUFFERED", "1");
        command.stdin(std::process::Stdio::null());
        command
    };
    let mut host = client(&["serve", "--modules", "hosted"]);
    let mut host = host.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = tokio::io::AsyncBufReadExt::lines(tokio::io::BufReader::new(host.stderr.take().unwrap()));
    let registered = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("registration was successful") {
                return;
            }
        }
        panic!("the host has ended");
    };
    tokio::time::timeout(Duration::from_secs(60), registered).await.unwrap();
    let log = Arc::new(std::sync::Mutex::new(String::new()));
    let collected = Arc::clone(&log);
    let reading = tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            collected.lock().unwrap().push_str(&format!("{line}\n"));
        }
    });
    let ran = client(&["run", "--file", "compose.py", "--ticket", &text("ticket")]).output();
    let ran = tokio::time::timeout(Duration::from_secs(120), ran).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let vin = hex(rig.vin().unwrap().as_bytes()).to_uppercase();
    assert!(out.contains(&format!("ANSWER 490201{vin} the caller")), "{out}{err}{}", log.lock().unwrap());
    drop(host);
    reading.abort();
}

/// The text between two lines of fences of this language.
fn block(document: &str, language: &str) -> String {
    let (_, rest) = document.split_once(&format!("```{language}\n")).unwrap();
    rest.split_once("```").unwrap().0.to_owned()
}

fn replaced(commands: &str, from: &str, to: &str) -> String {
    assert!(commands.contains(from), "docs/openobd.md has no {from} any more: {commands}");
    commands.replace(from, to)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_five_commands_of_the_manual_end_with_the_answer_of_an_ecu() {
    let Some(python) = python_with(PURPOSE, MODULES).await else { return };
    let manual = std::fs::read_to_string(workspace().join("docs/openobd.md")).unwrap();
    let commands = block(&manual, "sh");
    assert_eq!(commands.replace("\\\n", "").lines().count(), 5, "{commands}");
    let rig = Rig::start("VOLKSWAGEN_GOLF_MK7").await;
    let ticket = rig.sandbox.pending(&rig.connector, rig.vin()).await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("read_vin.py"), block(&manual, "python")).unwrap();
    let cloud = directory.path().join("cloud.json");
    std::fs::write(&cloud, rig.sandbox.cloud.ready_line()).unwrap();
    // the file has secrets
    std::fs::set_permissions(&cloud, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    // only the placeholders, and the port, which another program may use
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let operator = &rig.sandbox.cloud.operator;
    let listen = format!("openobd-gateway --listen 127.0.0.1:{port} &");
    let commands = replaced(&commands, "openobd-gateway &", &listen);
    let commands = replaced(&commands, "GRPC_PORT=50051", &format!("GRPC_PORT={port}"));
    let commands = replaced(&commands, "CLIENT_ID=ID", &format!("CLIENT_ID={}", operator.client_id));
    let commands = replaced(&commands, "SECRET=SECRET", &format!("SECRET={}", operator.client_secret));
    let commands = replaced(&commands, "--ticket TICKET", &format!("--ticket {ticket}"));
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_connector-operator"));
    let mut path = vec![python.parent().unwrap().to_owned(), binary.parent().unwrap().to_owned()];
    path.extend(std::env::split_paths(&std::env::var_os("PATH").unwrap()));
    let mut shell = Command::new("bash");
    // the gateway ends with the shell
    shell.args(["-euc", &format!("trap 'kill %1' EXIT\n{commands}")]).current_dir(directory.path());
    shell.env("PATH", std::env::join_paths(path).unwrap()).env("PYTHONUNBUFFERED", "1");
    shell.stdin(std::process::Stdio::null()).kill_on_drop(true);
    let ran = tokio::time::timeout(Duration::from_secs(240), shell.output()).await.unwrap().unwrap();
    let (out, err) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    let answer = format!("490201{}", hex(rig.vin().unwrap().as_bytes()).to_uppercase());
    assert!(ran.status.success() && out.lines().any(|line| line == answer), "{out}{err}");
}
