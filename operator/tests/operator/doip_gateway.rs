//! An independent DoIP tool (udsoncan over doipclient) at a remote vehicle: agent, cloud and the operator's
//! DoIP gateway, over networks with and without delay and cut links.
//!
//! Needs a Python with these packages, named by `CONNECTOR_TEST_PYTHON` (default: `.venv/bin/python` in the
//! workspace). Without it, the tests print one line `SKIPPED: …` and pass.

use std::time::Duration;

use connector_agent::protocol::doip::LogicalAddress;
use connector_agent::protocol::vin::Vin;
use connector_hal::can::CanId;
use connector_operator::client::Connection;
use connector_operator::doip_entity::{ListenConfig, Timeouts};
use connector_operator::gateway::doip::{DoipGatewayServer, DoipGatewaySettings, RemoteVehicle};
use connector_sim::network::{BadNetwork, BadNetworkConfig};
use connector_sim::vehicle::doip::{FIRST_ECU, GATEWAY};
use connector_sim::vehicle::ecu::{EcuConfig, EcuStatus};
use connector_sim::vehicle::{DoipConfig, DoipGateway, VehicleConfig};
use connector_test_support::agent::{AgentSettings, Rig, Sandbox, TestAgent, bus};
use connector_test_support::config::{BUS, configure, doip_bus};
use connector_test_support::data::catalogue;
use connector_test_support::hex;
use connector_test_support::peers::{Job, check, peer, run, with_trouble_codes};
use connector_test_support::soon;
use serde_json::{Value, json};
use tokio::sync::watch;

const VEHICLE: &str = "VOLKSWAGEN_GOLF_MK7";
const MODULES: &str = "doipclient, udsoncan";

/// The delay of a network, and whether the test cuts its links.
#[derive(Debug, Clone, Copy)]
struct NetworkQuality {
    round_trip: Duration,
    cuts: bool,
}

const GOOD: NetworkQuality = NetworkQuality { round_trip: Duration::ZERO, cuts: false };
const SLOW: NetworkQuality = NetworkQuality { round_trip: Duration::from_millis(300), cuts: false };
const BAD: NetworkQuality = NetworkQuality { round_trip: Duration::from_millis(300), cuts: true };

/// Cuts the network when 20 % of the download has arrived in the ECU, and again at 60 %.
async fn cut(mut status: watch::Receiver<EcuStatus>, network: &BadNetwork, size: usize) {
    for percent in [20, 60] {
        let arrived = |status: &EcuStatus| {
            status.download.as_ref().is_some_and(|download| download.received * 100 >= size * percent)
        };
        soon("the download", status.wait_for(arrived)).await.unwrap();
        network.cut();
    }
}

fn listen() -> ListenConfig {
    ListenConfig {
        announce_to: Some("127.0.0.1:9".parse().unwrap()),
        ..ListenConfig::new("127.0.0.1:0".parse().unwrap())
    }
}

/// The timeouts of an entity, long enough for a busy machine.
fn long_timeouts() -> Timeouts {
    Timeouts { initial_inactivity: Duration::from_secs(60), ..Timeouts::default() }
}

async fn network(sandbox: &Sandbox, quality: NetworkQuality) -> BadNetwork {
    let bad = BadNetworkConfig { round_trip: quality.round_trip, ..BadNetworkConfig::default() };
    BadNetwork::start(sandbox.cloud.address, bad).await.unwrap()
}

/// Serves the gateway while the tool works, and returns the output of the tool.
async fn work(
    server: DoipGatewayServer,
    connection: &Connection,
    tool: tokio::process::Command,
    cutting: impl Future<Output = ()>,
) -> Value {
    let cutting = async {
        cutting.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        reason = server.run(connection) => panic!("the connection is over: {reason}"),
        () = cutting => unreachable!(),
        result = run(tool) => result,
    }
}

fn check_quality(quality: NetworkQuality, result: &Value, connection: &Connection) {
    if !quality.round_trip.is_zero() {
        // every answer takes longer than any tool's P2
        assert!(result["pending"].as_u64().unwrap() > 10, "{result}");
    }
    if quality.cuts {
        assert_eq!(connection.counters().interruptions(), 2);
    }
}

/// The vehicle's ECUs on CAN, behind the operator's DoIP gateway.
fn over_can(rig: &Rig) -> DoipGatewaySettings {
    let vehicle = RemoteVehicle::Can {
        first: FIRST_ECU,
        ecus: rig.record.nodes().iter().map(|node| node.address).collect(),
        functional: CanId::standard(0x7DF).unwrap(),
    };
    let mut settings = DoipGatewaySettings::new(listen(), BUS, GATEWAY, rig.record.vin.as_ref(), vehicle);
    settings.entity.timeouts = long_timeouts();
    settings
}

async fn on_can(quality: NetworkQuality) -> (Rig, BadNetwork, Connection) {
    let sandbox = Sandbox::start(1).await;
    let network = network(&sandbox, quality).await;
    let settings = AgentSettings { through: Some(network.address()), ..AgentSettings::default() };
    let rig = Rig::start_in(sandbox, VEHICLE, settings).await;
    let (_, connection) = rig.connect().await;
    configure(&connection).await;
    (rig, network, connection)
}

async fn a_tool_flashes_a_vehicle_on_can(quality: NetworkQuality) {
    let purpose = "udsoncan and doipclient through the DoIP gateway";
    let Some(mut tool) = peer("uds_peer.py", purpose, MODULES).await else { return };
    let (rig, network, connection) = on_can(quality).await;
    let server = DoipGatewayServer::bind(over_can(&rig)).await.unwrap();
    let nodes = rig.record.nodes();
    let place = with_trouble_codes(&rig.record.platform, &nodes);
    let (node, address) = (&nodes[place], FIRST_ECU + u16::try_from(place).unwrap());
    let job = Job { read: node.exchanges[0].request.clone(), size: 30_000 };
    let port = server.addresses().tcp.port().to_string();
    tool.args(["doip", "127.0.0.1", &port, &address.to_string(), &job.arguments()]);
    let status = rig.vehicle.ecu(node.address).unwrap().status.clone();
    let cutting = async {
        if quality.cuts {
            cut(status, &network, job.size).await;
        }
    };
    let result = work(server, &connection, tool, cutting).await;
    let config = EcuConfig::new(&rig.record.platform, node);
    let memory = rig.vehicle.memory(node.address);
    check(&result, &job, &node.exchanges[0].response, &config, memory.last().map(AsRef::as_ref));
    assert!(rig.vehicle.anomalies().is_empty(), "{:?}", rig.vehicle.anomalies());
    check_quality(quality, &result, &connection);
}

/// An online connector at a simulated gateway behind a network, with its bus configured by a joined operator.
struct DoipRig {
    vehicle: VehicleConfig,
    gateway: DoipGateway,
    network: BadNetwork,
    connection: Connection,
    vin: Vin,
    _agent: TestAgent,
    _sandbox: Sandbox,
}

impl DoipRig {
    async fn start(quality: NetworkQuality) -> Self {
        let vehicle = VehicleConfig::new(catalogue().find(VEHICLE).unwrap().clone());
        let mut config = DoipConfig::new(&vehicle, listen());
        config.entity.timeouts = long_timeouts();
        let gateway = DoipGateway::start(&vehicle, config).await.unwrap();
        let sandbox = Sandbox::start(1).await;
        let network = network(&sandbox, quality).await;
        let settings = AgentSettings {
            through: Some(network.address()),
            doip: Some(gateway.addresses().tcp.to_string()),
            ..AgentSettings::default()
        };
        let connector = sandbox.connectors[0].clone();
        let agent = TestAgent::start(&sandbox, &connector, &bus(), settings);
        sandbox.portal(&connector).await.sees_online().await;
        let vin = vehicle.record.vin.unwrap();
        let found = async {
            loop {
                let found = sandbox.identify(&connector).await;
                if found["vin_number"] == vin.as_str() {
                    return found;
                }
            }
        };
        let found = soon("the VIN", found).await;
        assert_eq!((&found["source"], &found["address"]), (&json!("doip"), &json!("0x4010")));
        let ticket = sandbox.ticket(&connector, Some(vin.as_str())).await;
        let operator = sandbox.operator.clone();
        let joined = operator.connect(ticket.connection().unwrap());
        let connection = soon("the connection", joined).await.unwrap();
        let buses = vec![serde_json::from_value(doip_bus(1)).unwrap()];
        soon("the bus", connection.configure_buses(buses)).await.unwrap();
        Self { vehicle, gateway, network, connection, vin, _agent: agent, _sandbox: sandbox }
    }

    async fn server(&self) -> DoipGatewayServer {
        let vehicle = RemoteVehicle::Doip { gateway: GATEWAY };
        let mut settings = DoipGatewaySettings::new(listen(), "ETH", GATEWAY, Some(&self.vin), vehicle);
        settings.entity.timeouts = long_timeouts();
        DoipGatewayServer::bind(settings).await.unwrap()
    }
}

async fn a_tool_flashes_a_vehicle_on_doip(quality: NetworkQuality) {
    let purpose = "udsoncan and doipclient through the DoIP gateway";
    let Some(mut tool) = peer("uds_peer.py", purpose, MODULES).await else { return };
    let rig = DoipRig::start(quality).await;
    let server = rig.server().await;
    let record = &rig.vehicle.record;
    let nodes = record.nodes();
    let place = with_trouble_codes(&record.platform, &nodes);
    let (node, address) = (&nodes[place], FIRST_ECU + u16::try_from(place).unwrap());
    let job = Job { read: node.exchanges[0].request.clone(), size: 30_000 };
    let port = server.addresses().tcp.port().to_string();
    tool.args(["doip", "127.0.0.1", &port, &address.to_string(), &job.arguments()]);
    let status = rig.gateway.ecu(address.into()).unwrap().status.clone();
    let cutting = async {
        if quality.cuts {
            cut(status, &rig.network, job.size).await;
        }
    };
    let result = work(server, &rig.connection, tool, cutting).await;
    let memory = rig.gateway.memory(address.into());
    let config = EcuConfig::new(&record.platform, node);
    check(&result, &job, &node.exchanges[0].response, &config, memory.last().map(AsRef::as_ref));
    assert!(rig.gateway.anomalies().is_empty(), "{:?}", rig.gateway.anomalies());
    check_quality(quality, &result, &rig.connection);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doip_tool_reads_and_flashes_a_remote_ecu_on_doip() {
    a_tool_flashes_a_vehicle_on_doip(GOOD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doip_tool_reads_and_flashes_over_a_round_trip_of_300_ms() {
    a_tool_flashes_a_vehicle_on_doip(SLOW).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doip_tool_does_not_notice_cut_links() {
    a_tool_flashes_a_vehicle_on_doip(BAD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn remote_ecus_are_found_at_their_addresses_and_by_functional_request() {
    let purpose = "doipclient through the DoIP gateway";
    let Some(mut tool) = peer("doip_peer.py", purpose, MODULES).await else { return };
    let rig = DoipRig::start(GOOD).await;
    let server = rig.server().await;
    let nodes = rig.vehicle.record.nodes();
    let asks = nodes.iter().enumerate().map(|(place, node)| {
        json!({"ask_all": {"to": usize::from(FIRST_ECU) + place, "pdu": hex(&node.exchanges[0].request)}})
    });
    let mut steps: Vec<Value> = asks.collect();
    steps.extend([
        json!({"functional": {"to": 0xE400, "pdu": "3e00", "answers": nodes.len() + 1}}),
        // a second answer of an ECU would arrive here
        json!({"ask_all": {"to": FIRST_ECU, "pdu": "22f186"}}),
        json!({"identify": {"vin": rig.vin.as_str()}}),
        json!({"ask_final": {"to": 0x4711, "pdu": "3e00"}}),
    ]);
    let addresses = server.addresses();
    let job = json!({"tcp": addresses.tcp.port(), "udp": addresses.udp.port(), "steps": steps});
    tool.arg(job.to_string());
    let result = work(server, &rig.connection, tool, async {}).await;
    for (place, node) in nodes.iter().enumerate() {
        let answers = result[place].as_array().unwrap();
        assert_eq!(answers[answers.len() - 1], hex(&node.exchanges[0].response));
    }
    let answers = result[nodes.len()].as_array().unwrap();
    let mut responders: Vec<u64> = answers.iter().map(|answer| answer[0].as_u64().unwrap()).collect();
    responders.sort_unstable();
    let all = std::iter::once(0x4010).chain((u64::from(FIRST_ECU)..).take(nodes.len()));
    assert_eq!(responders, all.collect::<Vec<_>>());
    let answers = result[nodes.len() + 1].as_array().unwrap();
    assert_eq!(answers[answers.len() - 1], "62f18601");
    assert_eq!(result[nodes.len() + 2]["vin"], rig.vin.as_str());
    // the refusal comes immediately, or after "response pending"
    let unknown = &result[nodes.len() + 3];
    assert!(*unknown == json!({"nack": 6}) || *unknown == json!("7f3e25"), "{unknown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doip_tool_reads_and_flashes_a_remote_ecu_on_can() {
    a_tool_flashes_a_vehicle_on_can(GOOD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_doip_tool_at_a_vehicle_on_can_does_not_notice_cut_links() {
    a_tool_flashes_a_vehicle_on_can(BAD).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ecus_on_can_are_found_at_their_addresses_and_by_functional_request() {
    let purpose = "doipclient through the DoIP gateway";
    let Some(mut tool) = peer("doip_peer.py", purpose, MODULES).await else { return };
    let (rig, _network, connection) = on_can(GOOD).await;
    let server = DoipGatewayServer::bind(over_can(&rig)).await.unwrap();
    let nodes = rig.record.nodes();
    let asks = nodes.iter().enumerate().map(|(place, node)| {
        json!({"ask_final": {"to": usize::from(FIRST_ECU) + place, "pdu": hex(&node.exchanges[0].request)}})
    });
    let hears_obd = |id: CanId| (0x7E0..=0x7E7).contains(&id.raw());
    let answering: Vec<u64> = (u64::from(FIRST_ECU)..)
        .zip(&nodes)
        .filter(|(_, node)| hears_obd(node.address.request))
        .map(|(address, _)| address)
        .collect();
    let mut steps: Vec<Value> = asks.collect();
    steps.extend([
        json!({"ask_final": {"to": 0x4711, "pdu": "3e00"}}),
        json!({"functional": {"to": 0xE400, "pdu": "3e00", "answers": answering.len()}}),
        // a second answer of an ECU would arrive here
        json!({"ask_final": {"to": FIRST_ECU, "pdu": "22f186"}}),
        json!({"identify": {}}),
    ]);
    let addresses = server.addresses();
    let job = json!({"tcp": addresses.tcp.port(), "udp": addresses.udp.port(), "steps": steps});
    tool.arg(job.to_string());
    let result = work(server, &connection, tool, async {}).await;
    for (place, node) in nodes.iter().enumerate() {
        assert_eq!(result[place], hex(&node.exchanges[0].response));
    }
    assert_eq!(result[nodes.len()], json!({"nack": 3}));
    let mut responders: Vec<u64> = result[nodes.len() + 1]
        .as_array()
        .unwrap()
        .iter()
        .map(|answer| answer[0].as_u64().unwrap())
        .collect();
    responders.sort_unstable();
    assert_eq!(responders, answering);
    assert_eq!(result[nodes.len() + 2], "62f18601");
    let announcement = &result[nodes.len() + 3];
    assert_eq!(announcement["vin"], rig.record.vin.unwrap().as_str());
    assert_eq!(
        LogicalAddress::try_from(announcement["logical_address"].as_u64().unwrap() as u32),
        Ok(GATEWAY)
    );
}
