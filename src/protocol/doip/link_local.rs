//! An IPv4 link-local address (RFC 3927), claimed by RFC 5227: probe, announce, defend once.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use connector_hal::ethernet::ArpPacket;

// the times and limits of RFC 3927, section 9, under their names there
const PROBE_WAIT: Duration = Duration::from_secs(1);
const PROBE_NUM: u32 = 3;
const PROBE_MIN: Duration = Duration::from_secs(1);
const PROBE_MAX: Duration = Duration::from_secs(2);
const ANNOUNCE_WAIT: Duration = Duration::from_secs(2);
const ANNOUNCE_NUM: u32 = 2;
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(2);
const MAX_CONFLICTS: u32 = 10;
const RATE_LIMIT_INTERVAL: Duration = Duration::from_secs(60);
const DEFEND_INTERVAL: Duration = Duration::from_secs(10);

/// Number of unread events from which each new one replaces the oldest. Events are minutes apart.
const MAX_EVENTS: usize = 8;

/// Prefix length of link-local addresses, in bits (RFC 3927, section 2.1).
pub(crate) const PREFIX: u8 = 16;

/// An event of a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LinkLocalEvent {
    /// The address is claimed and can be used.
    Claimed(Ipv4Addr),
    /// Another host uses the address, which must not be used any longer; another address is being claimed.
    Lost(Ipv4Addr),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ClaimState {
    Probing { sent: u32, next: Instant },
    Announcing { sent: u32, next: Instant },
    Bound,
}

/// Claims an IPv4 link-local address for one interface.
///
/// A claim is a pure state machine: it does no I/O and reads no clock. Pass every ARP packet of the interface
/// to [`handle_packet`](Self::handle_packet) and call [`handle_timeout`](Self::handle_timeout) when
/// [`poll_timeout`](Self::poll_timeout) is due. After each call, broadcast the packets of
/// [`poll_transmit`](Self::poll_transmit) and take the events of [`poll_event`](Self::poll_event).
#[derive(Debug)]
pub struct LinkLocal {
    mac: [u8; 6],
    rng: fastrand::Rng,
    address: Ipv4Addr,
    state: ClaimState,
    conflicts: u32,
    defended: Option<Instant>,
    outgoing: Vec<ArpPacket>,
    events: std::collections::VecDeque<LinkLocalEvent>,
}

impl LinkLocal {
    /// Starts to claim an address.
    ///
    /// The hardware address determines the choice, so that an interface claims the same address each time.
    pub fn new(mac: [u8; 6], now: Instant) -> Self {
        let [a, b, c, d, e, f] = mac;
        let mut rng = fastrand::Rng::with_seed(u64::from_be_bytes([0, 0, a, b, c, d, e, f]));
        let address = candidate(&mut rng);
        let next = now + random(&mut rng, Duration::ZERO, PROBE_WAIT);
        Self {
            mac,
            rng,
            address,
            state: ClaimState::Probing { sent: 0, next },
            conflicts: 0,
            defended: None,
            outgoing: Vec::new(),
            events: std::collections::VecDeque::new(),
        }
    }

    /// Returns the address that is claimed or being claimed.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Takes an ARP packet from the interface.
    pub(crate) fn handle_packet(&mut self, now: Instant, packet: &ArpPacket) {
        if packet.sender_mac == self.mac {
            return;
        }
        let uses = packet.sender_ip == self.address;
        match self.state {
            ClaimState::Probing { .. } => {
                // a probe of another host for the same address is a conflict too
                let probes = packet.sender_ip.is_unspecified() && packet.target_ip == self.address;
                if uses || probes {
                    self.choose_again(now);
                }
            }
            ClaimState::Announcing { .. } | ClaimState::Bound if uses => {
                let defended = self.defended.replace(now);
                if defended.is_none_or(|at| now.saturating_duration_since(at) >= DEFEND_INTERVAL) {
                    self.announce();
                } else {
                    self.emit(LinkLocalEvent::Lost(self.address));
                    self.defended = None;
                    self.choose_again(now);
                }
            }
            _ => {}
        }
    }

    fn choose_again(&mut self, now: Instant) {
        self.conflicts = self.conflicts.saturating_add(1);
        self.address = candidate(&mut self.rng);
        let wait = if self.conflicts >= MAX_CONFLICTS {
            RATE_LIMIT_INTERVAL
        } else {
            random(&mut self.rng, Duration::ZERO, PROBE_WAIT)
        };
        self.state = ClaimState::Probing { sent: 0, next: now + wait };
    }

    /// Queues an event; drops the oldest if the caller does not poll.
    fn emit(&mut self, event: LinkLocalEvent) {
        if self.events.len() >= MAX_EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn announce(&mut self) {
        self.send(self.address);
    }

    /// Queues an ARP request for our address with this sender address.
    fn send(&mut self, sender_ip: Ipv4Addr) {
        self.outgoing.push(ArpPacket {
            is_reply: false,
            sender_mac: self.mac,
            sender_ip,
            target_mac: [0; 6],
            target_ip: self.address,
        });
    }

    /// Sends the probe or announcement that is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        match self.state {
            ClaimState::Probing { sent, next } if next <= now && sent < PROBE_NUM => {
                self.send(Ipv4Addr::UNSPECIFIED);
                let wait = if sent + 1 == PROBE_NUM {
                    ANNOUNCE_WAIT
                } else {
                    random(&mut self.rng, PROBE_MIN, PROBE_MAX)
                };
                self.state = ClaimState::Probing { sent: sent + 1, next: now + wait };
            }
            ClaimState::Probing { next, .. } if next <= now => {
                self.conflicts = 0;
                self.emit(LinkLocalEvent::Claimed(self.address));
                self.announce();
                self.state = ClaimState::Announcing { sent: 1, next: now + ANNOUNCE_INTERVAL };
            }
            ClaimState::Announcing { sent, next } if next <= now => {
                self.announce();
                self.state = if sent + 1 >= ANNOUNCE_NUM {
                    ClaimState::Bound
                } else {
                    ClaimState::Announcing { sent: sent + 1, next: now + ANNOUNCE_INTERVAL }
                };
            }
            _ => {}
        }
    }

    /// Returns when [`LinkLocal::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            ClaimState::Probing { next, .. } | ClaimState::Announcing { next, .. } => Some(next),
            ClaimState::Bound => None,
        }
    }

    /// Returns the next packet to broadcast.
    pub(crate) fn poll_transmit(&mut self) -> Option<ArpPacket> {
        (!self.outgoing.is_empty()).then(|| self.outgoing.remove(0))
    }

    /// Returns the next event.
    pub(crate) fn poll_event(&mut self) -> Option<LinkLocalEvent> {
        self.events.pop_front()
    }
}

/// Returns a random address from 169.254.1.0 to 169.254.254.255 (RFC 3927, 2.1).
fn candidate(rng: &mut fastrand::Rng) -> Ipv4Addr {
    Ipv4Addr::new(169, 254, rng.u8(1..=254), rng.u8(..))
}

fn random(rng: &mut fastrand::Rng, from: Duration, to: Duration) -> Duration {
    from + (to - from).mul_f64(rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAC: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const OTHER: [u8; 6] = [2, 0, 0, 0, 0, 2];

    /// Runs until the next event, or until no timeout is left.
    fn run(link: &mut LinkLocal, now: &mut Instant) -> (Vec<ArpPacket>, Option<LinkLocalEvent>) {
        let mut sent = Vec::new();
        loop {
            sent.extend(std::iter::from_fn(|| link.poll_transmit()));
            if let Some(event) = link.poll_event() {
                return (sent, Some(event));
            }
            let Some(due) = link.poll_timeout() else { return (sent, None) };
            *now = due.max(*now);
            link.handle_timeout(*now);
        }
    }

    fn packet(sender_ip: Ipv4Addr, target_ip: Ipv4Addr) -> ArpPacket {
        ArpPacket { is_reply: false, sender_mac: OTHER, sender_ip, target_mac: [0; 6], target_ip }
    }

    #[test]
    fn an_address_is_probed_three_times_and_then_announced_twice() {
        let mut now = Instant::now();
        let start = now;
        let mut link = LinkLocal::new(MAC, now);
        let (sent, event) = run(&mut link, &mut now);
        let address = link.address();
        assert!(address.is_link_local() && (1..=254).contains(&address.octets()[2]));
        assert_eq!(event, Some(LinkLocalEvent::Claimed(address)));
        assert_eq!(sent.iter().filter(|packet| packet.sender_ip.is_unspecified()).count(), 3);
        assert!(now - start >= 2 * PROBE_MIN + ANNOUNCE_WAIT);
        let (announced, _) = run(&mut link, &mut now);
        assert_eq!(sent.len() + announced.len(), 5);
        assert!(announced.iter().all(|packet| packet.sender_ip == address && packet.target_ip == address));
        assert_eq!(LinkLocal::new(MAC, now).address(), address);
        assert_ne!(LinkLocal::new(OTHER, now).address(), address);
    }

    #[test]
    fn an_address_that_another_host_uses_or_probes_is_not_claimed() {
        let mut now = Instant::now();
        let mut link = LinkLocal::new(MAC, now);
        let first = link.address();
        link.handle_packet(now, &packet(first, Ipv4Addr::BROADCAST));
        let second = link.address();
        assert_ne!(first, second);
        link.handle_packet(now, &packet(Ipv4Addr::UNSPECIFIED, second));
        let (_, event) = run(&mut link, &mut now);
        let Some(LinkLocalEvent::Claimed(claimed)) = event else { panic!("{event:?}") };
        assert!(claimed != first && claimed != second);
    }

    #[test]
    fn an_address_is_defended_once_and_then_given_up() {
        let mut now = Instant::now();
        let mut link = LinkLocal::new(MAC, now);
        run(&mut link, &mut now);
        run(&mut link, &mut now);
        let address = link.address();
        link.handle_packet(now, &packet(address, address));
        let (defence, event) = run(&mut link, &mut now);
        assert_eq!((defence.len(), event), (1, None));
        link.handle_packet(now + Duration::from_secs(1), &packet(address, address));
        assert_eq!(link.poll_event(), Some(LinkLocalEvent::Lost(address)));
        assert_ne!(link.address(), address);
        let (_, event) = run(&mut link, &mut now);
        assert_eq!(event, Some(LinkLocalEvent::Claimed(link.address())));
    }

    #[test]
    fn after_ten_conflicts_the_next_claim_waits_a_minute() {
        let now = Instant::now();
        let mut link = LinkLocal::new(MAC, now);
        for _ in 0..MAX_CONFLICTS {
            link.handle_packet(now, &packet(link.address(), Ipv4Addr::BROADCAST));
        }
        assert_eq!(link.poll_timeout(), Some(now + RATE_LIMIT_INTERVAL));
    }
}
