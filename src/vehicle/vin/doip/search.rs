//! The search for the VIN on a DoIP network, through the gateways that discovery finds.

use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::has_read_all;

use super::gateway::AskedGateway;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::ConnectionSettings;
use crate::protocol::doip::discovery::{Discovery, Gateway};
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
/// The most VINs that are kept. The first ones are enough to show a disagreement.
const MAX_CANDIDATES: usize = 32;
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
    /// The gateways that were asked, by host and address: two gateways may have one logical address.
    seen: Vec<(IpAddr, LogicalAddress)>,
    asked: Vec<AskedGateway>,
    candidates: Vec<Candidate>,
    reasons: Vec<String>,
}

impl VinSearch {
    /// A search that ends at `until`. The search asks gateways that announce no VIN, over connections with these
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

    /// A host answered a question with something else than an announcement.
    pub(crate) fn handle_refusal(&mut self, refusal: String) {
        self.add_reason(refusal);
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
        if has_read_all(cx) {
            self.connect_with_silent_host(discovery);
        }
        self.poll_asked(cx, network);
        let is_over = has_read_all(cx) && (self.until <= now() || self.is_hopeless(discovery));
        if is_over { Poll::Ready(()) } else { Poll::Pending }
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
        let all_seen = gateways.iter().all(|gateway| self.seen.contains(&key(gateway)));
        let nothing_waits = self.asked.is_empty() && self.candidates.is_empty() && self.silent_host.is_none();
        all_seen && !gateways.is_empty() && nothing_waits && discovery.is_done_asking()
    }

    /// Takes the VIN that a gateway announces, or else asks the gateway.
    fn consider(&mut self, gateway: &Gateway) {
        let (host, address) = key(gateway);
        match gateway.announcement.vin() {
            Ok(vin) => {
                self.asked.retain(|asked| !asked.is(host, address));
                self.add_vin(vin, address);
            }
            Err(error) => {
                if !self.seen.contains(&(host, address)) && self.asked.len() < MAX_ASKED {
                    tracing::debug!(gateway = %address, %error, "the gateway announces no VIN; asking for it");
                    let version = gateway.spoken(self.settings.version);
                    let settings = ConnectionSettings { version, ..self.settings };
                    let client = Client::new(gateway.address, settings, self.tls);
                    self.asked.push(AskedGateway::new(Some(address), client));
                    self.seen.push((host, address));
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
        let is_known = |known: &Candidate| known.address == address.into() && known.vin == vin;
        if self.candidates.iter().any(is_known) || self.candidates.len() >= MAX_CANDIDATES {
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

/// The host and the logical address of a gateway.
fn key(gateway: &Gateway) -> (IpAddr, LogicalAddress) {
    (gateway.address.ip(), gateway.announcement.address)
}

#[cfg(test)]
mod tests {
    use connector_hal::future::BoxFuture;

    use super::*;
    use crate::protocol::doip::discovery::Destination;
    use crate::protocol::doip::{Announcement, Eid, FurtherAction, Message, ProtocolVersion};
    use crate::vehicle::doip_network::network::{GatewayConnectError, Stream};

    /// A network on which nothing is received and nothing can be connected.
    struct Dead;

    impl Network for Dead {
        fn destinations(&self) -> Vec<Destination> {
            Vec::new()
        }

        fn poll_receive(
            &mut self,
            _: &mut Context<'_>,
            _: &mut [u8],
        ) -> Poll<std::io::Result<(usize, SocketAddr)>> {
            Poll::Pending
        }

        fn send(&mut self, _: Destination, _: &[u8]) -> std::io::Result<()> {
            Ok(())
        }

        fn connect(
            &self,
            _: SocketAddr,
            _: bool,
        ) -> BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>> {
            Box::pin(std::future::pending())
        }
    }

    fn announce(discovery: &mut Discovery, host: u8, vin: [u8; 17]) {
        let announcement = Announcement {
            vin,
            address: LogicalAddress::new(0x4010),
            eid: Eid([host; 6]),
            gid: None,
            further_action: FurtherAction::None,
            sync_status: None,
        };
        let datagram = Message::new(ProtocolVersion::V2012, announcement).encode().unwrap();
        discovery.handle_datagram(SocketAddr::from(([10, 0, 0, host], 13400)), &datagram);
    }

    #[tokio::test(start_paused = true)]
    async fn two_gateways_with_one_address_are_both_heard() {
        let settings = ConnectionSettings::new(LogicalAddress::new(0x0E80));
        let mut discovery = Discovery::new();
        announce(&mut discovery, 1, *b"WVWZZZ1KZ6W000001");
        announce(&mut discovery, 2, *b"WVWZZZ1KZ6W000002");
        let mut search = VinSearch::new(settings, false, now() + Duration::from_secs(1));
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(search.poll(&mut context, &Dead, &discovery).is_pending());
        assert_eq!(search.into_candidates().len(), 2);

        let mut discovery = Discovery::new();
        announce(&mut discovery, 1, [0; 17]);
        announce(&mut discovery, 2, [0; 17]);
        let mut search = VinSearch::new(settings, false, now() + Duration::from_secs(1));
        assert!(search.poll(&mut context, &Dead, &discovery).is_pending());
        assert_eq!(search.asked.len(), 2);
    }
}
