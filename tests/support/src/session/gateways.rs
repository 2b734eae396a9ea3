//! DoIP gateways in memory. They answer identification requests, have ECUs, and activate routing as the test
//! decides.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use connector_agent::protocol::doip::codec::{Decoded, StreamDecoder, decode_datagram};
use connector_agent::protocol::doip::discovery::Destination;
use connector_agent::protocol::doip::{
    ActivationResponse, Announcement, DiagnosticAck, DiagnosticMessage, DiagnosticNack, Eid, FurtherAction,
    LogicalAddress, Message, Payload, ProtocolVersion,
};
use connector_agent::vehicle::doip_network::network::{GatewayConnectError, Network, Stream};
use connector_hal::future::BoxFuture;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::mpsc;

use crate::now;

/// An action of a gateway on an open connection, without a request.
#[derive(Debug, Clone)]
pub enum Act {
    Send(Payload),
    SendBytes(Vec<u8>),
    Close,
}

/// An ECU's answers to a request, each with its delay.
pub type Answer = fn(&[u8]) -> Vec<(Duration, Vec<u8>)>;

#[derive(Clone)]
pub struct Gateway {
    pub address: u16,
    pub vin: [u8; 17],
    /// The codes that answer routing activations, in turn. The last one is repeated. Without a code, the
    /// gateway does not answer.
    pub activations: Vec<u8>,
    /// The code that refuses diagnostic messages; with 0, the gateway acknowledges them.
    pub nack: u8,
    /// The addresses and answers of the ECUs.
    pub ecus: Vec<(u16, Answer)>,
    /// The last byte of the gateway's IP address, and every byte of its EID.
    pub host: u8,
    /// The version of the gateway's messages.
    pub version: ProtocolVersion,
    /// The code that refuses questions by UDP.
    pub udp_refusal: Option<u8>,
}

impl Gateway {
    pub fn new(address: u16) -> Self {
        Self {
            address,
            vin: *b"WVWZZZ1KZ6W000001",
            activations: vec![0x10],
            nack: 0,
            ecus: Vec::new(),
            host: address as u8,
            version: ProtocolVersion::V2012,
            udp_refusal: None,
        }
    }

    pub fn host(&self) -> SocketAddr {
        SocketAddr::from(([169, 254, 0, self.host], 13400))
    }

    fn encode(&self, payload: impl Into<Payload>) -> Vec<u8> {
        Message::new(self.version, payload).encode().unwrap()
    }

    fn announcement(&self) -> Vec<u8> {
        let announcement = Announcement {
            vin: self.vin,
            address: self.address.into(),
            eid: Eid([self.host; 6]),
            gid: None,
            further_action: FurtherAction::None,
            sync_status: None,
        };
        match self.udp_refusal {
            Some(code) => self.encode(Payload::HeaderNack(code.into())),
            None => self.encode(announcement),
        }
    }
}

#[derive(Default)]
struct State {
    gateways: Vec<Gateway>,
    datagrams: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
    /// The messages received on connections, with their times.
    received: Vec<(Instant, Payload)>,
    connections: Vec<mpsc::UnboundedSender<Act>>,
    /// Whether each connection so far uses TLS.
    connects: Vec<bool>,
    /// The versions of the messages received on connections.
    versions: Vec<ProtocolVersion>,
    is_unreachable: bool,
    /// Whether the gateways receive no datagram.
    is_silent: bool,
    /// The host that the configuration names; without it, the network is a link.
    named: Option<SocketAddr>,
    /// Whether the next poll loses the network.
    is_lost: bool,
    /// Whether received messages are dropped.
    forgets: bool,
    tested_by: usize,
}

/// The vehicle's network; clones share it.
#[derive(Clone, Default)]
pub struct Gateways(Arc<Mutex<State>>);

impl Gateways {
    /// Gateways without a history, for benchmarks whose messages would fill the memory.
    pub fn without_history() -> Self {
        let gateways = Self::default();
        gateways.0.lock().unwrap().forgets = true;
        gateways
    }

    pub fn set(&self, gateways: impl Into<Vec<Gateway>>) {
        self.0.lock().unwrap().gateways = gateways.into();
    }

    /// While true, every TCP connection is refused.
    pub fn set_unreachable(&self, is_unreachable: bool) {
        self.0.lock().unwrap().is_unreachable = is_unreachable;
    }

    /// While true, the gateways receive no datagram.
    pub fn set_silent(&self, is_silent: bool) {
        self.0.lock().unwrap().is_silent = is_silent;
    }

    /// The configuration names this gateway's host, the only one of the network.
    pub fn name_host_of(&self, gateway: &Gateway) {
        self.0.lock().unwrap().named = Some(gateway.host());
    }

    /// Ends the network that is open. The next one can be opened.
    pub fn lose(&self) {
        let mut state = self.0.lock().unwrap();
        state.is_lost = true;
        state.connections.clear();
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    /// The versions of the messages received on connections.
    pub fn versions(&self) -> Vec<ProtocolVersion> {
        self.0.lock().unwrap().versions.clone()
    }

    /// Performs this act on every connection.
    pub fn act(&self, act: Act) {
        let mut state = self.0.lock().unwrap();
        state.connections.retain(|connection| connection.send(act.clone()).is_ok());
    }

    pub fn announce(&self) {
        let mut state = self.0.lock().unwrap();
        let announcements: Vec<_> =
            state.gateways.iter().map(|gateway| (gateway.host(), gateway.announcement())).collect();
        state.datagrams.extend(announcements);
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    pub fn received(&self) -> Vec<Payload> {
        self.0.lock().unwrap().received.iter().map(|(_, payload)| payload.clone()).collect()
    }

    /// The diagnostic messages received: time, source, target, data.
    pub fn requests(&self) -> Vec<(Instant, u16, u16, Vec<u8>)> {
        let state = self.0.lock().unwrap();
        let request = |(at, payload): &(Instant, Payload)| match payload {
            Payload::Diagnostic(message) => {
                Some((*at, message.source.get(), message.target.get(), message.data.clone()))
            }
            _ => None,
        };
        state.received.iter().filter_map(request).collect()
    }

    pub fn activations(&self) -> usize {
        self.received().iter().filter(|payload| matches!(payload, Payload::ActivationRequest(_))).count()
    }

    /// Whether each connection so far uses TLS.
    pub fn connects(&self) -> Vec<bool> {
        self.0.lock().unwrap().connects.clone()
    }

    fn note(&self, message: &Message) {
        let mut state = self.0.lock().unwrap();
        if !state.forgets {
            state.received.push((now(), message.payload.clone()));
            state.versions.push(message.version);
        }
    }

    pub fn network(&self) -> Box<dyn Network> {
        Box::new(Simulated(self.clone()))
    }
}

struct Simulated(Gateways);

impl Network for Simulated {
    fn destinations(&self) -> Vec<Destination> {
        vec![self.0.0.lock().unwrap().named.map_or(Destination::Broadcast, Destination::Host)]
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<std::io::Result<(usize, SocketAddr)>> {
        let mut state = self.0.0.lock().unwrap();
        if std::mem::take(&mut state.is_lost) {
            return Poll::Ready(Err(std::io::ErrorKind::NetworkDown.into()));
        }
        match state.datagrams.pop_front() {
            Some((from, datagram)) => {
                buffer[..datagram.len()].copy_from_slice(&datagram);
                Poll::Ready(Ok((datagram.len(), from)))
            }
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }

    fn send(&mut self, _destination: Destination, datagram: &[u8]) -> std::io::Result<()> {
        let is_heard = !self.0.0.lock().unwrap().is_silent;
        if is_heard && decode_datagram(datagram).unwrap().payload == Payload::IdentificationRequest {
            self.0.announce();
        }
        Ok(())
    }

    fn connect(
        &self,
        gateway: SocketAddr,
        tls: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>> {
        let network = self.0.clone();
        Box::pin(async move {
            let (near, far) = tokio::io::duplex(64 * 1024);
            let (sender, acts) = mpsc::unbounded_channel();
            let mut state = network.0.lock().unwrap();
            state.connects.push(tls);
            let served = state.gateways.iter().find(|known| known.host() == gateway).cloned();
            let Some(served) = served.filter(|_| !state.is_unreachable) else {
                let source = std::io::ErrorKind::ConnectionRefused.into();
                return Err(GatewayConnectError::Tcp { address: gateway, source });
            };
            state.connections.push(sender);
            state.tested_by += 1;
            let first = (state.tested_by - 1).min(served.activations.len().saturating_sub(1));
            let code = served.activations.get(first).copied();
            tokio::spawn(serve(network.clone(), served, code, far, acts));
            Ok(Box::new(near) as Box<dyn Stream>)
        })
    }
}

async fn serve(
    network: Gateways,
    gateway: Gateway,
    code: Option<u8>,
    stream: DuplexStream,
    mut acts: mpsc::UnboundedReceiver<Act>,
) {
    let (mut stream, mut writing) = tokio::io::split(stream);
    // reading continues while the tester does not read
    let (writer, mut to_write) = mpsc::unbounded_channel::<Vec<u8>>();
    let mut writers = tokio::task::JoinSet::new();
    writers.spawn(async move {
        while let Some(bytes) = to_write.recv().await {
            // the tester may have closed the connection
            writing.write_all(&bytes).await.unwrap_or_default();
        }
    });
    let send = |payload: Payload| {
        writer.send(gateway.encode(payload)).unwrap();
    };
    let mut decoder = StreamDecoder::new(1 << 21);
    let mut buffer = vec![0; 65536];
    let (answers, mut answered) = mpsc::unbounded_channel::<Payload>();
    loop {
        let act = tokio::select! {
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => return,
                Ok(read) => {
                    decoder.handle_bytes(&buffer[..read]);
                    while let Some(Decoded::Message(message)) = decoder.poll_message().unwrap() {
                        network.note(&message);
                        gateway.answers(message.payload, code, &answers).into_iter().for_each(send);
                    }
                    continue;
                }
            },
            Some(act) = acts.recv() => act,
            Some(payload) = answered.recv() => Act::Send(payload),
        };
        match act {
            Act::Send(payload) => send(payload),
            Act::SendBytes(bytes) => writer.send(bytes).unwrap(),
            Act::Close => return,
        }
    }
}

impl Gateway {
    fn answers(
        &self,
        payload: Payload,
        code: Option<u8>,
        later: &mpsc::UnboundedSender<Payload>,
    ) -> Vec<Payload> {
        match payload {
            Payload::ActivationRequest(request) => {
                let tester = request.source;
                let entity = LogicalAddress::new(self.address);
                let answer =
                    code.map(|code| ActivationResponse { tester, entity, code: code.into(), oem: None });
                answer.into_iter().map(Payload::from).collect()
            }
            Payload::Diagnostic(DiagnosticMessage { source, target, data }) => {
                if self.nack != 0 {
                    let code = self.nack.into();
                    return vec![
                        DiagnosticNack { source: target, target: source, code, previous: vec![] }.into(),
                    ];
                }
                let ack = DiagnosticAck { source: target, target: source, code: 0, previous: vec![] };
                let mut immediately = vec![ack.into()];
                let addressed = |ecu: &u16| target.is_functional() || target.get() == *ecu;
                for (ecu, answer) in self.ecus.iter().filter(|(ecu, _)| addressed(ecu)) {
                    for (delay, data) in answer(&data) {
                        let response = DiagnosticMessage { source: (*ecu).into(), target: source, data };
                        if delay.is_zero() {
                            immediately.push(response.into());
                            continue;
                        }
                        let later = later.clone();
                        tokio::spawn(async move {
                            tokio::time::sleep(delay).await;
                            // the connection may be closed
                            let _ = later.send(response.into());
                        });
                    }
                }
                immediately
            }
            _ => Vec::new(),
        }
    }
}
