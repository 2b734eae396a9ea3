//! A tool on the virtual bus, for the tests of the vehicle.

use std::future::poll_fn;
use std::task::Poll;
use std::time::{Duration, Instant};

use connector_agent::protocol::isotp::{
    Addressing, Config, Endpoint, Event, FunctionalConfig, FunctionalEndpoint, Responders, SendFailure,
};
use connector_hal::bus::BusState;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::can::{CanBus, CanEvent, CanFrame, CanId};
use connector_hal::timer::{Deadline, TimerKind};
use connector_sim::vehicle::catalogue::EcuAddress;

pub fn bus() -> VirtualBus {
    VirtualBus::new(VirtualBusConfig::default())
}

/// An ISO-TP connection of the tool, as a separate node.
pub struct Tool {
    can: Box<dyn CanBus>,
    peer: Peer,
    deadline: Deadline,
}

enum Peer {
    Physical(Box<Endpoint>),
    Functional(Box<FunctionalEndpoint>),
}

macro_rules! peer {
    ($peer:expr, $endpoint:ident => $call:expr) => {
        match $peer {
            Peer::Physical($endpoint) => $call,
            Peer::Functional($endpoint) => $call,
        }
    };
}

/// An answer with its sender and the times of its beginning and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub address: CanId,
    pub started: Instant,
    pub pdu: Vec<u8>,
}

impl Tool {
    pub fn physical(bus: &VirtualBus, address: EcuAddress) -> Self {
        let addressing = match address.extended {
            Some(byte) => Addressing::extended(address.request, address.response, byte, byte),
            None => Addressing::normal(address.request, address.response),
        };
        Self::configured(bus, Config::new(addressing))
    }

    pub fn configured(bus: &VirtualBus, config: Config) -> Self {
        Self::new(bus, Peer::Physical(Box::new(Endpoint::new(config))))
    }

    pub fn functional(bus: &VirtualBus, request: CanId, responders: Responders) -> Self {
        let config = FunctionalConfig::new(request, responders);
        Self::new(bus, Peer::Functional(Box::new(FunctionalEndpoint::new(config))))
    }

    fn new(bus: &VirtualBus, peer: Peer) -> Self {
        Self::over(Box::new(bus.attach("tool")), peer)
    }

    /// A tool on a configured bus.
    pub fn physical_over(can: Box<dyn CanBus>, address: EcuAddress) -> Self {
        let config = Config::new(Addressing::normal(address.request, address.response));
        Self::over(can, Peer::Physical(Box::new(Endpoint::new(config))))
    }

    fn over(can: Box<dyn CanBus>, peer: Peer) -> Self {
        Self { can, peer, deadline: Deadline::new(TimerKind::Runtime) }
    }

    /// Sends a request. Returns the answers up to the first that is not "response pending", or no answer if
    /// none arrives within the time. Returns also the time when the request was completely on the bus.
    pub async fn ask(&mut self, pdu: &[u8], within: Duration) -> (Vec<Answer>, Option<Instant>) {
        let is_last = |answer: &Answer| !matches!(*answer.pdu, [0x7F, _, 0x78]);
        self.run(Some(pdu), within, is_last).await
    }

    /// Sends a functional request and returns every answer that arrives within the time.
    pub async fn ask_functional(&mut self, pdu: &[u8], within: Duration) -> Vec<Answer> {
        self.run(Some(pdu), within, |_| false).await.0
    }

    pub async fn listen(&mut self, within: Duration) -> Vec<Answer> {
        self.run(None, within, |_| false).await.0
    }

    /// Sends a single frame.
    pub async fn send_frame(&mut self, frame: &CanFrame) {
        poll_fn(|cx| self.can.poll_send(cx, frame)).await.unwrap();
        // the endpoint does not handle the outcome of this frame
        loop {
            match poll_fn(|cx| self.can.poll_event(cx)).await.unwrap() {
                CanEvent::Transmitted { .. } => return,
                CanEvent::Received { frame, at } => {
                    peer!(&mut self.peer, peer => peer.handle_frame(at, &frame));
                }
                _ => {}
            }
        }
    }

    async fn run(
        &mut self,
        pdu: Option<&[u8]>,
        within: Duration,
        is_last: impl Fn(&Answer) -> bool,
    ) -> (Vec<Answer>, Option<Instant>) {
        let timer = TimerKind::Runtime;
        let end = timer.now() + within;
        let (mut answers, mut sent, mut started) = (Vec::new(), None, None);
        if let Some(pdu) = pdu {
            peer!(&mut self.peer, peer => peer.send(timer.now(), pdu)).unwrap();
        }
        let mut outgoing: Option<CanFrame> = None;
        loop {
            let mut at = timer.now();
            let next = peer!(&mut self.peer, peer => peer.poll_timeout()).map(|(at, _)| at);
            self.deadline.set(next.into_iter().chain([end]).min());
            outgoing = outgoing.or_else(|| peer!(&mut self.peer, peer => peer.poll_transmit(at)));
            let can = &mut self.can;
            let step = poll_fn(|cx| {
                if let Some(frame) = &outgoing
                    && let Poll::Ready(taken) = can.poll_send(cx, frame)
                {
                    taken.unwrap();
                    return Poll::Ready(None);
                }
                can.poll_event(cx).map(|event| Some(event.unwrap()))
            });
            tokio::select! {
                biased;
                step = step => match step {
                    None => outgoing = None,
                    Some(CanEvent::Received { frame, at: on_bus }) => {
                        at = on_bus;
                        peer!(&mut self.peer, peer => peer.handle_frame(at, &frame));
                    }
                    Some(CanEvent::Transmitted { at: on_bus }) => {
                        at = on_bus;
                        peer!(&mut self.peer, peer => peer.handle_transmitted(at));
                    }
                    Some(CanEvent::State(BusState::Off)) => {
                        peer!(&mut self.peer, peer => peer.handle_transmit_failed(at, SendFailure::BusOff));
                    }
                    Some(_) => {}
                },
                () = self.deadline.expired() => {
                    let now = timer.now();
                    peer!(&mut self.peer, peer => peer.handle_timeout(now));
                    if now >= end {
                        return (answers, sent);
                    }
                }
            }
            while let Some(event) = peer!(&mut self.peer, peer => peer.poll_event()) {
                match event {
                    Event::ReceptionStarted { .. } => started = Some(at),
                    Event::Received { address, pdu } => {
                        let answer = Answer { address, started: started.unwrap_or(at), pdu };
                        let last = is_last(&answer);
                        answers.push(answer);
                        if last {
                            return (answers, sent);
                        }
                    }
                    Event::Sent { .. } => sent = Some(at),
                    other => panic!("{other:?}"),
                }
            }
        }
    }
}
