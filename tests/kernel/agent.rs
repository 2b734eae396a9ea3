//! A whole ticket on the CAN stack of the kernel: the agent reads the VIN, serves a ticket and flashes an
//! ECU. The agent's program uses one interface, the simulated vehicle another. Cloud and operator are on the
//! loopback interface.
//!
//! Each test runs with the agent's own ISO-TP and with the kernel's; the operator must see no difference.
//!
//! | variable | interfaces |
//! |---|---|
//! | `CONNECTOR_TEST_VCAN` | a vcan interface, up, for both sides |
//! | `CONNECTOR_TEST_CAN_PAIR` | two controllers on one bus, the agent's and the vehicle's, as `can0,can1`; takes root |
//!
//! Without them, the tests print one line `SKIPPED: …` and pass.

use std::fmt::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use connector_agent::relay::wire::codec::{EventCode, PduFlags};
use connector_agent::relay::wire::request::{IsotpChannelConfig, RawChannelConfig, Switch};
use connector_hal::can::CanSettings;
use connector_hal::timer::TimerKind;
use connector_operator::client::{Channel, Connection, Item, Timing};
use connector_operator::flash::{Firmware, flash};
use connector_sim::vehicle::catalogue::EcuRecord;
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use connector_test_support::agent::{Connector, Sandbox};
use connector_test_support::config::{BUS, configure, functional, isotp};
use connector_test_support::data::catalogue;
use connector_test_support::skip::environment;
use connector_test_support::soon;
use serde_json::Value;
use tokio::process::{Child, Command};

const VEHICLE: &str = "AUDI_A3_MK3";
const SETTINGS: CanSettings = CanSettings { bit_rate: 500_000, data_bit_rate: None, listen_only: false };
const ADDRESS: u32 = 0x0800_0000;
/// Several blocks of 4095 bytes and a shorter one.
const FIRMWARE: usize = 20_000;
const LOG: &str = "log";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_with_vin_and_flash_is_served_on_a_virtual_interface() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    main_job(&vcan, &vcan, "own").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_served_on_a_virtual_interface_by_the_kernels_isotp() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    main_job(&vcan, &vcan, "kernel").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_with_vin_and_flash_is_served_through_two_controllers() {
    let Some(pair) = environment("CONNECTOR_TEST_CAN_PAIR") else { return };
    let (agents, vehicles) = pair.split_once(',').expect("a,b");
    main_job(agents, vehicles, "own").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ticket_is_served_through_two_controllers_by_the_kernels_isotp() {
    let Some(pair) = environment("CONNECTOR_TEST_CAN_PAIR") else { return };
    let (agents, vehicles) = pair.split_once(',').expect("a,b");
    main_job(agents, vehicles, "kernel").await;
}

async fn main_job(agents: &str, vehicles: &str, isotp_by: &str) {
    let record = catalogue().find(VEHICLE).unwrap().clone();
    let vin = record.vin.unwrap().to_string();
    let config = VehicleConfig { timer: TimerKind::Precise, ..VehicleConfig::new(record.clone()) };
    let vehicle = Vehicle::start_at(&config, vehicles, SETTINGS).await.unwrap();
    assert_eq!(read_vin(agents).await, vin);

    let sandbox = Sandbox::start(1).await;
    let connector = sandbox.connectors[0].clone();
    let mut agent = Agent::start(&sandbox, &connector, agents, isotp_by);
    let mut portal = sandbox.portal(&connector).await;
    portal.sees_online().await;
    // in an emulated machine, a simulated ECU may answer later than a real one
    while sandbox.identify(&connector).await["vin_number"] != vin.as_str() {}
    portal.sees_vin(&vin).await;

    // on a slow machine, an answer from the VIN reading may arrive after the reader has ended
    let anomalies = vehicle.anomalies();
    let ticket = sandbox.ticket(&connector, Some(&vin)).await;
    let connection =
        soon("the connection", sandbox.operator.connect(ticket.connection().unwrap())).await.unwrap();
    configure(&connection).await;
    let ecu = &record.ecus[0];
    let config = IsotpChannelConfig { keep_alive: Switch::Enabled, ..isotp(ecu.address) };
    let channel = soon("the channel", connection.open_isotp(config)).await.unwrap();
    for exchange in &ecu.exchanges {
        let response =
            soon("the answer", channel.request(&exchange.request, &Timing::default())).await.unwrap();
        assert_eq!(response.data, exchange.response);
    }

    let data: Vec<u8> = (0..FIRMWARE).map(|i| (i * 31 + i / 256) as u8).collect();
    let firmware = Firmware { address: ADDRESS, data: &data };
    let report = flash(&channel, firmware, &Timing::default(), &mut |_| {}).await.unwrap();
    assert_eq!(report.bytes, FIRMWARE);
    let memory = vehicle.memory(ecu.address);
    let image = memory.last().expect("an image");
    assert!(image.address == u64::from(ADDRESS) && image.data == data, "{} bytes", image.data.len());

    check_events(&connection, &channel, ecu).await;
    sandbox.operator.complete(&ticket.id).await.unwrap();
    assert_eq!(vehicle.anomalies(), anomalies);
    agent.end().await;
    vehicle.stop().await;
}

/// Checks the events of a confirmed PDU, of a PDU that no ECU accepts, and of the PDU chained to it. Checks
/// also that a raw channel does not report the agent's own frames.
async fn check_events(connection: &Connection, channel: &Channel, ecu: &EcuRecord) {
    let exchange = &ecu.exchanges[0];
    let everything =
        RawChannelConfig { bus_name: BUS.to_owned(), request_id: None, response_id: None, max_age_ms: None };
    let everything = soon("the channel", connection.open_raw(everything)).await.unwrap();
    let confirm = PduFlags { chained: false, confirm: true };
    channel.send(&exchange.request, confirm).await.unwrap();
    let (mut sent, mut answered) = (false, false);
    while !(sent && answered) {
        match soon("the answer", channel.recv()).await.unwrap().item {
            Item::Event { code: EventCode::Sent, value, .. } => sent = value > 0,
            Item::Pdu { data, .. } => answered = data == exchange.response,
            other => panic!("{other:02X?}"),
        }
    }
    let unanswered = IsotpChannelConfig { response_id: Some(0x6F8), ..functional(0x6F0) };
    let unanswered = soon("the channel", connection.open_isotp(unanswered)).await.unwrap();
    unanswered.send(&[0x36; 20], PduFlags::default()).await.unwrap();
    unanswered.send(&[0x36; 20], PduFlags { chained: true, confirm: false }).await.unwrap();
    let mut events = Vec::new();
    while events.len() < 2 {
        match soon("the events", unanswered.recv()).await.unwrap().item {
            Item::Event { code, detail, value, .. } => events.push((code, detail, value)),
            other => panic!("{other:02X?}"),
        }
    }
    assert_eq!(events, [(EventCode::SendFailed, 1, 0), (EventCode::ChainBroken, 0, 1)]);
    // the raw channel reports the ECU's answer, and not the agent's requests
    let answer = soon("a frame", everything.recv()).await.unwrap().item;
    let Item::Frame(frame) = &answer else { panic!("{answer:02X?}") };
    assert_eq!(frame.id(), ecu.address.response, "{frame}");
}

/// The VIN that the agent's command prints. In an emulated machine, the first attempt may fail.
async fn read_vin(interface: &str) -> String {
    let read = async {
        loop {
            let output = program().args(["vin", "--json", "--bus", interface]).output().await.unwrap();
            let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
                panic!("{error}: {}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
            });
            if let Some(vin) = report["vin_number"].as_str() {
                return vin.to_owned();
            }
        }
    };
    soon("the VIN", read).await
}

/// The program of the agent.
fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_connector-agent"));
    command.kill_on_drop(true).stdin(Stdio::null());
    command
}

/// The agent as a process, as on a device.
struct Agent {
    child: Child,
    directory: tempfile::TempDir,
}

/// Prints the agent's log if a test fails.
impl Drop for Agent {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("{}", std::fs::read_to_string(self.directory.path().join(LOG)).unwrap_or_default());
        }
    }
}

impl Agent {
    fn start(sandbox: &Sandbox, connector: &Connector, interface: &str, isotp_by: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = directory.path().join("connector-agent.toml");
        write_config(&config, sandbox, connector, interface, isotp_by);
        let log = std::fs::File::create(directory.path().join(LOG)).unwrap();
        let child = program().args(["run", "--config"]).arg(&config).stderr(log).spawn().unwrap();
        Self { child, directory }
    }

    /// Ends the agent by SIGTERM.
    async fn end(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        let status = soon("the agent's end", self.child.wait()).await.unwrap();
        assert!(status.success(), "{status}");
    }
}

fn write_config(path: &Path, sandbox: &Sandbox, connector: &Connector, interface: &str, isotp_by: &str) {
    let cloud = &sandbox.cloud;
    let mut text = String::new();
    writeln!(text, "[connector]\nuuid = \"{}\"\npincode = \"{}\"", connector.uuid, connector.pincode)
        .unwrap();
    writeln!(text, "[cloud]\napi_url = \"https://{}\"", cloud.address).unwrap();
    writeln!(text, "websocket_url = \"wss://{}/sandbox/ws\"", cloud.address).unwrap();
    writeln!(text, "ca_file = \"{}\"", cloud.ca_file.display()).unwrap();
    writeln!(text, "[[bus]]\nkind = \"can\"\npins = [6, 14]\ndevice = \"{interface}\"").unwrap();
    writeln!(text, "isotp = \"{isotp_by}\"\n[log]\nlevel = \"debug\"").unwrap();
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}
