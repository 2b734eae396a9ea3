//! The shell around discovery: receives and sends datagrams, and arms the deadlines.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};

use crate::protocol::doip::connection::ConnectionSettings;
use crate::protocol::doip::discovery::{Destination, Discovery, DiscoveryEvent, Question};
use crate::protocol::doip::{LogicalAddress, ProtocolVersion};
use crate::vehicle::doip_network::client::{Client, ClientEvent};
use crate::vehicle::doip_network::network::Network;

/// The most datagrams taken before other tasks get their turn: more than the gateways of a vehicle send in
/// answer to a question.
const BATCH: usize = 64;
/// The longest datagram, in bytes: longer than any that fits an Ethernet frame. Larger datagrams are not
/// DoIP, whose longest message by UDP has 41 bytes.
const DATAGRAM: usize = 2048;

/// A network, and the gateways that are known on it.
pub struct Explorer {
    network: Box<dyn Network>,
    discovery: Discovery,
    deadline: Deadline,
    buffer: Box<[u8]>,
    /// The error that kept the last question from being sent.
    send_error: Option<io::Error>,
    /// The configured host that is connected if it does not identify itself, and the time when.
    silent_host: Option<(Instant, Client)>,
}

impl Explorer {
    /// Listens on a network. No gateway is known yet.
    pub fn new(network: Box<dyn Network>) -> Self {
        Self {
            network,
            discovery: Discovery::new(),
            deadline: Deadline::new(TimerKind::Runtime),
            buffer: vec![0; DATAGRAM].into(),
            send_error: None,
            silent_host: None,
        }
    }

    /// Whether questions can be sent; otherwise, the explorer only listens to announcements.
    pub(crate) fn can_ask(&self) -> bool {
        !self.network.destinations().is_empty()
    }

    /// The error that kept the last question from being sent; `None` if the question was sent.
    pub(crate) fn send_error(&self) -> Option<&io::Error> {
        self.send_error.as_ref()
    }

    /// The only host of the network, if the configuration names one.
    pub(crate) fn named_host(&self) -> Option<SocketAddr> {
        match self.network.destinations().as_slice() {
            [Destination::Host(host)] => Some(*host),
            _ => None,
        }
    }

    /// Connects with the configured host if it has not identified itself by this time. The answer to the routing
    /// activation identifies the host, and the connection ends.
    pub(crate) fn connect_if_silent(&mut self, settings: ConnectionSettings, tls: bool, at: Instant) {
        if let Some(host) = self.named_host() {
            self.silent_host = Some((at, Client::new(host, settings, tls)));
            self.discovery.set_connecting(true);
        }
    }

    /// A host has activated routing: it is known even if it does not identify itself.
    pub(crate) fn handle_activation(
        &mut self,
        host: SocketAddr,
        version: ProtocolVersion,
        entity: LogicalAddress,
    ) {
        self.discovery.handle_activation(host, version, entity);
    }

    /// The network.
    pub fn network(&self) -> &dyn Network {
        self.network.as_ref()
    }

    /// The state of discovery, with the gateways that are known.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Sends a question to all gateways.
    pub fn ask_all(&mut self, now: Instant, question: Question) {
        for destination in self.network.destinations() {
            self.discovery.ask(now, question, destination);
        }
    }

    /// Sends a question to one gateway.
    pub fn ask(&mut self, now: Instant, question: Question, gateway: SocketAddr) {
        self.discovery.ask(now, question, Destination::Host(gateway));
    }

    /// Receives and sends datagrams. Ready with a finding, or with the error by which the network is lost.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<DiscoveryEvent>> {
        for _ in 0..BATCH {
            if let Some(event) = self.discovery.poll_event() {
                return Poll::Ready(Ok(event));
            }
            while let Some((destination, datagram)) = self.discovery.poll_transmit() {
                self.send_error = self.network.send(destination, &datagram).err();
                if let Some(error) = &self.send_error {
                    tracing::debug!(?destination, %error, "a question was not sent");
                }
            }
            let received = self.network.poll_receive(cx, &mut self.buffer);
            let foreign = self.network.take_foreign();
            foreign.into_iter().for_each(|from| self.discovery.handle_foreign(from));
            let is_ready = received.is_ready();
            if let Poll::Ready(received) = received {
                let (length, from) = received?;
                self.discovery.handle_datagram(from, self.buffer.get(..length).unwrap_or_default());
            }
            if is_ready || foreign.is_some() {
                continue;
            }
            if self.poll_silent_host(cx, now()).is_ready() {
                continue;
            }
            let silent_host = self.silent_host.as_ref().map(|(at, _)| *at).filter(|at| *at > now());
            self.deadline.set(self.discovery.poll_timeout().into_iter().chain(silent_host).min());
            ready!(self.deadline.poll_expired(cx));
            self.discovery.handle_timeout(now());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Connects with the silent host once it is due. Ready when the host is known, or will not be known.
    fn poll_silent_host(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<()> {
        let Some((at, client)) = &mut self.silent_host else { return Poll::Pending };
        if self.discovery.gateways().is_empty() {
            if *at > now {
                return Poll::Pending;
            }
            match ready!(client.poll(cx, self.network.as_ref())) {
                ClientEvent::Active { entity } => {
                    let (host, version) = (client.gateway(), client.version());
                    self.discovery.handle_activation(host, version, entity);
                }
                ClientEvent::Down(error) => {
                    tracing::info!(host = %client.gateway(), %error, "the host is silent by UDP, and by TCP");
                }
                ClientEvent::ConfirmationRequired | ClientEvent::Message(_) => return Poll::Ready(()),
            }
        }
        self.silent_host = None;
        self.discovery.set_connecting(false);
        Poll::Ready(())
    }
}
