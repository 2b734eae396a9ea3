//! The gateways that a bus knows, and the one that belongs to an address.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::protocol::doip::discovery::Gateway;
use crate::protocol::doip::{Eid, LogicalAddress};

/// The interval of questions for the gateway of a channel that was open before. A gateway that starts announces
/// itself, so that questions only replace lost announcements.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// The most refusals that are kept for error messages.
const MAX_REFUSALS: usize = 4;

/// The gateways of a bus, as a pure state machine.
#[derive(Debug, Default)]
pub(super) struct KnownGateways {
    /// The only host of the network, if the configuration names one.
    named_host: Option<SocketAddr>,
    gateways: Vec<Gateway>,
    /// Why hosts that answered are not gateways, in words.
    refusals: Vec<String>,
    /// The gateways that channels are connected with. While they are, no other gateway has their addresses.
    pinned: BTreeMap<LogicalAddress, Eid>,
    asked_at: Option<Instant>,
}

/// The way to a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Route {
    /// A gateway that has identified itself.
    Identified(Gateway),
    /// The configured host, which has not identified itself.
    Unidentified(SocketAddr),
}

impl Route {
    /// The address to connect to.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Identified(gateway) => gateway.address,
            Self::Unidentified(host) => *host,
        }
    }
}

impl KnownGateways {
    /// A network is up, and no gateway on it is known yet.
    pub(super) fn handle_network_up(&mut self, named_host: Option<SocketAddr>) {
        self.named_host = named_host;
        self.handle_network_lost();
    }

    /// The network is lost, with all that is known about it.
    pub(super) fn handle_network_lost(&mut self) {
        self.gateways.clear();
        self.refusals.clear();
        self.asked_at = None;
    }

    /// The gateways that discovery knows.
    pub(super) fn handle_gateways(&mut self, gateways: &[Gateway]) {
        self.gateways = gateways.to_vec();
    }

    /// A host answered with something else than an announcement.
    pub(super) fn handle_refusal(&mut self, refusal: String) {
        if self.refusals.len() < MAX_REFUSALS && !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    /// The way to the gateway with this address; `None` if it is not known, or if several gateways have the
    /// address. `is_overdue` is whether the gateway has had its time to identify itself.
    pub(super) fn route(&self, address: LogicalAddress, is_overdue: bool) -> Option<Route> {
        let of_address = self.with_address(address);
        match of_address.as_slice() {
            [first, rest @ ..] if rest.iter().all(|other| is_same(first, other)) => {
                Some(Route::Identified(**first))
            }
            [] if is_overdue => self.named_host.map(Route::Unidentified),
            _ => None,
        }
    }

    /// The gateways with this address, of which only one is left while channels are connected with it.
    fn with_address(&self, address: LogicalAddress) -> Vec<&Gateway> {
        let pinned = self.pinned.get(&address);
        let is_meant = |gateway: &&Gateway| {
            gateway.announcement.address == address
                && pinned.is_none_or(|eid| gateway.eid().is_none_or(|own| own == *eid))
        };
        self.gateways.iter().filter(is_meant).collect()
    }

    /// The configured host, if it has not identified itself.
    pub(super) fn silent_host(&self) -> Option<SocketAddr> {
        self.named_host.filter(|_| self.gateways.is_empty())
    }

    /// A connection with the gateway begins.
    pub(super) fn pin(&mut self, address: LogicalAddress) {
        if let Some(Route::Identified(gateway)) = self.route(address, false)
            && let Some(eid) = gateway.eid()
        {
            self.pinned.entry(address).or_insert(eid);
        }
    }

    /// No channel uses the gateway any longer.
    pub(super) fn unpin(&mut self, address: LogicalAddress) {
        self.pinned.remove(&address);
    }

    /// Whether to ask for gateways now, because one is missing for a channel that is being opened or that was
    /// open before.
    pub(super) fn take_question(&mut self, now: Instant, is_opening: bool) -> bool {
        let is_due = is_opening || self.next_question().is_none_or(|at| at <= now);
        if is_due {
            self.asked_at = Some(now);
        }
        is_due
    }

    /// When the next question is due for a channel that was open before.
    pub(super) fn next_question(&self) -> Option<Instant> {
        self.asked_at.map(|at| at + ASK_AGAIN_AFTER)
    }

    /// The gateways with this address, in words, if there are several.
    pub(super) fn ambiguity(&self, address: LogicalAddress) -> Option<String> {
        let of_address = self.with_address(address);
        if of_address.is_empty() || self.route(address, false).is_some() {
            return None;
        }
        let list = |gateway: &&Gateway| {
            format!("the one at {} with EID {}", gateway.address.ip(), gateway.announcement.eid)
        };
        let list: Vec<_> = of_address.iter().map(list).collect();
        Some(format!("{} gateways have the address {address}: {}", list.len(), list.join(", ")))
    }

    /// The gateways and the answers of other hosts, in words.
    pub(super) fn describe(&self) -> String {
        let gateways: Vec<_> = self
            .gateways
            .iter()
            .map(|gateway| format!("{} at {}", gateway.announcement.address, gateway.address.ip()))
            .collect();
        let found = match gateways.as_slice() {
            [] if self.refusals.is_empty() => "no gateway answered".to_owned(),
            [] => String::new(),
            _ => format!("found: {}", gateways.join(", ")),
        };
        let texts = std::iter::once(&found).chain(&self.refusals).map(String::as_str);
        texts.filter(|text| !text.is_empty()).collect::<Vec<_>>().join("; ")
    }
}

/// Whether both entries are of the same gateway, which may have several IP addresses.
fn is_same(one: &Gateway, other: &Gateway) -> bool {
    match (one.eid(), other.eid()) {
        (Some(one), Some(other)) => one == other,
        // without an identifier, the IP address is all there is
        _ => one.address.ip() == other.address.ip(),
    }
}
