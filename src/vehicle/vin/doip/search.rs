//! The search for the VIN on a DoIP network, through the gateways that discovery finds.

use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::clock::now;

use super::gateway::AskedGateway;
use crate::protocol::doip::connection::ConnectionSettings;
use crate::protocol::doip::discovery::{Discovery, Gateway};
use crate::protocol::doip::{HeaderNackCode, LogicalAddress};
use crate::protocol::vin::Vin;
use crate::vehicle::doip_network::client::Client;
use crate::vehicle::doip_network::network::Network;
use crate::vehicle::vin::report::{Candidate, VinSource};

/// The most gateways that are asked simultaneously. More gateways of a vehicle have the same VIN, and each
/// one costs a connection.
const MAX_ASKED: usize = 4;
/// The time that other gateways have to agree or disagree with the first VIN: P2, the time of an ECU for its
/// response.
const AGREE_TIME: Duration = Duration::from_millis(50);
/// The most reasons that are kept: twice as many as gateways are asked. More of them add nothing for the
/// reader.
const MAX_REASONS: usize = 8;

/// Looks for the VIN at the gateways that discovery finds, and at the configured host.
pub(crate) struct VinSearch {
    settings: ConnectionSettings,
    tls: bool,
    until: Instant,
    /// The configured host, and the time when it is connected even if it has not identified itself.
    silent_host: Option<(SocketAddr, Instant)>,
    /// The gateways that were asked.
    seen: Vec<LogicalAddress>,
    asked: Vec<AskedGateway>,
    candidates: Vec<Candidate>,
    reasons: Vec<String>,
}

impl VinSearch {
    /// A search until this time. Gateways that announce no VIN are asked over connections with these
    /// settings.
    pub(crate) fn new(settings: ConnectionSettings, tls: bool, until: Instant) -> Self {
        Self {
            settings,
            tls,
            until,
            silent_host: None,
            seen: Vec::new(),
            asked: Vec::new(),
            candidates: Vec::new(),
            reasons: Vec::new(),
        }
    }

    /// Also asks this host, the only one of the network, if it has not identified itself by this time.
    #[must_use]
    pub(crate) fn with_silent_host(self, host: SocketAddr, at: Instant) -> Self {
        Self { silent_host: Some((host, at)), ..self }
    }

    /// The VINs, in the order in which they came.
    pub(crate) fn into_candidates(self) -> Vec<Candidate> {
        self.candidates
    }

    /// Whether there is a VIN.
    pub(crate) fn has_vin(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// The time at which the search ends.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// The reasons why the gateways gave no VIN; empty if no gateway was found.
    pub(crate) fn reasons(&self) -> Vec<String> {
        self.reasons.iter().cloned().chain(self.asked.iter().map(AskedGateway::reason)).collect()
    }

    /// The time of the next [`VinSearch::poll`], unless something happens earlier.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let repetitions = self.asked.iter().filter_map(AskedGateway::poll_timeout);
        let silent_host = self.silent_host.map(|(_, at)| at);
        repetitions.chain(silent_host).fold(self.until, Instant::min)
    }

    /// A host refused a question by UDP.
    pub(crate) fn handle_refused(&mut self, from: SocketAddr, code: HeaderNackCode) {
        self.add_reason(format!("{from} refuses questions by UDP: {code}"));
    }

    /// Reads the announcements that discovery knows, and asks gateways; ready when no further VIN can be
    /// expected.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        network: &dyn Network,
        discovery: &Discovery,
    ) -> Poll<()> {
        for gateway in discovery.gateways() {
            self.consider(gateway);
        }
        self.connect_with_silent_host(discovery);
        self.poll_asked(cx, network);
        if self.until <= now() || self.is_hopeless(discovery) { Poll::Ready(()) } else { Poll::Pending }
    }

    fn poll_asked(&mut self, cx: &mut Context<'_>, network: &dyn Network) {
        let mut results = Vec::new();
        self.asked.retain_mut(|asked| match asked.poll(cx, network, now()) {
            Poll::Pending => true,
            Poll::Ready(result) => {
                results.push((asked.name(), result));
                false
            }
        });
        for (gateway, result) in results {
            match result {
                Ok((vin, address)) => self.add_vin(vin, address),
                Err(reason) => {
                    tracing::debug!(gateway, reason, "no VIN from the gateway");
                    self.add_reason(format!("{gateway}: {reason}"));
                }
            }
        }
    }

    /// All gateways have answered, and would answer the same again.
    fn is_hopeless(&self, discovery: &Discovery) -> bool {
        let gateways = discovery.gateways();
        let all_seen = gateways.iter().all(|gateway| self.seen.contains(&gateway.announcement.address));
        let nothing_waits = self.asked.is_empty() && self.candidates.is_empty() && self.silent_host.is_none();
        all_seen && !gateways.is_empty() && nothing_waits && discovery.is_done_asking()
    }

    /// Takes the VIN that a gateway announces, or else asks the gateway.
    fn consider(&mut self, gateway: &Gateway) {
        let address = gateway.announcement.address;
        match gateway.announcement.vin() {
            Ok(vin) => {
                self.asked.retain(|asked| asked.address() != Some(address));
                self.add_vin(vin, address);
            }
            Err(error) => {
                if !self.seen.contains(&address) && self.asked.len() < MAX_ASKED {
                    tracing::debug!(gateway = %address, %error, "the gateway announces no VIN; asking for it");
                    let version = gateway.spoken(self.settings.version);
                    let settings = ConnectionSettings { version, ..self.settings };
                    let client = Client::new(gateway.address, settings, self.tls);
                    self.asked.push(AskedGateway::new(Some(address), client));
                    self.seen.push(address);
                }
            }
        }
    }

    fn connect_with_silent_host(&mut self, discovery: &Discovery) {
        let Some((host, _)) = self.silent_host.take_if(|(_, at)| *at <= now()) else { return };
        if discovery.gateways().is_empty() {
            tracing::debug!(%host, "the host has not identified itself; connecting anyway");
            self.add_reason(format!("{host} does not identify itself by UDP"));
            self.asked.push(AskedGateway::new(None, Client::new(host, self.settings, self.tls)));
        }
    }

    fn add_vin(&mut self, vin: Vin, address: LogicalAddress) {
        if self.candidates.iter().any(|candidates| candidates.address == address.into()) {
            return;
        }
        if self.candidates.is_empty() {
            self.until = self.until.min(now() + AGREE_TIME);
        }
        self.candidates.push(Candidate { vin, source: VinSource::Doip, address: address.into() });
    }

    fn add_reason(&mut self, reason: String) {
        if self.reasons.len() < MAX_REASONS && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}
