//! The shell around discovery: datagrams in and out, and its deadlines.

use std::io;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use connector_hal::timer::{Deadline, TimerKind};

use crate::protocol::doip::discovery::{Discovery, DiscoveryEvent, Question};
use crate::vehicle::doip_network::network::Network;

/// Datagrams taken before others have their turn.
const BATCH: usize = 64;
/// No DoIP datagram is longer; what is, is none.
const DATAGRAM: usize = 2048;

/// A network, and the gateways known on it.
pub struct Explorer {
    network: Box<dyn Network>,
    discovery: Discovery,
    deadline: Deadline,
    buffer: Box<[u8]>,
    /// Why the last question was not sent.
    send_error: Option<io::Error>,
}

impl Explorer {
    /// Knows nobody yet, and listens.
    pub fn new(network: Box<dyn Network>) -> Self {
        Self {
            network,
            discovery: Discovery::new(),
            deadline: Deadline::new(TimerKind::Runtime),
            buffer: vec![0; DATAGRAM].into(),
            send_error: None,
        }
    }

    /// Whether there is anybody to ask; else announcements are only heard.
    pub fn asks_anybody(&self) -> bool {
        !self.network.everybody().is_empty()
    }

    /// Why the last question was not sent; `None` if it was.
    pub fn send_error(&self) -> Option<&io::Error> {
        self.send_error.as_ref()
    }

    /// The network.
    pub fn network(&self) -> &dyn Network {
        self.network.as_ref()
    }

    /// The gateways known.
    pub fn discovery(&self) -> &Discovery {
        &self.discovery
    }

    /// Asks everybody.
    pub fn ask_everybody(&mut self, now: Instant, question: Question) {
        for destination in self.network.everybody() {
            self.discovery.ask(now, question, destination);
        }
    }

    /// Asks for the same from one gateway.
    pub fn ask(&mut self, now: Instant, question: Question, gateway: std::net::SocketAddr) {
        self.discovery.ask(now, question, crate::protocol::doip::discovery::Destination::Host(gateway));
    }

    /// Moves datagrams along; tells what was found, or that the network is lost.
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
