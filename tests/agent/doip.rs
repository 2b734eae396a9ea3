//! The agent in a vehicle with a DoIP gateway. Sandbox cloud, operator and simulated gateway use real
//! sockets.

use connector_agent::relay::wire::request::{BusConfig, Switch};
use connector_operator::client::{Channel, Connection, Timing};
use connector_operator::doip_entity::ListenConfig;
use connector_sim::vehicle::doip::{FIRST_ECU, GATEWAY};
use connector_sim::vehicle::{DoipConfig, DoipGateway, VehicleConfig};
use connector_test_support::agent::{AgentSettings, Connector, Sandbox, TestAgent, bus};
use connector_test_support::config::doip_bus;
use connector_test_support::data::catalogue;
use connector_test_support::soon;
use serde_json::json;

/// An agent whose only vehicle is behind a DoIP gateway; its CAN bus has no other node.
struct Rig {
    sandbox: Sandbox,
    connector: Connector,
    agent: TestAgent,
    gateway: DoipGateway,
    vin: String,
}

impl Rig {
    async fn start(change: impl FnOnce(&mut DoipConfig)) -> Self {
        let vehicle = VehicleConfig::new(catalogue().find("VOLKSWAGEN_GOLF_MK7").unwrap().clone());
        let vin = vehicle.record.vin.unwrap().as_str().to_owned();
        let listen = ListenConfig {
            announce_to: Some("127.0.0.1:9".parse().unwrap()),
            ..ListenConfig::new("127.0.0.1:0".parse().unwrap())
        };
        let mut config = DoipConfig::new(&vehicle, listen);
        change(&mut config);
        let gateway = DoipGateway::start(&vehicle, config).await.unwrap();
        let sandbox = Sandbox::start(1).await;
        let connector = sandbox.connectors[0].clone();
        let settings =
            AgentSettings { doip: Some(gateway.addresses().tcp.to_string()), ..AgentSettings::default() };
        let agent = TestAgent::start(&sandbox, &connector, &bus(), settings);
        let mut portal = sandbox.portal(&connector).await;
        portal.sees_online().await;
        Self { sandbox, connector, agent, gateway, vin }
    }

    async fn connect(&self) -> Connection {
        let ticket = self.sandbox.ticket(&self.connector, Some(&self.vin)).await;
        let connecting = self.sandbox.operator.connect(ticket.connection().unwrap());
        let connection = soon("the connection", connecting).await.unwrap();
        let bus: BusConfig = serde_json::from_value(doip_bus(1)).unwrap();
        soon("the bus", connection.configure_buses(vec![bus])).await.unwrap();
        connection
    }
}

async fn open(connection: &Connection, ecu: u16, keep_alive: Switch) -> Channel {
    let config = json!({"bus_name": "ETH", "gateway_id": GATEWAY.get(), "tester_id": 0x0E80, "ecu_id": ecu,
                        "keep_alive": keep_alive});
    let config = serde_json::from_value(config).unwrap();
    let opening = connection.open_channel(|open| open.doip_channel = Some(config));
    soon("the channel", opening).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_silent_can_bus_the_vin_comes_from_the_doip_gateway() {
    for change in [|_: &mut DoipConfig| {}, DoipConfig::forget_vin] {
        let rig = Rig::start(change).await;
        // with more tests than cores, a simulated gateway may answer later than a real one
        let identified = loop {
            let identified = rig.sandbox.identify(&rig.connector).await;
            if !identified["vin_number"].is_null() {
                break identified;
            }
        };
        assert_eq!(identified["vin_number"], rig.vin.as_str());
        assert_eq!((&identified["source"], &identified["address"]), (&json!("doip"), &json!("0x4010")));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_ecu_behind_the_gateway_is_read_and_the_activation_line_is_on_meanwhile() {
    let rig = Rig::start(|_| {}).await;
    let mut line = rig.agent.board.doip_activation();
    let connection = rig.connect().await;
    assert!(*line.borrow_and_update());
    let gateway = open(&connection, GATEWAY.get(), Switch::Disabled).await;
    let ecu = open(&connection, FIRST_ECU, Switch::Enabled).await;
    let timing = Timing::default();
    let vin = soon("the VIN", gateway.request(&[0x22, 0xF1, 0x90], &timing)).await.unwrap();
    assert_eq!(vin.data[3..], *rig.vin.as_bytes());
    let present = soon("the answer", ecu.request(&[0x3E, 0x00], &timing)).await.unwrap();
    assert_eq!(present.data, [0x7E, 0x00]);
    soon("the end", connection.close()).await.unwrap();
    soon("the line to go off", line.wait_for(|on| !on)).await.unwrap();
    assert_eq!(rig.gateway.ecus()[0].address, GATEWAY);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_finds_every_ecu_behind_the_gateway_and_no_other_beside_an_open_channel() {
    let rig = Rig::start(|_| {}).await;
    let connection = rig.connect().await;
    let ecu = open(&connection, FIRST_ECU, Switch::Disabled).await;
    let message = json!({"connection_uuid": connection.uuid(), "bus_name": "ETH"});
    let found = soon("the scan", connection.ask("scanEcus", message)).await.unwrap();
    let expected: Vec<_> = rig
        .gateway
        .ecus()
        .iter()
        .map(|ecu| {
            json!({"request_id": ecu.address.get(), "response_id": ecu.address.get(),
                   "gateway_id": GATEWAY.get(), "protocol": "doip"})
        })
        .collect();
    assert_eq!(found["ecus"], json!(expected));
    let present = soon("the answer", ecu.request(&[0x3E, 0x00], &Timing::default())).await.unwrap();
    assert_eq!(present.data, [0x7E, 0x00]);
}
