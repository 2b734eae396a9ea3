//! CAN FD between vehicle and operator: frames of 64 bytes, bit rate switching and ISO-TP.

use connector_agent::protocol::isotp::FrameSize;
use connector_agent::relay::wire::request::RawChannelConfig;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig, VirtualCan};
use connector_hal::can::{CanBusExt as _, CanEvent, CanFrame, CanId, FdFlags, FrameKind};
use connector_hal::timer::TimerKind;
use connector_operator::client::{Connection, ExchangeError, Item, Timing};
use connector_sim::vehicle::catalogue::VehicleRecord;
use connector_sim::vehicle::{Vehicle, VehicleConfig};
use connector_test_support::agent::{AgentSettings, Sandbox, TestAgent};
use connector_test_support::config::{BUS, fd_bus, isotp};
use connector_test_support::data::catalogue;
use connector_test_support::soon;
use serde_json::json;

const PLATFORM: &str = "VOLKSWAGEN_GOLF_MK7";
const DATA_BIT_RATE: u32 = 2_000_000;
const BRS: FdFlags = FdFlags { bit_rate_switch: true, error_state: false };

/// An operator at a vehicle with CAN FD.
struct Rig {
    _sandbox: Sandbox,
    _agent: TestAgent,
    _vehicle: Vehicle,
    record: VehicleRecord,
    bus: VirtualBus,
    connection: Connection,
}

impl Rig {
    async fn start() -> Self {
        let sandbox = Sandbox::start(1).await;
        let connector = sandbox.connectors[0].clone();
        let config = VirtualBusConfig {
            data_bit_rate: Some(DATA_BIT_RATE),
            timer: TimerKind::Precise,
            ..VirtualBusConfig::default()
        };
        let bus = VirtualBus::new(config);
        let record = catalogue().find(PLATFORM).unwrap().clone();
        let mut config = VehicleConfig { timer: TimerKind::Precise, ..VehicleConfig::new(record.clone()) };
        config.transport.frame_size = FrameSize::fd(64, true).unwrap();
        let vehicle = Vehicle::start(&config, &bus);
        let agent = TestAgent::start(
            &sandbox,
            &connector,
            &bus,
            AgentSettings { fd: true, ..AgentSettings::default() },
        );
        sandbox.portal(&connector).await.sees_online().await;
        let vin = record.vin.unwrap();
        while sandbox.identify(&connector).await["vin_number"] != vin.as_str() {}
        let ticket = sandbox.ticket(&connector, Some(vin.as_str())).await;
        let connection =
            soon("the connection", sandbox.operator.connect(ticket.connection().unwrap())).await.unwrap();
        soon("the bus", connection.configure_buses(vec![fd_bus(DATA_BIT_RATE)])).await.unwrap();
        Self { _sandbox: sandbox, _agent: agent, _vehicle: vehicle, record, bus, connection }
    }
}

/// The frames that a node receives, without error frames, up to the first that `is_last` accepts.
async fn frames_until(node: &mut VirtualCan, is_last: impl Fn(&CanFrame) -> bool) -> Vec<CanFrame> {
    let heard = async {
        let mut frames = Vec::new();
        loop {
            if let CanEvent::Received { frame, .. } = node.event().await.unwrap() {
                frames.push(frame);
                if is_last(&frame) {
                    return frames;
                }
            }
        }
    };
    soon("the frame", heard).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pdus_go_in_frames_of_64_bytes_with_a_switched_bit_rate() {
    let rig = Rig::start().await;
    let mut node = rig.bus.attach("a node that listens");
    let ecu = rig.record.ecus[0].address;
    let channel = soon("the channel", rig.connection.open_isotp(isotp(ecu))).await.unwrap();
    soon("the session", channel.request(&[0x10, 0x03], &Timing::default())).await.unwrap();
    // the ECU refuses unknown identifiers, and can do so only after it has received the whole request
    let mut request = vec![0x22];
    request.extend((0..150u16).flat_map(u16::to_be_bytes));
    let answer = soon("the answer", channel.request(&request, &Timing::default())).await;
    assert!(matches!(answer, Err(ExchangeError::Negative { service: 0x22, .. })), "{answer:?}");

    let answers = |frame: &CanFrame| frame.id() == ecu.response && frame.data().get(1) == Some(&0x7F);
    let frames = frames_until(&mut node, answers).await;
    let requests: Vec<_> = frames.iter().filter(|frame| frame.id() == ecu.request).collect();
    assert!(requests.iter().all(|frame| frame.kind() == FrameKind::Fd(BRS)));
    let whole = requests.iter().filter(|frame| frame.len() == 64).count();
    assert_eq!(
        whole, 5,
        "301 bytes are a first frame with 62, three frames with 63, and a padded frame with 50"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn raw_frames_of_64_bytes_go_both_ways_as_they_are() {
    let rig = Rig::start().await;
    let mut node = rig.bus.attach("a node of the vehicle");
    let config: RawChannelConfig =
        serde_json::from_value(json!({"bus_name": BUS, "request_id": 0x321, "response_id": "0x18DAF110"}))
            .unwrap();
    let channel = soon("the channel", rig.connection.open_raw(config)).await.unwrap();
    let bytes: Vec<u8> = (0..64).collect();
    for flags in [BRS, FdFlags::default()] {
        let there = CanFrame::new_fd(CanId::try_from(0x321).unwrap(), flags, &bytes).unwrap();
        channel.send_frame(there).await.unwrap();
        let heard = frames_until(&mut node, |frame| frame.id() == there.id()).await;
        assert_eq!(heard.last(), Some(&there));
        let back = CanFrame::new_fd(CanId::try_from(0x18DA_F110).unwrap(), flags, &bytes).unwrap();
        node.send(&back).await.unwrap();
        let received = soon("the frame", channel.recv()).await.unwrap();
        assert_eq!(received.item, Item::Frame(back));
    }
    // classic frames work on the same bus
    let classic = CanFrame::new(CanId::try_from(0x321).unwrap(), &[1, 2, 3]).unwrap();
    channel.send_frame(classic).await.unwrap();
    assert_eq!(frames_until(&mut node, |frame| frame.id() == classic.id()).await.last(), Some(&classic));
}
