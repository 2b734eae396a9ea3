//! Scripts whose links are cut again and again: that of the connector, and that of the gateway.

use clap::Parser as _;
use connector_hal::can::{CanBus as _, CanFrame};
use connector_hal::timer::TimerKind;
use connector_operator::doip_entity::ListenConfig;
use connector_sim::vehicle::doip::{FIRST_ECU, GATEWAY};
use connector_sim::vehicle::{DoipConfig, DoipGateway, Tp20EcuConfig, Vehicle, VehicleConfig};
use connector_test_support::agent::{TestAgent, bus};
use connector_test_support::data::catalogue;
use futures_util::future::poll_fn;

use super::buses::{Line, patient, without_vin};
use super::dialogue::Dialogue;
use super::*;

/// How often the links are cut.
const CUTS: usize = 6;

/// A cloud behind a network that a test cuts, with a gateway behind another one.
struct CutLinks {
    sandbox: Sandbox,
    agents: BadNetwork,
    gateways: BadNetwork,
}

impl CutLinks {
    async fn start() -> Self {
        let sandbox = Sandbox::start(1).await;
        let slow = BadNetworkConfig { round_trip: Duration::from_millis(60), ..BadNetworkConfig::default() };
        let network = async || BadNetwork::start(sandbox.cloud.address, slow).await.unwrap();
        let (agents, gateways) = (network().await, network().await);
        Self { sandbox, agents, gateways }
    }

    /// An agent that is online through the network.
    async fn agent(
        &self,
        bus: &connector_hal::can::virtual_bus::VirtualBus,
        settings: AgentSettings,
    ) -> TestAgent {
        let connector = &self.sandbox.connectors[0];
        let settings = AgentSettings { through: Some(self.agents.address()), ..settings };
        let agent = TestAgent::start(&self.sandbox, connector, bus, settings);
        self.sandbox.portal(connector).await.sees_online().await;
        agent
    }

    /// Runs the script, and cuts the links whenever it has sent a request. Returns what it prints at its end.
    async fn run(&self, mut command: Command, more: Value) -> Value {
        let websocket_url = format!("wss://{}/sandbox/ws", self.gateways.address());
        let change = |settings: &mut OpenobdSettings| settings.websocket_url = websocket_url;
        let gateway = TestGateway::start_with(&self.sandbox, None, None, change).await;
        let job = job(&self.sandbox, &gateway, &self.sandbox.connectors[0], None).await;
        let mut script = Dialogue::start(&mut command, &with(job, with(more, json!({"cuts": CUTS}))));
        for number in 0..CUTS {
            assert_eq!(script.hears().await, json!("sent"));
            let network = if number % 2 == 0 { &self.agents } else { &self.gateways };
            network.cut();
        }
        let result = script.hears().await;
        let cut = self.agents.statistics().cut + self.gateways.statistics().cut;
        assert!(cut >= CUTS as u64, "{cut} connections were cut");
        result
    }
}

/// The answers that a script must get when it sends these requests in turns: each once, and in order.
fn in_turns(answers: &[String]) -> Vec<&String> {
    answers.iter().cycle().take(CUTS + 1).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_links_lose_and_double_no_request_on_tp20() {
    let Some(command) = script("cuts").await else { return };
    let links = CutLinks::start().await;
    let bus = bus();
    let ecu = patient(Tp20EcuConfig::golf()).remove(0);
    let exchanges = &ecu.exchanges;
    let requests: Vec<_> = exchanges.iter().map(|exchange| hex(&exchange.request)).collect();
    let answers: Vec<_> = exchanges.iter().map(|exchange| hex(&exchange.response).to_uppercase()).collect();
    let channel = json!({"bus_name": "TP", "logical_address": ecu.ecu.get()});
    let config = VehicleConfig {
        tp20: vec![ecu.clone()],
        timer: TimerKind::Precise,
        ..VehicleConfig::new(without_vin())
    };
    let _vehicle = Vehicle::start(&config, &bus);
    let _agent = links.agent(&bus, AgentSettings::default()).await;
    let result = links.run(command, json!({"kind": "tp20", "channel": channel, "requests": requests})).await;
    assert_eq!(result, json!({"answers": in_turns(&answers)}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_links_lose_and_double_no_request_on_a_kline() {
    let Some(command) = script("cuts").await else { return };
    let links = CutLinks::start().await;
    let directory = tempfile::tempdir().unwrap();
    let device = directory.path().join("line");
    let arguments = ["vehicle", "--kline-init", "fast", "--kline"].map(std::ffi::OsStr::new);
    let _line = Line::parse_from(arguments.into_iter().chain([device.as_os_str()])).kline.start(None);
    let settings = AgentSettings { klines: vec![device], ..AgentSettings::default() };
    let _agent = links.agent(&bus(), settings).await;
    let answers = [hex(b"\x5A\x90WVWZZZ1KZ6W000001").to_uppercase(), "58020100E1030061".to_owned()];
    let more = json!({"kind": "kline", "channel": {"bus_name": "K", "ecu_id": 0x11}, "requests": ["1A90", "1800FF00"]});
    let result = links.run(command, more).await;
    assert_eq!(result, json!({"answers": in_turns(&answers)}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_links_lose_and_double_no_request_behind_doip() {
    let Some(command) = script("cuts").await else { return };
    let links = CutLinks::start().await;
    let vehicle = VehicleConfig::new(catalogue().find("VOLKSWAGEN_GOLF_MK7").unwrap().clone());
    let listen = ListenConfig {
        announce_to: Some("127.0.0.1:9".parse().unwrap()),
        ..ListenConfig::new("127.0.0.1:0".parse().unwrap())
    };
    let entity = DoipGateway::start(&vehicle, DoipConfig::new(&vehicle, listen)).await.unwrap();
    let settings =
        AgentSettings { doip: Some(entity.addresses().tcp.to_string()), ..AgentSettings::default() };
    let _agent = links.agent(&bus(), settings).await;
    let exchange = &vehicle.record.nodes()[0].exchanges[0];
    let requests = [hex(&exchange.request), "3E00".to_owned()];
    let answers = [hex(&exchange.response).to_uppercase(), "7E00".to_owned()];
    let channel =
        json!({"bus_name": "ETH", "gateway_id": GATEWAY.get(), "tester_id": 0x0E80, "ecu_id": FIRST_ECU});
    let result = links.run(command, json!({"kind": "doip", "channel": channel, "requests": requests})).await;
    assert_eq!(result, json!({"answers": in_turns(&answers)}));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_links_lose_no_raw_frame_of_the_vehicle_and_double_none() {
    const ID: CanId = CanId::standard_truncated(0x7E8);
    let Some(mut command) = script("cut_frames").await else { return };
    let links = CutLinks::start().await;
    let bus = bus();
    let _agent = links.agent(&bus, AgentSettings::default()).await;
    let gateway = TestGateway::start_with(&links.sandbox, None, None, |settings| {
        settings.websocket_url = format!("wss://{}/sandbox/ws", links.gateways.address());
    })
    .await;
    let job = job(&links.sandbox, &gateway, &links.sandbox.connectors[0], None).await;
    let mut script = Dialogue::start(&mut command, &job);
    assert_eq!(script.hears().await, json!("open"));
    // a node of the vehicle that sends numbered frames, and hears those of the script
    let mut node = bus.attach("node");
    node.configure(connector_hal::can::CanSettings {
        bit_rate: 500_000,
        data_bit_rate: None,
        listen_only: false,
    })
    .await
    .unwrap();
    for number in 0..100_u8 {
        let frame = CanFrame::new(ID, &[number]).unwrap();
        poll_fn(|cx| node.poll_send(cx, &frame)).await.unwrap();
        if number % 20 == 10 {
            links.agents.cut();
            links.gateways.cut();
        }
        if number % 20 == 19 {
            assert_eq!(script.hears().await, json!(number + 1));
        }
    }
    let received = script.hears().await;
    let expected: Vec<String> = (0..100_u8).map(|number| hex(&[number]).to_uppercase()).collect();
    assert_eq!(received, json!({"received": expected}));
}
