//! Compares the agent's ISO-TP with the Linux kernel's on a CAN interface: the cost of a transfer, the
//! accuracy of the separation time, and the delay of flow control, with an idle and with a loaded processor.
//!
//! Needs a vcan interface with CAN FD, named by `CONNECTOR_TEST_VCAN`; `cross/can-machine bench` has one. The
//! peer is always the kernel's can-isotp. Times between frames are the kernel's time stamps.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr
)] // a benchmark that fails ends

use std::future::poll_fn;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::{Addressing, Event, FrameSize, Padding};
use connector_hal::can::{
    CanBus, CanBusExt as _, CanEvent, CanFrame, IsotpEvent, IsotpOptions, IsotpSocket, open,
};
use connector_test_support::isotp::{AgentEndpoint, config};
use connector_test_support::skip::environment;
use connector_test_support::{id, pdu};
use tokio::time::timeout;

const TESTER: u32 = 0x7E0;
const ECU: u32 = 0x7E8;
const TRANSFERS: u32 = 30;
/// The numbers of threads that use the processor all the time.
const LOAD: usize = 4;

fn main() {
    let Some(vcan) = environment("CONNECTOR_TEST_VCAN") else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        println!("{:<46} {:>34} {:>34}", "", "own", "kernel");
        for (name, len, fd) in [
            ("4095 bytes out, 587 frames, time a transfer", 4095, false),
            ("7 bytes out, time a transfer", 7, false),
            ("4095 bytes out, FD 64, time a transfer", 4095, true),
        ] {
            row(
                name,
                [cost(&vcan, Kind::Own, len, fd, true).await, cost(&vcan, Kind::Kernel, len, fd, true).await],
            );
        }
        for (name, len, fd) in [
            ("4095 bytes in, 587 frames, time a transfer", 4095, false),
            ("4095 bytes in, FD 64, time a transfer", 4095, true),
        ] {
            row(
                name,
                [
                    cost(&vcan, Kind::Own, len, fd, false).await,
                    cost(&vcan, Kind::Kernel, len, fd, false).await,
                ],
            );
        }
        for load in [0, LOAD] {
            let _load = Load::start(load);
            println!("\n{load} other busy threads; shortest, median, 99 %, longest in µs");
            for (st_min, name) in [
                (0xF1, "separation time 100 µs"),
                (0xF3, "300 µs"),
                (0xF5, "500 µs"),
                (0xF9, "900 µs"),
                (1, "1 ms"),
                (5, "5 ms"),
            ] {
                let gaps = [gaps(&vcan, Kind::Own, st_min).await, gaps(&vcan, Kind::Kernel, st_min).await];
                row(name, gaps.map(spread));
            }
            let name = "first frame to flow control";
            row(name, [answers(&vcan, Kind::Own).await, answers(&vcan, Kind::Kernel).await].map(spread));
        }
    });
}

fn row(name: &str, [own, kernel]: [String; 2]) {
    println!("{name:<46} {own:>34} {kernel:>34}");
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_micros();
    format!("{} {} {} {}", at(0.0), at(0.5), at(0.99), at(1.0))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Own,
    Kernel,
}

/// The tester's side.
enum Tester {
    Own(Box<AgentEndpoint>),
    Kernel(Box<IsotpSocket>),
}

impl Tester {
    async fn open(vcan: &str, kind: Kind, fd: bool) -> Self {
        match kind {
            Kind::Own => {
                let frame_size = if fd { FrameSize::fd(64, true).unwrap() } else { FrameSize::Classic };
                let addressing = Addressing::normal(id(TESTER), id(ECU));
                let config = config(addressing, (0, 0), frame_size, Padding::default());
                Self::Own(Box::new(AgentEndpoint::open(vcan, config).await))
            }
            Kind::Kernel => Self::Kernel(Box::new(socket(vcan, TESTER, ECU, 0, fd))),
        }
    }

    async fn send(&mut self, pdu: &[u8]) {
        match self {
            Self::Own(endpoint) => {
                endpoint.send(pdu);
                let event = endpoint.event().await;
                assert!(matches!(event, Event::Sent { .. }), "{event:?}");
            }
            Self::Kernel(socket) => send(socket, pdu).await,
        }
    }

    async fn receive(&mut self) {
        match self {
            Self::Own(endpoint) => while !matches!(endpoint.event().await, Event::Received { .. }) {},
            Self::Kernel(socket) => receive(socket).await,
        }
    }
}

fn socket(vcan: &str, transmit: u32, receive: u32, st_min: u8, fd: bool) -> IsotpSocket {
    let fd = fd.then_some((64, true));
    let options = IsotpOptions { st_min, fd, ..IsotpOptions::new(id(transmit), id(receive)) };
    IsotpSocket::open(vcan, vcan, &options, 1 << 16).unwrap()
}

async fn send(socket: &mut IsotpSocket, pdu: &[u8]) {
    poll_fn(|cx| socket.poll_send(cx, pdu)).await.unwrap();
    let event = poll_fn(|cx| socket.poll_event(cx)).await;
    assert_eq!(event, IsotpEvent::Sent);
}

async fn receive(socket: &mut IsotpSocket) {
    let event = poll_fn(|cx| socket.poll_event(cx)).await;
    assert!(matches!(event, IsotpEvent::Received(_)), "{event:?}");
}

/// The time of a transfer without separation time. On a machine with one processor, this is the cost of both
/// ends.
async fn cost(vcan: &str, kind: Kind, len: usize, fd: bool, out: bool) -> String {
    let mut tester = Tester::open(vcan, kind, fd).await;
    let mut ecu = socket(vcan, ECU, TESTER, 0, fd);
    let pdu = pdu(len);
    let mut started = Instant::now();
    for transfer in 0..=TRANSFERS {
        if transfer == 1 {
            // the first transfer is not counted
            started = Instant::now();
        }
        if out {
            tokio::join!(tester.send(&pdu), receive(&mut ecu));
        } else {
            tokio::join!(tester.receive(), send(&mut ecu, &pdu));
        }
    }
    format!("{} µs", (started.elapsed() / TRANSFERS).as_micros())
}

/// Times between consecutive frames.
async fn gaps(vcan: &str, kind: Kind, st_min: u8) -> Vec<Duration> {
    let mut tester = Tester::open(vcan, kind, false).await;
    let mut ecu = socket(vcan, ECU, TESTER, st_min, false);
    let mut listener = open(vcan).unwrap();
    let pdu = pdu(6 + 7 * 300);
    tokio::join!(tester.send(&pdu), receive(&mut ecu));
    let consecutive = |frame: &CanFrame| frame.id() == id(TESTER) && frame.data()[0] & 0xF0 == 0x20;
    let times: Vec<_> =
        heard(&mut listener).await.into_iter().filter(|(frame, _)| consecutive(frame)).collect();
    times.windows(2).map(|pair| pair[1].1 - pair[0].1).collect()
}

/// Times from a first frame to its flow control.
async fn answers(vcan: &str, kind: Kind) -> Vec<Duration> {
    let mut tester = Tester::open(vcan, kind, false).await;
    let mut ecu = open(vcan).unwrap();
    let mut times = Vec::new();
    for _ in 0..100 {
        let mut listener = open(vcan).unwrap();
        let exchange = async {
            ecu.send(&CanFrame::new(id(ECU), &[0x10, 8, 1, 2, 3, 4, 5, 6]).unwrap()).await.unwrap();
            loop {
                let event = ecu.event().await.unwrap();
                if matches!(event, CanEvent::Received { frame, .. } if frame.id() == id(TESTER)) {
                    break;
                }
            }
            ecu.send(&CanFrame::new(id(ECU), &[0x21, 7, 8]).unwrap()).await.unwrap();
        };
        tokio::join!(exchange, tester.receive());
        let frames = heard(&mut listener).await;
        let at = |sender, first| {
            let of = |(frame, _): &&(CanFrame, Instant)| {
                frame.id() == id(sender) && frame.data()[0] & 0xF0 == first
            };
            frames.iter().find(of).unwrap().1
        };
        times.push(at(TESTER, 0x30) - at(ECU, 0x10));
    }
    times
}

/// The frames that a listener has received.
async fn heard(listener: &mut Box<dyn CanBus>) -> Vec<(CanFrame, Instant)> {
    let mut frames = Vec::new();
    while let Ok(event) = timeout(Duration::from_millis(20), listener.event()).await {
        match event.unwrap() {
            CanEvent::Received { frame, at } => frames.push((frame, at)),
            event => panic!("{event:?}"),
        }
    }
    frames
}

/// Threads that only use the processor.
struct Load {
    stop: Arc<AtomicBool>,
}

impl Load {
    fn start(threads: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        for _ in 0..threads {
            let stop = Arc::clone(&stop);
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    black_box((0..1000_u32).sum::<u32>());
                }
            });
        }
        Self { stop }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
