//! Discovery of the vehicle's gateways, by their announcements and by identification requests.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{
    Announcement, Eid, EntityStatus, HeaderNackCode, LogicalAddress, Message, PORT, Payload, PowerMode,
    ProtocolVersion,
};
use crate::protocol::doip::codec::decode_datagram;

/// Number of gateways that are stored; further ones are ignored. A vehicle has a few; the limit bounds the
/// memory that a flood of invented announcements takes.
const MAX_GATEWAYS: usize = 32;
/// Number of questions that are asked simultaneously; a further one replaces the oldest. The agent asks one
/// or two at a time; the limit bounds the memory.
const MAX_QUESTIONS: usize = 16;
/// Versions in which a question is asked, one after another. Every entity should answer the first, which ISO
/// 13400-2 reserves for identification requests; some entities answer only in the edition that they
/// implement. The repetitions also replace datagrams that are lost.
const VERSIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::Default, ProtocolVersion::V2012, ProtocolVersion::V2019];
/// Time until a question is repeated: A_DoIP_Announce_Wait, the longest time that an entity may take to
/// answer.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The destination of a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// All hosts on the network, by IPv4's limited broadcast.
    Broadcast,
    /// All hosts on the network, by IPv6's all-nodes multicast, ff02::1.
    Multicast,
    /// One host.
    Host(SocketAddr),
}

/// A question to DoIP entities.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Asks all entities to identify themselves.
    Anybody,
    /// Asks the entities of the vehicle with this VIN to identify themselves.
    Vin([u8; 17]),
    /// Asks the entity with this EID to identify itself.
    Eid(Eid),
    /// Asks for the entity's status.
    EntityStatus,
    /// Asks whether the vehicle is ready for diagnostics.
    PowerMode,
}

impl Question {
    fn payload(self) -> Payload {
        match self {
            Self::Anybody => Payload::IdentificationRequest,
            Self::Vin(vin) => Payload::IdentificationRequestByVin(vin),
            Self::Eid(eid) => Payload::IdentificationRequestByEid(eid),
            Self::EntityStatus => Payload::EntityStatusRequest,
            Self::PowerMode => Payload::PowerModeRequest,
        }
    }

    fn is_answered_by(self, from: SocketAddr, to: Destination, payload: &Payload) -> bool {
        let is_from = match to {
            Destination::Host(host) => host.ip() == from.ip(),
            _ => false,
        };
        match (self, payload) {
            (Self::EntityStatus, Payload::EntityStatusResponse(_))
            | (Self::PowerMode, Payload::PowerModeResponse(_))
            | (Self::Anybody, Payload::Announcement(_)) => is_from,
            (Self::Eid(eid), Payload::Announcement(announcement)) => announcement.eid == eid,
            // several entities may belong to a vehicle
            _ => false,
        }
    }
}

/// A gateway or another entity, as it has described itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Address on which the entity accepts connections.
    pub address: SocketAddr,
    /// Edition of the standard that the entity uses.
    pub version: ProtocolVersion,
    /// The last announcement of the entity.
    pub announcement: Announcement,
    /// Whether the entity answered a question; otherwise it announced itself.
    pub was_asked: bool,
    /// Status of the entity, if known.
    pub status: Option<EntityStatus>,
    /// Power mode of the vehicle, if known.
    pub power_mode: Option<PowerMode>,
}

impl Gateway {
    /// Returns the edition to use with this entity, or `default` if the entity does not specify one.
    pub(crate) fn spoken(&self, default: ProtocolVersion) -> ProtocolVersion {
        match self.version {
            ProtocolVersion::Default | ProtocolVersion::Other(_) => default,
            own => own,
        }
    }
}

/// An event of discovery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryEvent {
    /// A new gateway was found.
    Found(Gateway),
    /// The description of a known gateway has changed.
    Changed(Gateway),
    /// A host refused a question.
    Refused {
        /// Address of the host.
        from: SocketAddr,
        /// The reason.
        code: HeaderNackCode,
    },
}

#[derive(Debug)]
struct Asking {
    question: Question,
    destination: Destination,
    attempts: usize,
    at: Instant,
}

/// Finds gateways, and stores the ones that announced themselves or answered a question.
///
/// Two announcements are of the same gateway if IP address, EID and logical address are equal.
///
/// Discovery is a pure state machine: it does no I/O and reads no clock. Pass every received datagram to
/// [`handle_datagram`](Self::handle_datagram). After that, and after [`ask`](Self::ask), send the datagrams
/// of [`poll_transmit`](Self::poll_transmit), take the events of [`poll_event`](Self::poll_event), and call
/// [`handle_timeout`](Self::handle_timeout) when [`poll_timeout`](Self::poll_timeout) is due.
#[derive(Debug, Default)]
pub struct Discovery {
    gateways: Vec<Gateway>,
    asking: VecDeque<Asking>,
    /// Hosts that were asked at a specific port, on which they also accept connections.
    hosts: Vec<SocketAddr>,
    outgoing: VecDeque<(Destination, Vec<u8>)>,
    events: VecDeque<DiscoveryEvent>,
}

impl Discovery {
    /// Creates a discovery without gateways.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks a question up to three times, half a second apart.
    ///
    /// A question to one host, or for one EID, ends with its answer.
    pub fn ask(&mut self, now: Instant, question: Question, destination: Destination) {
        if let Destination::Host(host) = destination
            && !self.hosts.contains(&host)
            && self.hosts.len() < MAX_GATEWAYS
        {
            self.hosts.push(host);
        }
        if self.asking.len() >= MAX_QUESTIONS {
            self.asking.pop_front();
        }
        self.asking.push_back(Asking { question, destination, attempts: 0, at: now });
        self.handle_timeout(now);
    }

    /// Returns whether no question is open.
    pub(crate) fn is_done_asking(&self) -> bool {
        self.asking.is_empty()
    }

    /// Returns the known gateways, in the order in which they were found.
    pub fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// Returns the gateway with this address.
    pub fn gateway(&self, address: LogicalAddress) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.announcement.address == address)
    }

    /// Takes a datagram; ignores it unless it is an answer or an announcement.
    pub fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        let message = match decode_datagram(bytes) {
            Ok(message) => message,
            Err(error) => return tracing::debug!(%from, %error, "ignored a datagram that is not DoIP"),
        };
        let mut was_asked = false;
        let payload = &message.payload;
        self.asking.retain(|asking| {
            was_asked |= matches!(asking.destination, Destination::Host(host) if host.ip() == from.ip());
            !asking.question.is_answered_by(from, asking.destination, payload)
        });
        match message.payload {
            Payload::Announcement(announcement) => {
                // only the time distinguishes answers to a broadcast from announcements
                was_asked |= !self.asking.is_empty();
                self.handle_announcement(from, message.version, announcement, was_asked);
            }
            Payload::EntityStatusResponse(status) => {
                self.update(from.ip(), |gateway| gateway.status = Some(status))
            }
            Payload::PowerModeResponse(mode) => {
                self.update(from.ip(), |gateway| gateway.power_mode = Some(mode))
            }
            Payload::HeaderNack(code) => self.emit(DiscoveryEvent::Refused { from, code }),
            // our own broadcast questions arrive here too
            _ => {}
        }
    }

    fn handle_announcement(
        &mut self,
        from: SocketAddr,
        version: ProtocolVersion,
        announcement: Announcement,
        was_asked: bool,
    ) {
        let port = self.hosts.iter().find(|host| host.ip() == from.ip()).map_or(PORT, SocketAddr::port);
        let mut address = from;
        address.set_port(port);
        let is_same = |known: &&mut Gateway| {
            known.address.ip() == from.ip()
                && known.announcement.eid == announcement.eid
                && known.announcement.address == announcement.address
        };
        if let Some(known) = self.gateways.iter_mut().find(is_same) {
            let has_changed = known.announcement != announcement;
            known.announcement = announcement;
            known.version = version;
            known.was_asked |= was_asked;
            if has_changed {
                let changed = *known;
                self.emit(DiscoveryEvent::Changed(changed));
            }
            return;
        }
        if self.gateways.len() >= MAX_GATEWAYS {
            return tracing::debug!(%from, "ignored a gateway: {MAX_GATEWAYS} are known already");
        }
        let gateway = Gateway { address, version, announcement, was_asked, status: None, power_mode: None };
        self.gateways.push(gateway);
        self.emit(DiscoveryEvent::Found(gateway));
    }

    fn update(&mut self, from: IpAddr, change: impl Fn(&mut Gateway)) {
        let mut changed = Vec::new();
        for gateway in self.gateways.iter_mut().filter(|gateway| gateway.address.ip() == from) {
            let before = *gateway;
            change(gateway);
            if before != *gateway {
                changed.push(*gateway);
            }
        }
        changed.into_iter().for_each(|gateway| self.emit(DiscoveryEvent::Changed(gateway)));
    }

    /// Queues an event; drops the oldest if the caller does not poll.
    fn emit(&mut self, event: DiscoveryEvent) {
        if self.events.len() >= 2 * MAX_GATEWAYS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// Repeats or ends the questions that are due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Self { asking, outgoing, .. } = self;
        asking.retain_mut(|asking| {
            if asking.at > now {
                return true;
            }
            let Some(version) = VERSIONS.get(asking.attempts) else { return false };
            // only identification requests may have the default version
            let version = match (asking.question, version) {
                (Question::EntityStatus | Question::PowerMode, ProtocolVersion::Default) => {
                    ProtocolVersion::V2012
                }
                _ => *version,
            };
            asking.attempts += 1;
            asking.at = now + ASK_AGAIN_AFTER;
            if let Ok(bytes) = Message::new(version, asking.question.payload()).encode() {
                outgoing.push_back((asking.destination, bytes));
            }
            true
        });
    }

    /// Returns when [`Discovery::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asking.iter().map(|asking| asking.at).min()
    }

    /// Returns the next datagram to send, with its destination.
    pub fn poll_transmit(&mut self) -> Option<(Destination, Vec<u8>)> {
        self.outgoing.pop_front()
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<DiscoveryEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
mod tests;
