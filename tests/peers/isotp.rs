//! ISO-TP with an independent implementation, Python's can-isotp, on the virtual bus through SLCAN.
//!
//! Needs a Python with `can-isotp`, `python-can` and `pyserial`, named by `CONNECTOR_TEST_PYTHON` (default:
//! `.venv/bin/python` in the workspace). Without it, the tests print one line `SKIPPED: …` and pass.

use std::process::Stdio;
use std::time::Duration;

use connector_agent::protocol::isotp::{
    Addressing, Config, Endpoint, Event, FrameSize, Padding, SendError, SendFailure, SeparationTime, Timeouts,
};
use connector_hal::bus::BusState;
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig, VirtualCan};
use connector_hal::can::{CanBusExt, CanEvent, CanId};
use connector_hal::timer::{Deadline, TimerKind};
use connector_test_support::hex;
use connector_test_support::pdu;
use connector_test_support::peers::peer;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::time::timeout;

/// A limit that even a busy machine does not reach.
const PATIENCE: Duration = Duration::from_secs(20);
const CLOCK: TimerKind = TimerKind::Precise;

#[tokio::test]
async fn the_agents_pdus_arrive_at_the_peer_in_every_mode() {
    each_case(Direction::ToPeer).await;
}

#[tokio::test]
async fn the_peers_pdus_arrive_at_the_agent_in_every_mode() {
    each_case(Direction::FromPeer).await;
}

#[tokio::test]
async fn fd_frames_carry_pdus_both_ways() {
    let Some(mut rig) = Rig::start().await else { return };
    for (case, mode) in modes().into_iter().enumerate() {
        for tx_dl in [8, 12, 64] {
            let flow = [(0, 0), (8, 0xF1), (1, 0)][case % 3];
            rig.open(&mode, flow, FrameSize::fd(tx_dl, true).unwrap(), Padding::Enabled(0xAA)).await;
            let single = usize::from(tx_dl) - mode.addressing.address_bytes() - if tx_dl > 8 { 2 } else { 1 };
            for len in [1, single, single + 1, 62, 63, 300] {
                rig.transfer(Direction::ToPeer, len).await;
                rig.transfer(Direction::FromPeer, len).await;
            }
        }
    }
    rig.transfer(Direction::ToPeer, 4095).await;
    rig.transfer(Direction::FromPeer, 4095).await;
}

#[tokio::test]
async fn lengths_of_32_bits_and_refusals_are_understood_both_ways() {
    let Some(mut rig) = Rig::start().await else { return };
    let mode = &modes()[0];
    let fd = FrameSize::fd(64, true).unwrap();
    rig.open(mode, (0, 0), fd, Padding::Enabled(0xCC)).await;
    rig.transfer(Direction::ToPeer, 4096).await;
    rig.transfer(Direction::FromPeer, 4096).await;

    // the peer accepts 5000 bytes, the agent 4999
    let now = CLOCK.now();
    rig.command(json!({"receive": 0.2})).await;
    rig.endpoint.send(now, &pdu(5001)).unwrap();
    let failure = SendFailure::Overflow;
    assert_eq!(rig.next_event().await, Event::SendFailed { failure });
    assert_eq!(rig.answer().await["received"], Value::Null);
    rig.endpoint = Endpoint::new(Config { max_pdu: 4999, ..rig.endpoint.config().clone() });
    rig.command(json!({"send": hex(&pdu(5000))})).await;
    assert!(matches!(rig.next_event().await, Event::ReceptionStarted { .. }));
    assert!(matches!(rig.next_event().await, Event::ReceiveFailed { .. }));
    let answer = rig.drive_until_answer().await;
    assert!(answer["errors"][0].as_str().unwrap().starts_with("OverflowError"), "{answer}");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    ToPeer,
    FromPeer,
}

/// Transfers PDUs in every addressing mode with every block size and separation time. Slow modes use some of
/// the lengths, in turn.
async fn each_case(direction: Direction) {
    let Some(mut rig) = Rig::start().await else { return };
    let mut turn = 0;
    for mode in modes() {
        let single = 7 - mode.addressing.address_bytes();
        // lengths that end a single frame, a first frame, a consecutive frame, a block and a sequence number
        let ends = [1, single, single + single, single - 1 + 8 * single, single - 1 + 17 * single];
        let lengths: Vec<usize> = ends.into_iter().flat_map(|end| [end, end + 1]).collect();
        for block_size in [0, 1, 8] {
            for st_min in [0, 0xF1, 5] {
                let paddings = [Padding::Enabled(0xCC), Padding::Disabled, Padding::Detection(0x55)];
                rig.open(&mode, (block_size, st_min), FrameSize::Classic, paddings[turn % 3]).await;
                rig.refuse_nothing(direction).await;
                let number = if st_min == 5 { 4 } else { lengths.len() };
                for &len in lengths.iter().cycle().skip(turn * 3).take(number) {
                    rig.transfer(direction, len).await;
                }
                turn += 1;
            }
        }
        rig.open(&mode, (0, 0), FrameSize::Classic, Padding::Enabled(0xCC)).await;
        rig.transfer(direction, 4094).await;
        rig.transfer(direction, 4095).await;
    }
    for (block_size, st_min) in [(8, 0), (1, 0), (0, 0xF1), (8, 0xF1), (0, 5)] {
        rig.open(&modes()[0], (block_size, st_min), FrameSize::Classic, Padding::Disabled).await;
        rig.transfer(direction, 4095).await;
    }
}

struct Mode {
    name: &'static str,
    addressing: Addressing,
    /// The same addresses, as the peer configures them.
    address: Value,
}

fn modes() -> Vec<Mode> {
    let id = |id| CanId::try_from(id).unwrap();
    let (a, b) = (id(0x7E0), id(0x7E8));
    let (long_a, long_b) = (id(0x18DA_10F1), id(0x18DA_F110));
    let short = |mode: &str| json!({"mode": mode, "txid": b.raw(), "rxid": a.raw()});
    let long = |mode: &str| json!({"mode": mode, "txid": long_b.raw(), "rxid": long_a.raw()});
    let with = |mut address: Value, more: Value| {
        address.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        address
    };
    let ecu = json!({"source_address": 0x10, "target_address": 0xF1});
    let extension = json!({"address_extension": 0x99});
    let list = [
        ("normal 11", Addressing::normal(a, b), short("Normal_11bits")),
        ("normal 29", Addressing::normal(long_a, long_b), long("Normal_29bits")),
        (
            "normal fixed",
            Addressing::normal_fixed(0x10, 0xF1),
            with(json!({"mode": "NormalFixed_29bits"}), ecu.clone()),
        ),
        ("extended 11", Addressing::extended(a, b, 0x10, 0xF1), with(short("Extended_11bits"), ecu.clone())),
        (
            "extended 29",
            Addressing::extended(long_a, long_b, 0x10, 0xF1),
            with(long("Extended_29bits"), ecu.clone()),
        ),
        (
            "extended toward the peer only",
            Addressing::new(a, b, Some(0x10), None),
            json!({"tx": {"mode": "Normal_11bits", "txid": b.raw()},
                   "rx": {"mode": "Extended_11bits", "rxid": a.raw(), "source_address": 0x10}}),
        ),
        (
            "extended from the peer only",
            Addressing::new(a, b, None, Some(0xF1)),
            json!({"tx": {"mode": "Extended_11bits", "txid": b.raw(), "target_address": 0xF1},
                   "rx": {"mode": "Normal_11bits", "rxid": a.raw()}}),
        ),
        ("mixed 11", Addressing::mixed(a, b, 0x99), with(short("Mixed_11bits"), extension.clone())),
        (
            "mixed 29",
            Addressing::mixed_fixed(0x10, 0xF1, 0x99),
            with(with(json!({"mode": "Mixed_29bits"}), ecu), extension),
        ),
    ];
    list.into_iter().map(|(name, addressing, address)| Mode { name, addressing, address }).collect()
}

/// The agent's endpoint and the peer on one bus.
struct Rig {
    case: String,
    endpoint: Endpoint,
    bus: VirtualCan,
    deadline: Deadline,
    commands: ChildStdin,
    answers: Lines<BufReader<ChildStdout>>,
    _adapter: SlcanAdapter,
    _peer: Child,
}

impl Rig {
    /// `None` if the peer is not installed.
    async fn start() -> Option<Self> {
        let mut program = peer("isotp_peer.py", "ISO-TP against can-isotp", "can, isotp, serial").await?;
        let config =
            VirtualBusConfig { data_bit_rate: Some(2_000_000), timer: CLOCK, ..VirtualBusConfig::default() };
        let virtual_bus = VirtualBus::new(config);
        let bus = virtual_bus.attach("agent");
        let adapter = SlcanAdapter::new(None, &virtual_bus, "peer").unwrap();
        program.arg(adapter.device()).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut peer = program.spawn().unwrap();
        Some(Self {
            case: String::new(),
            endpoint: Endpoint::new(Config::new(modes()[0].addressing)),
            bus,
            deadline: Deadline::new(CLOCK),
            commands: peer.stdin.take().unwrap(),
            answers: BufReader::new(peer.stdout.take().unwrap()).lines(),
            _adapter: adapter,
            _peer: peer,
        })
    }

    /// Sets both sides up from scratch.
    async fn open(&mut self, mode: &Mode, flow: (u8, u8), frame_size: FrameSize, padding: Padding) {
        let (block_size, st_min) = flow;
        self.case =
            format!("{}, BS {block_size}, STmin 0x{st_min:02X}, {frame_size:?}, {padding:?}", mode.name);
        let patience = Timeouts { n_as: PATIENCE, n_ar: PATIENCE, n_bs: PATIENCE, n_cr: PATIENCE };
        self.endpoint = Endpoint::new(Config {
            block_size,
            st_min: SeparationTime(st_min),
            frame_size,
            padding,
            timeouts: patience,
            ..Config::new(mode.addressing)
        });
        let tx_padding = match padding {
            Padding::Enabled(byte) => json!(byte),
            Padding::Disabled | Padding::Detection(_) => Value::Null,
        };
        let is_fd = frame_size != FrameSize::Classic;
        let params = json!({
            "blocksize": block_size, "stmin": st_min, "tx_padding": tx_padding,
            "can_fd": is_fd, "bitrate_switch": is_fd, "tx_data_length": frame_size.tx_dl(),
            "max_frame_size": 5000, "wftmax": 10,
            "rx_flowcontrol_timeout": PATIENCE.as_millis() as u64,
            "rx_consecutive_frame_timeout": PATIENCE.as_millis() as u64,
        });
        self.command(json!({"open": {"address": mode.address, "params": params}})).await;
        assert_eq!(self.answer().await, json!({"opened": true}));
    }

    /// Checks that neither side sends an empty PDU.
    async fn refuse_nothing(&mut self, direction: Direction) {
        if direction == Direction::ToPeer {
            assert_eq!(self.endpoint.send(CLOCK.now(), &[]), Err(SendError::Empty));
        } else {
            self.command(json!({"send": ""})).await;
            assert_eq!(self.drive_until_answer().await, json!({"sent": true, "errors": []}));
        }
    }

    /// Transfers one PDU.
    async fn transfer(&mut self, direction: Direction, len: usize) {
        let pdu = pdu(len);
        let case = format!("{direction:?}, {}, {len} bytes", self.case);
        if direction == Direction::ToPeer {
            self.command(json!({"receive": PATIENCE.as_secs()})).await;
            self.endpoint.send(CLOCK.now(), &pdu).unwrap();
            let event = self.next_event().await;
            assert!(matches!(event, Event::Sent { .. }), "{case}: {event:?}");
            let answer = self.answer().await;
            assert_eq!(answer, json!({"received": hex(&pdu), "errors": []}), "{case}");
        } else {
            self.command(json!({"send": hex(&pdu)})).await;
            assert!(matches!(self.next_event().await, Event::ReceptionStarted { .. }), "{case}");
            let event = self.next_event().await;
            let address = self.endpoint.config().addressing.receive_id();
            assert!(event == Event::Received { address, pdu }, "{case}: {event:?}");
            assert_eq!(self.answer().await, json!({"sent": true, "errors": []}), "{case}");
        }
    }

    async fn command(&mut self, command: Value) {
        self.commands.write_all(format!("{command}\n").as_bytes()).await.unwrap();
    }

    async fn answer(&mut self) -> Value {
        let line = timeout(PATIENCE, self.answers.next_line()).await;
        let line = line.unwrap_or_else(|_| panic!("{}: no answer", self.case));
        serde_json::from_str(&line.unwrap().expect("the peer still runs")).unwrap()
    }

    /// Runs the agent's endpoint until the peer has answered.
    async fn drive_until_answer(&mut self) -> Value {
        loop {
            while let Some(frame) = self.endpoint.poll_transmit(CLOCK.now()) {
                self.bus.send(&frame).await.unwrap();
            }
            tokio::select! {
                line = self.answers.next_line() => {
                    return serde_json::from_str(&line.unwrap().expect("the peer still runs")).unwrap();
                }
                event = self.bus.event() => self.handle(event.unwrap()),
            }
        }
    }

    /// Runs the agent's endpoint until its next event.
    async fn next_event(&mut self) -> Event {
        timeout(PATIENCE, self.drive()).await.unwrap_or_else(|_| panic!("{}: no event", self.case))
    }

    async fn drive(&mut self) -> Event {
        loop {
            while let Some(frame) = self.endpoint.poll_transmit(CLOCK.now()) {
                self.bus.send(&frame).await.unwrap();
            }
            if let Some(event) = self.endpoint.poll_event() {
                return event;
            }
            self.deadline.set(self.endpoint.poll_timeout().map(|(at, _)| at));
            tokio::select! {
                event = self.bus.event() => self.handle(event.unwrap()),
                () = self.deadline.expired() => self.endpoint.handle_timeout(CLOCK.now()),
            }
        }
    }

    fn handle(&mut self, event: CanEvent) {
        let now = CLOCK.now();
        match event {
            CanEvent::Received { frame, .. } if frame.is_error() => {}
            CanEvent::Received { frame, .. } => assert!(self.endpoint.handle_frame(now, &frame), "{frame}"),
            CanEvent::Transmitted { .. } => self.endpoint.handle_transmitted(now),
            // until the peer's adapter is on the bus, no node acknowledges, and frames are repeated
            CanEvent::State(BusState::Active | BusState::Passive) => {}
            event => panic!("{}: {event:?}", self.case),
        }
    }
}
