//! An independent CAN tool (udsoncan over can-isotp over python-can's slcan) at a remote vehicle: agent,
//! cloud and the operator's CAN gateway, over networks with and without delay and cut links.
//!
//! Needs a Python with these packages, named by `CONNECTOR_TEST_PYTHON` (default: `.venv/bin/python` in the
//! workspace). Without it, the tests print one line `SKIPPED: …` and pass.

use std::time::Duration;

use connector_hal::can::slcan::{DEFAULT_BAUD, Slcan};
use connector_hal::can::{CanBus as _, CanBusExt as _, CanEvent, CanFrame, CanId, CanSettings};
use connector_operator::client::Connection;
use connector_operator::gateway::can::{CanGatewayServer, CanGatewaySettings};
use connector_sim::network::{BadNetwork, BadNetworkConfig};
use connector_sim::vehicle::ecu::{EcuConfig, EcuStatus, Session};
use connector_test_support::agent::{AgentSettings, Rig, Sandbox};
use connector_test_support::config::{BUS, configure};
use connector_test_support::peers::{Job, check, peer, run, with_trouble_codes};
use connector_test_support::soon;
use tokio::sync::watch;

const VEHICLE: &str = "VOLKSWAGEN_GOLF_MK7";

/// An online connector behind a network, with its bus configured by a joined operator.
async fn remote_vehicle(round_trip: Duration) -> (Rig, BadNetwork, Connection) {
    let sandbox = Sandbox::start(1).await;
    let bad = BadNetworkConfig { round_trip, ..BadNetworkConfig::default() };
    let network = BadNetwork::start(sandbox.cloud.address, bad).await.unwrap();
    let settings = AgentSettings { through: Some(network.address()), ..AgentSettings::default() };
    let rig = Rig::start_in(sandbox, VEHICLE, settings).await;
    let (_, connection) = rig.connect().await;
    configure(&connection).await;
    (rig, network, connection)
}

fn status(rig: &Rig) -> watch::Receiver<EcuStatus> {
    rig.vehicle.ecu(rig.ecu()).unwrap().status.clone()
}

/// Cuts the network when 20 % of the download has arrived in the ECU, and again at 60 %.
async fn cut(mut status: watch::Receiver<EcuStatus>, network: &BadNetwork, size: usize) {
    for percent in [20, 60] {
        let arrived = |status: &EcuStatus| {
            status.download.as_ref().is_some_and(|download| download.received * 100 >= size * percent)
        };
        soon("the download", status.wait_for(arrived)).await.unwrap();
        network.cut();
    }
    std::future::pending().await
}

async fn a_tool_reads_and_flashes(round_trip: Duration, cuts: bool) {
    let purpose = "udsoncan through the CAN gateway";
    let Some(mut peer) = peer("uds_peer.py", purpose, "can, isotp, serial, udsoncan").await else { return };
    let (rig, network, connection) = remote_vehicle(round_trip).await;
    let nodes = rig.record.nodes();
    let node = &nodes[with_trouble_codes(&rig.record.platform, &nodes)];
    let mut settings = CanGatewaySettings::obd(BUS);
    settings.ecus = vec![node.address];
    let server = CanGatewayServer::new(None, settings).unwrap();
    let exchange = &node.exchanges[0];
    let job = Job { read: exchange.request.clone(), size: 30_000 };
    let (request, response) = (node.address.request.to_string(), node.address.response.to_string());
    peer.arg("can").arg(server.device()).args([&request, &response, &job.arguments()]);
    let status = rig.vehicle.ecu(node.address).unwrap().status.clone();
    let cutting = async {
        if cuts {
            cut(status, &network, job.size).await;
        }
        std::future::pending::<()>().await;
    };
    let result = tokio::select! {
        reason = server.run(&connection) => panic!("the connection is over: {reason}"),
        () = cutting => unreachable!(),
        result = run(peer) => result,
    };
    let config = EcuConfig::new(&rig.record.platform, node);
    let memory = rig.vehicle.memory(node.address);
    check(&result, &job, &exchange.response, &config, memory.last().map(AsRef::as_ref));
    let anomalies = rig.vehicle.anomalies();
    assert!(anomalies.is_empty(), "{anomalies:?}");
    if !round_trip.is_zero() {
        // every answer takes longer than any tool's P2
        assert!(result["pending"].as_u64().unwrap() > 10, "{result}");
    }
    if cuts {
        assert_eq!(connection.counters().interruptions(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_can_tool_reads_and_flashes_a_remote_ecu() {
    a_tool_reads_and_flashes(Duration::ZERO, false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_can_tool_reads_and_flashes_over_a_round_trip_of_300_ms() {
    a_tool_reads_and_flashes(Duration::from_millis(300), false).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_can_tool_does_not_notice_cut_links() {
    a_tool_reads_and_flashes(Duration::from_millis(300), true).await;
}

/// A tool that the test drives frame by frame.
struct Tool(Slcan);

impl Tool {
    async fn open(server: &CanGatewayServer) -> Self {
        let device = server.device().to_str().unwrap();
        let mut can = Slcan::open(device, device, DEFAULT_BAUD).unwrap();
        let settings = CanSettings { bit_rate: 250_000, data_bit_rate: None, listen_only: false };
        soon("the adapter", can.configure(settings)).await.unwrap();
        Self(can)
    }

    async fn send(&mut self, id: u32, data: &[u8]) {
        let frame = CanFrame::new(CanId::try_from(id).unwrap(), data).unwrap();
        soon("room for a frame", self.0.send(&frame)).await.unwrap();
    }

    /// The next data frame that is not "response pending".
    async fn hear(&mut self) -> (u32, Vec<u8>) {
        loop {
            if let CanEvent::Received { frame, .. } = soon("a frame", self.0.event()).await.unwrap()
                && frame.is_data()
                && !matches!(frame.data(), [3, 0x7F, _, 0x78, ..])
            {
                return (frame.id().raw(), frame.data().to_vec());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_ecu_answers_a_functional_request_once_with_its_own_identifier() {
    let (rig, _network, connection) = remote_vehicle(Duration::ZERO).await;
    let server = CanGatewayServer::new(None, CanGatewaySettings::obd(BUS)).unwrap();
    let mut tool = Tool::open(&server).await;
    let hearing = rig.vehicle.ecus().iter().map(|ecu| ecu.address.request.raw());
    let mut expected: Vec<u32> = hearing.filter(|id| (0x7E0..=0x7E7).contains(id)).map(|id| id + 8).collect();
    expected.sort_unstable();
    let asking = async {
        // the first ECU's own channel is opened, so that the connector hears its answers twice
        tool.send(0x7E0, &[0x02, 0x3E, 0x00]).await;
        assert_eq!(tool.hear().await.0, 0x7E8);
        for _ in 0..2 {
            tool.send(0x7DF, &[0x02, 0x3E, 0x00]).await;
            let mut senders = Vec::new();
            while senders.len() < expected.len() {
                let (id, data) = tool.hear().await;
                assert_eq!(data[..3], [2, 0x7E, 0]);
                senders.push(id);
            }
            senders.sort_unstable();
            assert_eq!(senders, expected);
        }
        // a second answer of an ECU would arrive before this answer
        tool.send(0x7E0, &[0x03, 0x22, 0xF1, 0x86]).await;
        assert_eq!(tool.hear().await.1[..5], [4, 0x62, 0xF1, 0x86, 1]);
    };
    tokio::select! {
        reason = server.run(&connection) => panic!("the connection is over: {reason}"),
        () = asking => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_gateway_sends_flow_control_without_using_the_network() {
    const ROUNDS: usize = 200;
    let (_rig, network, connection) = remote_vehicle(Duration::ZERO).await;
    let server = CanGatewayServer::new(None, CanGatewaySettings::obd(BUS)).unwrap();
    let mut tool = Tool::open(&server).await;
    network.stall(Duration::from_secs(3600));
    let asking = async {
        let mut took = Vec::new();
        for _ in 0..ROUNDS {
            let started = std::time::Instant::now();
            // each first frame begins a new request
            tool.send(0x7E0, &[0x10, 20, 0x36, 1, 2, 3, 4, 5]).await;
            let (id, data) = tool.hear().await;
            took.push(started.elapsed());
            assert_eq!((id, data[0]), (0x7E8, 0x30));
        }
        took.sort_unstable();
        let (median, late) = (took[ROUNDS / 2], took[ROUNDS * 99 / 100]);
        println!(
            "first frame to flow control, through the pseudo-terminal: median {median:?}, 99 % {late:?}"
        );
    };
    tokio::select! {
        reason = server.run(&connection) => panic!("the connection is over: {reason}"),
        () = asking => {}
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_kept_until_the_tool_leaves() {
    let (rig, _network, connection) = remote_vehicle(Duration::ZERO).await;
    let server = CanGatewayServer::new(None, CanGatewaySettings::obd(BUS)).unwrap();
    let mut tool = Tool::open(&server).await;
    let mut status = status(&rig);
    let sending = async {
        tool.send(0x7E0, &[0x02, 0x10, 0x03]).await;
        assert_eq!(tool.hear().await.1[..3], [6, 0x50, 3]);
        let before = status.borrow().tester_presents;
        // the connector sends them, because this tool sends none
        soon("TesterPresent", status.wait_for(|status| status.tester_presents > before + 3)).await.unwrap();
        assert_eq!(status.borrow().session, Session::Extended);
        drop(tool);
        let default = |status: &EcuStatus| status.session == Session::Default;
        soon("the end of the session", status.wait_for(default)).await.unwrap();
    };
    tokio::select! {
        reason = server.run(&connection) => panic!("the connection is over: {reason}"),
        () = sending => {}
    }
}
