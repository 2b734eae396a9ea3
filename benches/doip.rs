//! DoIP through the relay: a session with a scripted gateway in memory, and the operator's end of its link.
//!
//! - `doip/4095 bytes there and back`: CPU time of one diagnostic message of 4095 bytes that its ECU answers with as many,
//!   from the operator's link to the gateway and back: link, session, channel, connection, codec; no network, no TLS.
//! - `doip/PDUs a second`: short requests and their answers on one connection, as many as can be under way.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use connector_agent::config::DoipPort;
use connector_agent::config::doip_device::Device;
use connector_agent::protocol::doip::codec::{Decoded, StreamDecoder};
use connector_agent::protocol::doip::discovery::Destination;
use connector_agent::protocol::doip::{
    ActivationResponse, Announcement, DiagnosticAck, DiagnosticMessage, Eid, FurtherAction, Message, Payload,
    ProtocolVersion,
};
use connector_agent::relay::connection::{Session, SessionSettings};
use connector_agent::relay::limits::SessionLimits;
use connector_agent::relay::link::{Link, Role};
use connector_agent::relay::wire::Envelope;
use connector_agent::relay::wire::codec::{Payload as Record, PduFlags, Tag};
use connector_agent::relay::wire::request::Request;
use connector_agent::vehicle::doip_network::network::{GatewayConnectError, Network, Stream};
use connector_agent::vehicle::hardware::Hardware;
use connector_hal::future::BoxFuture;
use connector_hal::timer::TimerKind;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use uuid::Uuid;

const UUID: Uuid = Uuid::from_u128(7);
const GATEWAY: u16 = 0x4010;
/// Requests under way at a time; a channel lets 64 wait.
const AHEAD: usize = 32;

/// A gateway that acknowledges, and answers every request with as many bytes.
#[derive(Default)]
struct Memory {
    datagrams: Mutex<(VecDeque<Vec<u8>>, Option<Waker>)>,
}

struct InMemory(Arc<Memory>);

fn host() -> SocketAddr {
    SocketAddr::from(([169, 254, 0, 1], 13400))
}

fn encode(payload: impl Into<Payload>) -> Vec<u8> {
    Message::new(ProtocolVersion::V2012, payload).encode().unwrap_or_default()
}

impl Network for InMemory {
    fn destinations(&self) -> Vec<Destination> {
        vec![Destination::Broadcast]
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<(usize, SocketAddr)>> {
        let Ok(mut datagrams) = self.0.datagrams.lock() else { return Poll::Pending };
        let Some(datagram) = datagrams.0.pop_front() else {
            datagrams.1 = Some(cx.waker().clone());
            return Poll::Pending;
        };
        for (to, from) in buffer.iter_mut().zip(&datagram) {
            *to = *from;
        }
        Poll::Ready(Ok((datagram.len(), host())))
    }

    fn send(&mut self, _: Destination, _: &[u8]) -> std::io::Result<()> {
        let announcement = Announcement {
            vin: *b"WVWZZZ1KZ6W000001",
            address: GATEWAY.into(),
            eid: Eid([1; 6]),
            gid: None,
            further_action: FurtherAction::None,
            sync_status: None,
        };
        if let Ok(mut datagrams) = self.0.datagrams.lock() {
            datagrams.0.push_back(encode(announcement));
            datagrams.1.take().into_iter().for_each(Waker::wake);
        }
        Ok(())
    }

    fn connect(
        &self,
        _: SocketAddr,
        _: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>> {
        let (ours, theirs) = tokio::io::duplex(256 * 1024);
        tokio::spawn(serve(theirs));
        Box::pin(std::future::ready(Ok(Box::new(ours) as Box<dyn Stream>)))
    }
}

async fn serve(mut stream: DuplexStream) {
    let mut decoder = StreamDecoder::new(1 << 20);
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        decoder.handle_bytes(buffer.get(..read).unwrap_or_default());
        let mut answers = Vec::new();
        while let Ok(Some(Decoded::Message(message))) = decoder.poll_message() {
            match message.payload {
                Payload::ActivationRequest(request) => answers.extend(encode(ActivationResponse {
                    tester: request.source,
                    entity: GATEWAY.into(),
                    code: 0x10.into(),
                    oem: None,
                })),
                Payload::Diagnostic(DiagnosticMessage { source, target, mut data }) => {
                    let ack = DiagnosticAck { source: target, target: source, code: 0, previous: Vec::new() };
                    answers.extend(encode(ack));
                    if let Some(first) = data.first_mut() {
                        *first = first.wrapping_add(0x40);
                    }
                    answers.extend(encode(DiagnosticMessage { source: target, target: source, data }));
                }
                _ => {}
            }
        }
        if stream.write_all(&answers).await.is_err() {
            return;
        }
    }
}

struct Relay {
    session: Session,
    operator: Link,
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Relay {
    async fn start() -> Self {
        let memory = Arc::new(Memory::default());
        let port = DoipPort { pins: [3, 11], device: Device::Interface("memory".to_owned()) };
        let hardware = Hardware {
            doip_ports: Arc::new([port]),
            open_doip: Arc::new(move |_, _, _| {
                let network: Box<dyn Network> = Box::new(InMemory(memory.clone()));
                Box::pin(std::future::ready(Ok(network)))
            }),
            timer: TimerKind::Runtime,
            ..Hardware::new([])
        };
        let limits = SessionLimits::default();
        let settings =
            SessionSettings { connection_uuid: UUID, hold: Duration::from_secs(30), limits, hardware };
        let session = Session::new(settings, now());
        let mut relay = Self { session, operator: Link::new(Role::Operator, Tag::from(UUID), now()) };
        let bus = json!({"bus_name": "E", "doip_bus": {"doip_option": 2, "doip_network_configuration": 1}});
        relay.ask("configureBuses", json!({"connection_uuid": UUID, "buses": [bus]})).await;
        let channel = json!({"bus_name": "E", "gateway_id": GATEWAY, "tester_id": 0x0E80, "ecu_id": GATEWAY});
        relay
            .ask("openChannel", json!({"connection_uuid": UUID, "channel": 1, "doip_channel": channel}))
            .await;
        relay
    }

    async fn ask(&mut self, action: &str, message: Value) {
        if let Ok(request) = Request::parse(&Envelope::new(action, &message)) {
            self.session.handle_request(now(), request, None);
        }
        while self.session.poll_text().is_none() {
            poll_fn(|cx| self.session.poll_drive(cx)).await;
        }
    }

    /// Sends so many requests of this length; done when all are answered.
    async fn exchange(&mut self, count: usize, length: usize) {
        let mut request = vec![0; length];
        if let Some(first) = request.first_mut() {
            *first = 0x36;
        }
        let (mut sent, mut answered) = (0, 0);
        while answered < count {
            while sent < count && sent - answered < AHEAD {
                let record = Record::Pdu { address: 0, flags: PduFlags::default(), data: &request };
                if self.operator.push(now(), now(), 1, record).is_err() {
                    break;
                }
                sent += 1;
            }
            while let Some(message) = self.operator.poll_message(now()) {
                self.session.handle_message(now(), &message);
            }
            poll_fn(|cx| self.session.poll_drive(cx)).await;
            while let Some(message) = self.session.poll_message(now()) {
                if let Ok(Some(incoming)) = self.operator.handle_message(now(), &message) {
                    let is_answer = |record: &Record<'_>| matches!(record, Record::Pdu { .. });
                    answered += incoming.records().filter(|record| is_answer(&record.payload)).count();
                }
            }
        }
    }
}

fn doip(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let Ok(runtime) = runtime else { return eprintln!("no runtime to measure with") };
    let mut relay = runtime.block_on(Relay::start());
    let mut group = criterion.benchmark_group("doip");
    group.sample_size(20).measurement_time(Duration::from_secs(2)).warm_up_time(Duration::from_millis(300));
    for (name, length) in [("4095 bytes there and back", 4095), ("PDUs a second", 8)] {
        group.throughput(Throughput::Elements(1));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                let count = usize::try_from(count).unwrap_or(usize::MAX);
                runtime.block_on(relay.exchange(count, length));
                start.elapsed()
            });
        });
    }
    group.finish();
}

criterion_group!(benches, doip);
criterion_main!(benches);
