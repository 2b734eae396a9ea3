//! Discovery of the vehicle's gateways, by their announcements and by identification requests.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::{
    Announcement, Eid, EntityStatus, FurtherAction, HeaderNackCode, LogicalAddress, Message, PORT, Payload,
    PowerMode, ProtocolVersion,
};
use crate::protocol::doip::codec::{DecodeError, decode_datagram};

/// Number of gateways that are stored; further ones are ignored. A vehicle has a few; the limit bounds the
/// memory that a flood of invented announcements takes.
const MAX_GATEWAYS: usize = 32;
/// Number of questions that are asked simultaneously; a further one replaces the oldest. The agent asks one
/// or two at a time; the limit bounds the memory.
const MAX_QUESTIONS: usize = 16;
/// Versions in which a question is asked, one attempt after another: the standard has three requests. Every entity
/// should answer the first, which ISO 13400-2 reserves for identification requests; some entities answer only in
/// the edition that they implement. The repetitions also replace datagrams that are lost.
const VERSIONS: [&[ProtocolVersion]; 3] = [
    &[ProtocolVersion::Default],
    &[ProtocolVersion::V2012],
    &[ProtocolVersion::V2019, ProtocolVersion::V2025],
];
/// A_DoIP_Announce_Wait: the longest time that an entity may take to answer (ISO 13400-2). A question is
/// repeated after it. A host named by its address that has not answered until then is connected anyway.
pub(crate) const ANNOUNCE_WAIT: Duration = Duration::from_millis(500);

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
    /// Returns the EID, unless it is not set (all 0x00 or all 0xFF).
    pub(crate) fn eid(&self) -> Option<Eid> {
        let Eid(bytes) = self.announcement.eid;
        let is_set = |filler: u8| bytes.iter().any(|byte| *byte != filler);
        (is_set(0x00) && is_set(0xFF)).then_some(self.announcement.eid)
    }

    /// Returns whether an announcement from this host is this gateway's.
    fn is_described_by(&self, from: IpAddr, announcement: &Announcement) -> bool {
        let has_one_family = self.address.is_ipv4() == from.is_ipv4();
        let is_same_host = match self.eid() {
            Some(eid) => eid == announcement.eid && has_one_family,
            None => self.address.ip() == from,
        };
        is_same_host && self.announcement.address == announcement.address
    }

    /// Returns the edition to use with this entity, or `default` if the entity does not specify one.
    pub(crate) fn spoken(&self, default: ProtocolVersion) -> ProtocolVersion {
        if self.version.is_edition() { self.version } else { default }
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
    /// A host that does not belong to the network sent a datagram, which was dropped.
    Foreign {
        /// Address of the host.
        from: SocketAddr,
    },
    /// A host sent bytes that are not DoIP.
    Unreadable {
        /// Address of the host.
        from: SocketAddr,
        /// What is wrong with the bytes.
        error: DecodeError,
    },
}

impl DiscoveryEvent {
    /// Returns why an answer is not an announcement, for people.
    pub(crate) fn refusal(&self) -> Option<String> {
        match self {
            Self::Refused { from, code } => Some(format!("{from} refuses questions by UDP: {code}")),
            Self::Unreadable { from, error } => Some(format!("{from} sends what is not DoIP: {error}")),
            Self::Foreign { from } => {
                Some(format!("{} was ignored, because it is not in the network", from.ip()))
            }
            Self::Found(_) | Self::Changed(_) => None,
        }
    }
}

#[derive(Debug)]
struct Asking {
    question: Question,
    destination: Destination,
    attempts: usize,
    at: Instant,
}

impl Asking {
    /// The version of the one gateway that is asked, if it has announced one.
    fn known_version(&self, gateways: &[Gateway]) -> Option<ProtocolVersion> {
        let Destination::Host(host) = self.destination else { return None };
        let known = gateways.iter().find(|gateway| gateway.address.ip() == host.ip())?;
        known.version.is_edition().then_some(known.version)
    }
}

/// Finds gateways, and stores the ones that announced themselves or answered a question.
///
/// Two announcements are of the same gateway if EID and logical address are equal, and both have IPv4 or both
/// have IPv6 addresses: a gateway may get another address. Without EID, the IP address must be equal.
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
    /// Whether a host that does not answer questions is being connected.
    is_connecting: bool,
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

    /// Returns whether no question is open, and no silent host is being connected.
    pub(crate) fn is_done_asking(&self) -> bool {
        self.asking.is_empty() && !self.is_connecting
    }

    /// A host that has not identified itself is being connected, or no longer.
    pub(crate) fn set_connecting(&mut self, is_connecting: bool) {
        self.is_connecting = is_connecting;
    }

    /// A host that has not identified itself has activated routing, and its answer has its address.
    pub(crate) fn handle_activation(
        &mut self,
        host: SocketAddr,
        version: ProtocolVersion,
        entity: LogicalAddress,
    ) {
        if self.gateways.iter().any(|gateway| gateway.address.ip() == host.ip()) {
            return;
        }
        let announcement = Announcement {
            vin: [0; 17],
            address: entity,
            eid: Eid([0; 6]),
            gid: None,
            further_action: FurtherAction::None,
            sync_status: None,
        };
        self.handle_announcement(host, version, announcement, true);
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
            Err(error) => return self.emit_refusal(DiscoveryEvent::Unreadable { from, error }),
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
            Payload::HeaderNack(code) => self.emit_refusal(DiscoveryEvent::Refused { from, code }),
            // our own broadcast questions arrive here too
            _ => {}
        }
    }

    /// A host that does not belong to the network sent a datagram, which was dropped.
    pub(crate) fn handle_foreign(&mut self, from: SocketAddr) {
        self.emit_refusal(DiscoveryEvent::Foreign { from });
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
        let is_same = |known: &&mut Gateway| known.is_described_by(from.ip(), &announcement);
        if let Some(known) = self.gateways.iter_mut().find(is_same) {
            let has_changed = known.announcement != announcement || known.address != address;
            known.address = address;
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

    /// Queues a refusal, once, unless more important events may be lost by it.
    fn emit_refusal(&mut self, event: DiscoveryEvent) {
        if self.events.len() < MAX_GATEWAYS && !self.events.contains(&event) {
            self.emit(event);
        }
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
        let Self { asking, outgoing, gateways, .. } = self;
        asking.retain_mut(|asking| {
            if asking.at > now {
                return true;
            }
            let Some(versions) = VERSIONS.get(asking.attempts) else { return false };
            asking.attempts += 1;
            asking.at = now + ANNOUNCE_WAIT;
            let own = asking.known_version(gateways);
            for version in own.as_ref().map_or(*versions, std::slice::from_ref) {
                // only identification requests may have the default version
                let version = match (asking.question, version) {
                    (Question::EntityStatus | Question::PowerMode, ProtocolVersion::Default) => {
                        ProtocolVersion::V2012
                    }
                    _ => *version,
                };
                if let Ok(bytes) = Message::new(version, asking.question.payload()).encode() {
                    outgoing.push_back((asking.destination, bytes));
                }
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
