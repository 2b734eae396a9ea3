//! The shell around discovery: receives and sends datagrams, and arms the deadlines.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use connector_hal::timer::{Deadline, TimerKind};

use crate::protocol::doip::discovery::{Discovery, DiscoveryEvent, Question};
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
    pub fn ask(&mut self, now: Instant, question: Question, gateway: std::net::SocketAddr) {
        self.discovery.ask(now, question, crate::protocol::doip::discovery::Destination::Host(gateway));
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
            if let Poll::Ready(received) = self.network.poll_receive(cx, &mut self.buffer) {
                let (length, from) = received?;
                self.discovery.handle_datagram(from, self.buffer.get(..length).unwrap_or_default());
                continue;
            }
            self.deadline.set(self.discovery.poll_timeout());
            ready!(self.deadline.poll_expired(cx));
            self.discovery.handle_timeout(tokio::time::Instant::now().into_std());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
