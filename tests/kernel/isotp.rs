//! The agent's ISO-TP with the Linux kernel's can-isotp as its peer, in both directions.
//!
//! `CONNECTOR_TEST_VCAN` names a vcan interface that is up, with CAN FD (`mtu 72`), on a kernel that has
//! can-isotp. One test adds and deletes an interface of its own, which needs root. Without the variable, the tests print
//! one line `SKIPPED: …` and pass. `docs/testing-on-can.md` describes
//! how to set up the interface.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use connector_agent::protocol::isotp::{
    Addressing, Config, Event, FrameSize, Padding, ReceiveFailure, SendFailure, SeparationTime, Timeouts,
};
use connector_hal::can::{
    CanBusExt, CanError, CanEvent, CanFrame, IsotpEvent, IsotpOptions, IsotpReceiveError, IsotpSendError,
    IsotpSocket, kernel_max_pdu, open,
};
use connector_test_support::isotp::{AgentEndpoint, PATIENCE, config, modes};
use connector_test_support::skip::environment;
use connector_test_support::{id, pdu};
use tokio::time::timeout;

/// Longer than a length field of twelve bits allows.
const MAX_PDU: usize = 8200;

#[tokio::test]
async fn the_agents_pdus_arrive_at_the_kernel_in_every_mode() {
    each_case(Direction::ToKernel).await;
}

#[tokio::test]
async fn the_kernels_pdus_arrive_at_the_agent_in_every_mode() {
    each_case(Direction::FromKernel).await;
}

#[tokio::test]
async fn fd_frames_carry_pdus_both_ways() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    for (case, (name, addressing)) in modes().into_iter().enumerate() {
        for tx_dl in [8, 12, 16, 20, 24, 32, 48, 64] {
            let flow = [(0, 0), (8, 0xF1), (1, 0)][case % 3];
            let frame_size = FrameSize::fd(tx_dl, case % 2 == 0).unwrap();
            let padding = [Padding::Enabled(0xAA), Padding::Disabled][case % 2];
            let mut rig = Rig::open(&vcan, name, addressing, flow, frame_size, padding).await;
            let address = addressing.address_bytes();
            let single = usize::from(tx_dl) - address - if tx_dl > 8 { 2 } else { 1 };
            let first = usize::from(tx_dl) - address - 2;
            let second = first + usize::from(tx_dl) - address - 1;
            for len in [1, 7 - address, 8 - address, single, single + 1, second, second + 1, 300] {
                rig.transfer(Direction::ToKernel, len).await;
                rig.transfer(Direction::FromKernel, len).await;
            }
            if tx_dl == 64 {
                for len in [4095, 4096, MAX_PDU] {
                    rig.transfer(Direction::ToKernel, len).await;
                    rig.transfer(Direction::FromKernel, len).await;
                }
            }
        }
    }
}

#[tokio::test]
async fn lengths_of_32_bits_pass_and_too_long_ones_are_refused_both_ways() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let (name, addressing) = modes()[0];
    let mut rig = Rig::open(&vcan, name, addressing, (0, 0), FrameSize::Classic, Padding::default()).await;
    for direction in [Direction::ToKernel, Direction::FromKernel] {
        for len in [4095, 4096, MAX_PDU] {
            rig.transfer(direction, len).await;
        }
    }
    // longer than the kernel accepts
    rig.agent.send(&pdu(kernel_max_pdu() + 1));
    let failure = SendFailure::Overflow;
    assert_eq!(rig.next().await, Happened::Agent(Event::SendFailed { failure }));
    let refused = poll_fn(|cx| rig.kernel.poll_send(cx, &pdu(kernel_max_pdu() + 1))).await;
    assert_eq!(refused, Err(IsotpSendError::Length));
    // longer than the agent accepts
    rig.agent.restart(Config { max_pdu: 99, ..rig.agent.endpoint.config().clone() });
    rig.outgoing = Some(pdu(100));
    let failed = Event::ReceiveFailed { address: addressing.receive_id(), failure: ReceiveFailure::TooLong };
    rig.expect(&[
        Happened::Agent(Event::ReceptionStarted { address: addressing.receive_id() }),
        Happened::Agent(failed),
        Happened::Kernel(IsotpEvent::SendFailed(IsotpSendError::Overflow)),
    ])
    .await;
    // transfers work again
    rig.transfer(Direction::FromKernel, 99).await;
    rig.transfer(Direction::ToKernel, 99).await;
}

#[tokio::test]
async fn each_side_observes_the_others_separation_time() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let (name, addressing) = modes()[0];
    for (st_min, time) in [(0xF1, 100), (0xF5, 500), (0xF9, 900), (1, 1000), (5, 5000), (0x80, 127_000)] {
        let mut rig =
            Rig::open(&vcan, name, addressing, (0, st_min), FrameSize::Classic, Padding::default()).await;
        let asked = Duration::from_micros(time);
        let len = 6 + 7 * if st_min == 0x80 { 2 } else { 10 };
        for direction in [Direction::ToKernel, Direction::FromKernel] {
            rig.transfer(direction, len).await;
            let times = if direction == Direction::ToKernel { &rig.agent.sent } else { &rig.agent.received };
            // the first frame is not paced; time stamps are slightly inexact
            let gaps: Vec<_> = times.windows(2).skip(1).map(|pair| pair[1] - pair[0]).collect();
            assert!(gaps.len() >= len / 7 - 1, "{gaps:?}");
            let shortest = gaps.iter().min().unwrap();
            let tolerance = Duration::from_micros(50);
            assert!(*shortest + tolerance >= asked, "{direction:?}, 0x{st_min:02X}: {gaps:?}");
        }
    }
}

#[tokio::test]
async fn an_unanswered_pdu_fails_on_either_side_and_the_next_one_passes() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let (a, b, c) = (id(0x7E0), id(0x7E8), id(0x7E9));
    let second = Duration::from_secs(1);
    let timeouts = Timeouts { n_bs: second, ..Timeouts::default() };
    // the agent listens to 0x7E9, and the kernel sends 0x7E8
    let deaf = Config { timeouts, ..Config::new(Addressing::normal(a, c)) };
    let mut rig =
        Rig::open(&vcan, "deaf", Addressing::normal(a, b), (0, 0), FrameSize::Classic, Padding::default())
            .await;
    let hearing = rig.agent.endpoint.config().clone();
    rig.agent.restart(deaf);
    // one direction after the other: the kernel's socket has room for one error, and a later one replaces it
    rig.agent.send(&pdu(8));
    let failure = SendFailure::FlowControlTimeout;
    rig.expect(&[
        Happened::Agent(Event::SendFailed { failure }),
        // the agent's first frame, whose flow control the agent did not receive
        Happened::Kernel(IsotpEvent::ReceiveFailed(IsotpReceiveError::Timeout)),
    ])
    .await;
    rig.outgoing = Some(pdu(8));
    rig.expect(&[Happened::Kernel(IsotpEvent::SendFailed(IsotpSendError::Timeout))]).await;
    rig.agent.restart(hearing);
    rig.transfer(Direction::ToKernel, 20).await;
    rig.transfer(Direction::FromKernel, 20).await;
}

#[tokio::test]
async fn the_kernel_reports_a_missing_frame() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let mut kernel = kernel(&vcan, &IsotpOptions::new(id(0x7E8), id(0x7E0)));
    let mut bus = open(&vcan).unwrap();
    for data in [
        &[0x10, 20, 1, 2, 3, 4, 5, 6][..],
        &[0x21, 7, 8, 9, 10, 11, 12, 13],
        &[0x23, 14, 15, 16, 17, 18, 19, 20],
    ] {
        bus.send(&CanFrame::new(id(0x7E0), data).unwrap()).await.unwrap();
        while !matches!(timeout(PATIENCE, bus.event()).await.unwrap().unwrap(), CanEvent::Transmitted { .. })
        {
        }
    }
    let event = timeout(PATIENCE, poll_fn(|cx| kernel.poll_event(cx))).await.unwrap();
    assert_eq!(event, IsotpEvent::ReceiveFailed(IsotpReceiveError::WrongSequenceNumber));
}

#[tokio::test]
async fn a_socket_ends_when_its_interface_vanishes() {
    if environment("CONNECTOR_TEST_VCAN").is_none() {
        return;
    }
    for is_sending in [true, false] {
        ip("link add vgone0 type vcan").await;
        ip("link set vgone0 up").await;
        let mut kernel = kernel("vgone0", &IsotpOptions::new(id(0x7E8), id(0x7E0)));
        let mut bus = open("vgone0").unwrap();
        if is_sending {
            // a first frame, for which no flow control comes
            poll_fn(|cx| kernel.poll_send(cx, &pdu(20))).await.unwrap();
        }
        ip("link delete vgone0").await;
        if is_sending {
            let event = timeout(PATIENCE, poll_fn(|cx| kernel.poll_event(cx))).await.unwrap();
            assert_eq!(event, IsotpEvent::SendFailed(IsotpSendError::InterfaceDown));
        }
        // without an end, this call would not return
        let polled = poll_fn(|cx| Poll::Ready(kernel.poll_event(cx))).await;
        assert!(polled.is_pending());
        let refused = poll_fn(|cx| kernel.poll_send(cx, &pdu(20))).await;
        assert_eq!(refused, Err(IsotpSendError::InterfaceDown));
        // the bus reports the loss, after the frames that passed before
        let lost = async { while bus.event().await.is_ok() {} };
        timeout(PATIENCE, lost).await.unwrap();
    }
}

/// Runs `ip`, which needs root to change interfaces.
async fn ip(arguments: &str) {
    let status = tokio::process::Command::new("ip").args(arguments.split(' ')).status().await.unwrap();
    assert!(status.success(), "ip {arguments}");
}

#[tokio::test]
async fn a_socket_on_no_interface_is_an_error() {
    if environment("CONNECTOR_TEST_VCAN").is_none() {
        return;
    }
    let options = IsotpOptions::new(id(0x7E0), id(0x7E8));
    let error = IsotpSocket::open("socketcan:nocan9", "nocan9", &options, MAX_PDU).unwrap_err();
    assert!(matches!(error, CanError::Device { .. }), "{error}");
    assert!(error.to_string().starts_with("CAN device socketcan:nocan9: "), "{error}");
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Direction {
    ToKernel,
    FromKernel,
}

/// Transfers PDUs in every addressing mode with every block size and separation time. Slow modes use some of
/// the lengths, in turn.
async fn each_case(direction: Direction) {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let mut turn = 0;
    for (name, addressing) in modes() {
        let single = 7 - addressing.address_bytes();
        // lengths that end a single frame, a first frame, a consecutive frame, a block and a sequence number
        let ends = [1, single, single + single, single - 1 + 8 * single, single - 1 + 17 * single];
        let lengths: Vec<usize> = ends.into_iter().flat_map(|end| [end, end + 1]).collect();
        for block_size in [0, 1, 8] {
            for st_min in [0, 0xF1, 5] {
                let padding = [Padding::Enabled(0xCC), Padding::Disabled, Padding::Detection(0x55)][turn % 3];
                let flow = (block_size, st_min);
                let mut rig = Rig::open(&vcan, name, addressing, flow, FrameSize::Classic, padding).await;
                let number = if st_min == 5 { 4 } else { lengths.len() };
                for &len in lengths.iter().cycle().skip(turn * 3).take(number) {
                    rig.transfer(direction, len).await;
                }
                turn += 1;
            }
        }
        let mut rig =
            Rig::open(&vcan, name, addressing, (0, 0), FrameSize::Classic, Padding::default()).await;
        rig.transfer(direction, 4094).await;
        rig.transfer(direction, 4095).await;
    }
    let (name, addressing) = modes()[0];
    for flow in [(8, 0), (1, 0), (0, 0xF1), (8, 0xF1)] {
        let mut rig = Rig::open(&vcan, name, addressing, flow, FrameSize::Classic, Padding::Disabled).await;
        rig.transfer(direction, 4095).await;
    }
}

#[derive(Debug, PartialEq)]
enum Happened {
    Agent(Event),
    Kernel(IsotpEvent),
}

/// The agent's endpoint and the kernel's socket on one bus.
struct Rig {
    case: String,
    agent: AgentEndpoint,
    kernel: IsotpSocket,
    outgoing: Option<Vec<u8>>,
}

impl Rig {
    async fn open(
        vcan: &str,
        name: &str,
        addressing: Addressing,
        flow: (u8, u8),
        frame_size: FrameSize,
        padding: Padding,
    ) -> Self {
        let case = format!("{name}, BS {}, STmin 0x{:02X}, {frame_size:?}, {padding:?}", flow.0, flow.1);
        let agent = AgentEndpoint::open(vcan, config(addressing, flow, frame_size, padding)).await;
        let options = IsotpOptions {
            addresses: addressing.addresses().map(|(transmit, receive)| (receive, transmit)),
            padding: match padding {
                Padding::Enabled(byte) => Some(byte),
                Padding::Disabled | Padding::Detection(_) => None,
            },
            fd: match frame_size {
                FrameSize::Classic => None,
                FrameSize::Fd { tx_dl, bit_rate_switch } => Some((tx_dl, bit_rate_switch)),
            },
            block_size: flow.0,
            st_min: SeparationTime(flow.1).0,
            ..IsotpOptions::new(addressing.receive_id(), addressing.transmit_id())
        };
        Self { case, agent, kernel: kernel(vcan, &options), outgoing: None }
    }

    /// Transfers one PDU.
    async fn transfer(&mut self, direction: Direction, len: usize) {
        let pdu = pdu(len);
        self.case = format!("{direction:?}, {len} bytes, {}", self.case.rsplit(" bytes, ").next().unwrap());
        if direction == Direction::ToKernel {
            self.agent.send(&pdu);
            let (mut sent, mut received) = (false, false);
            while !(sent && received) {
                match self.next().await {
                    Happened::Agent(Event::Sent { .. }) => sent = true,
                    Happened::Kernel(IsotpEvent::Received(got)) if got == pdu => received = true,
                    other => panic!("{}: {other:02X?}", self.case),
                }
            }
        } else {
            self.agent.received.clear();
            let address = self.agent.endpoint.config().addressing.receive_id();
            let got = Event::Received { address, pdu: pdu.clone() };
            self.outgoing = Some(pdu);
            self.expect(&[
                Happened::Agent(Event::ReceptionStarted { address }),
                Happened::Agent(got),
                Happened::Kernel(IsotpEvent::Sent),
            ])
            .await;
        }
    }

    /// Waits for these events. Events of one side must come in this order.
    async fn expect(&mut self, expected: &[Happened]) {
        let mut left: Vec<&Happened> = expected.iter().collect();
        while !left.is_empty() {
            let happened = self.next().await;
            let place = left.iter().position(|expected| **expected == happened);
            match place {
                Some(place) => left.remove(place),
                None => panic!("{}: {happened:02X?}, not one of {left:02X?}", self.case),
            };
        }
    }

    async fn next(&mut self) -> Happened {
        let (kernel, outgoing) = (&mut self.kernel, &mut self.outgoing);
        let kernels = poll_fn(|cx| {
            if let Some(pdu) = outgoing
                && let Poll::Ready(taken) = kernel.poll_send(cx, pdu)
            {
                *outgoing = None;
                taken.unwrap();
            }
            kernel.poll_event(cx)
        });
        let happened = async {
            tokio::select! {
                event = kernels => Happened::Kernel(event),
                event = self.agent.event() => Happened::Agent(event),
            }
        };
        timeout(PATIENCE, happened).await.unwrap_or_else(|_| panic!("{}: no event", self.case))
    }
}

fn kernel(vcan: &str, options: &IsotpOptions) -> IsotpSocket {
    IsotpSocket::open(vcan, vcan, options, 1 << 20).unwrap()
}
