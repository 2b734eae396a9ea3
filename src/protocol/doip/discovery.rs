//! Finding the vehicle's gateways: announcements heard, and identification asked for.

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use super::codec::decode_datagram;
use super::{
    Announcement, Eid, EntityStatus, HeaderNackCode, LogicalAddress, Message, PORT, Payload, PowerMode,
    ProtocolVersion,
};

/// Gateways that are kept; further ones are left out.
const MAX_GATEWAYS: usize = 32;
/// Questions that may be asked at a time; further ones replace the oldest.
const MAX_QUESTIONS: usize = 16;
/// The versions that a question is asked in, one after the other: first the one that every entity should answer.
const VERSIONS: [ProtocolVersion; 3] =
    [ProtocolVersion::Default, ProtocolVersion::V2012, ProtocolVersion::V2019];
/// How long to wait before a question is asked again; A_DoIP_Announce_Wait lets an entity take so long.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Whom a question is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Destination {
    /// Everybody on the link, by IPv4's limited broadcast.
    Broadcast,
    /// Everybody on the link, by IPv6's all-nodes multicast, ff02::1.
    Multicast,
    /// One host.
    Host(SocketAddr),
}

/// What can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Who is there?
    Anybody,
    /// Who belongs to the vehicle with this VIN?
    Vin([u8; 17]),
    /// Who has this EID?
    Eid(Eid),
    /// What is your status?
    EntityStatus,
    /// Is the vehicle ready for diagnostics?
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

/// A gateway, or another entity, as it has told of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gateway {
    /// Where it listens.
    pub address: SocketAddr,
    /// The edition that it speaks.
    pub version: ProtocolVersion,
    /// What it last told.
    pub announcement: Announcement,
    /// Whether it was asked for; else it announced itself.
    pub was_asked: bool,
    /// Its status, where it has told it.
    pub status: Option<EntityStatus>,
    /// The vehicle's power mode, where it has told it.
    pub power_mode: Option<PowerMode>,
}

impl Gateway {
    /// The edition to speak with it; another where it does not say.
    pub fn spoken(&self, otherwise: ProtocolVersion) -> ProtocolVersion {
        match self.version {
            ProtocolVersion::Default | ProtocolVersion::Other(_) => otherwise,
            own => own,
        }
    }
}

/// What discovery tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiscoveryEvent {
    /// A gateway that was not known.
    Found(Gateway),
    /// A known gateway tells something else than before.
    Changed(Gateway),
    /// A host refused what it was asked.
    Refused {
        /// The host.
        from: SocketAddr,
        /// Why.
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

/// Keeps the gateways that announced themselves or answered.
///
/// The same gateway is one at the same IP address with the same EID and logical address.
#[derive(Debug, Default)]
pub struct Discovery {
    gateways: Vec<Gateway>,
    asking: VecDeque<Asking>,
    /// Hosts that were asked at a port of their own, where they listen for connections as well.
    hosts: Vec<SocketAddr>,
    outgoing: VecDeque<(Destination, Vec<u8>)>,
    events: VecDeque<DiscoveryEvent>,
}

impl Discovery {
    /// Knows nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks, up to three times, half a second apart, until a single answer that is expected has come.
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

    /// Whether nothing more is asked.
    pub fn is_done_asking(&self) -> bool {
        self.asking.is_empty()
    }

    /// The gateways known so far, in the order in which they were found.
    pub fn gateways(&self) -> &[Gateway] {
        &self.gateways
    }

    /// The gateway with this address.
    pub fn gateway(&self, address: LogicalAddress) -> Option<&Gateway> {
        self.gateways.iter().find(|gateway| gateway.announcement.address == address)
    }

    /// A datagram; what is no answer or announcement is ignored.
    pub fn handle_datagram(&mut self, from: SocketAddr, bytes: &[u8]) {
        let message = match decode_datagram(bytes) {
            Ok(message) => message,
            Err(error) => return tracing::debug!(%from, %error, "a datagram that is no DoIP"),
        };
        let mut was_asked = false;
        let payload = &message.payload;
        self.asking.retain(|asking| {
            was_asked |= matches!(asking.destination, Destination::Host(host) if host.ip() == from.ip());
            !asking.question.is_answered_by(from, asking.destination, payload)
        });
        match message.payload {
            Payload::Announcement(announcement) => {
                // answers to a broadcast can't be told from announcements but by their time
                was_asked |= !self.asking.is_empty();
                self.handle_announcement(from, message.version, announcement, was_asked);
            }
            Payload::EntityStatusResponse(status) => {
                self.update(from.ip(), |gateway| gateway.status = Some(status))
            }
            Payload::PowerModeResponse(mode) => {
                self.update(from.ip(), |gateway| gateway.power_mode = Some(mode))
            }
            Payload::HeaderNack(code) => self.tell(DiscoveryEvent::Refused { from, code }),
            // our own questions come back to us where they were broadcast
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
                self.tell(DiscoveryEvent::Changed(changed));
            }
            return;
        }
        if self.gateways.len() >= MAX_GATEWAYS {
            return tracing::debug!(%from, "{MAX_GATEWAYS} gateways are known already; one more is left out");
        }
        let gateway = Gateway { address, version, announcement, was_asked, status: None, power_mode: None };
        self.gateways.push(gateway);
        self.tell(DiscoveryEvent::Found(gateway));
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
        changed.into_iter().for_each(|gateway| self.tell(DiscoveryEvent::Changed(gateway)));
    }

    /// Who does not fetch what is told must not make us keep it.
    fn tell(&mut self, event: DiscoveryEvent) {
        if self.events.len() >= 2 * MAX_GATEWAYS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// A deadline of [`Discovery::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        let Self { asking, outgoing, .. } = self;
        asking.retain_mut(|asking| {
            if asking.at > now {
                return true;
            }
            let Some(version) = VERSIONS.get(asking.attempts) else { return false };
            // identification alone may be asked in the default version
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

    /// When [`Discovery::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.asking.iter().map(|asking| asking.at).min()
    }

    /// The next datagram to send, and whom to.
    pub fn poll_transmit(&mut self) -> Option<(Destination, Vec<u8>)> {
        self.outgoing.pop_front()
    }

    /// The next thing to tell.
    pub fn poll_event(&mut self) -> Option<DiscoveryEvent> {
        self.events.pop_front()
    }
}

#[cfg(test)]
#[path = "discovery_tests.rs"]
mod tests;
