//! The search for ECUs behind gateways: the shell around a [`GatewayScan`] for each of them.
//!
//! ISO 13400-2 allows manufacturers all of 0x0001…0x0DFF and 0x1000…0x7FFF, more addresses than can be asked
//! in a few seconds. So the search begins with the addresses that share their high byte with the gateway.
//! Then it asks 0x1000…0x1FFF and 0x0001…0x0DFF, where most vehicles have their ECUs, until the time is up.

use std::collections::BTreeMap;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::has_read_all;

use super::gateway_scan::GatewayScan;
use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{ConnectionSettings, Event, SendId};
use crate::protocol::doip::discovery::{Discovery, Gateway};
use crate::vehicle::doip_network::client::{Client, ClientEvent};
use crate::vehicle::doip_network::network::Network;
use crate::vehicle::scan::outcome::ScanOutcome;
use crate::vehicle::scan::request::ScanRequest;
use crate::vehicle::scan::standing::{Motion, Standing};

/// The most gateways that are asked simultaneously; each one costs a connection. As many as for the VIN.
const MAX_GATEWAYS: usize = 4;
/// The time of a scan (docs/adr/0014-scan-budget.md). The value is a compromise: a gateway may answer some
/// 8,000 questions slowly, and a technician waits.
const BUDGET: Duration = Duration::from_secs(10);

/// Looks for ECUs behind the gateways that discovery finds.
pub(crate) struct EcuSearch {
    settings: ConnectionSettings,
    tls: bool,
    until: Instant,
    standing: Standing,
    asked: BTreeMap<LogicalAddress, ScannedGateway>,
}

/// A gateway that is being asked.
struct ScannedGateway {
    client: Client,
    scan: GatewayScan<SendId>,
}

impl EcuSearch {
    /// A search that begins now, over connections with these settings.
    pub(crate) fn new(settings: ConnectionSettings, tls: bool, request: &ScanRequest, now: Instant) -> Self {
        let standing = Standing::new(request.vehicle_stands);
        Self { settings, tls, until: now + BUDGET, standing, asked: BTreeMap::new() }
    }

    /// The number of addresses that were asked, the number of all addresses behind the gateways known so far,
    /// and the number of ECUs that were found.
    pub(crate) fn progress(&self) -> (u32, u32, usize) {
        self.asked.values().fold((0, 0, 0), |(done, total, found), gateway| {
            let (more_done, more) = gateway.scan.progress();
            (done.saturating_add(more_done), total.saturating_add(more), found + gateway.scan.found().count())
        })
    }

    /// The ECUs that are proved, each with its gateway's address in front, by address.
    pub(crate) fn into_found(self) -> Vec<(LogicalAddress, LogicalAddress)> {
        let found = |(gateway, asked): (&LogicalAddress, &ScannedGateway)| {
            let gateway = *gateway;
            asked.scan.found().map(move |ecu| (gateway, ecu)).collect::<Vec<_>>()
        };
        self.asked.iter().flat_map(found).collect()
    }

    /// The time of the next [`EcuSearch::poll`], unless something happens earlier.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let questions =
            self.asked.values().filter_map(|asked| asked.scan.poll_timeout(asked.client.is_active()));
        questions.min().map_or(self.until, |at| at.min(self.until))
    }

    /// Asks the ECUs behind the gateways that discovery knows; ready when no further answer can be expected.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        network: &dyn Network,
        discovery: &Discovery,
    ) -> Poll<ScanOutcome> {
        for gateway in discovery.gateways() {
            self.consider(gateway);
        }
        let mut was_allowed = self.standing.allows();
        loop {
            for asked in self.asked.values_mut() {
                if asked.poll(cx, network, &mut self.standing) == Some(Motion::Moves) {
                    return Poll::Ready(ScanOutcome::VehicleMoves);
                }
            }
            // what one gateway's ECU reports allows the questions to the others
            if std::mem::replace(&mut was_allowed, self.standing.allows()) == self.standing.allows() {
                break;
            }
        }
        let is_time_up = has_read_all(cx) && self.until <= now();
        if is_time_up || discovery.is_done_asking() && self.asked.values().all(ScannedGateway::is_done) {
            let is_refused =
                !self.standing.allows() && self.asked.values().any(|asked| !asked.scan.is_over());
            return Poll::Ready(if is_refused { ScanOutcome::MayMove } else { ScanOutcome::Done });
        }
        Poll::Pending
    }

    fn consider(&mut self, gateway: &Gateway) {
        let address = gateway.announcement.address;
        if self.asked.contains_key(&address) || self.asked.len() >= MAX_GATEWAYS {
            return;
        }
        let version = gateway.spoken(self.settings.version);
        let settings = ConnectionSettings { version, ..self.settings };
        let client = Client::new(gateway.address, settings, self.tls);
        let scan = GatewayScan::new(address, self.until);
        self.asked.insert(address, ScannedGateway { client, scan });
    }
}

impl ScannedGateway {
    /// Whether nothing more can be asked.
    fn is_done(&self) -> bool {
        self.scan.is_over() || self.scan.is_waiting()
    }

    /// Asks and listens as far as possible without waiting. Returns [`Motion::Moves`] immediately if an ECU
    /// reports that.
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        network: &dyn Network,
        standing: &mut Standing,
    ) -> Option<Motion> {
        while !self.scan.is_over() {
            self.ask_more(standing.allows());
            let Poll::Ready(event) = self.client.poll(cx, network) else {
                // only once everything that has arrived was read
                if has_read_all(cx) && self.scan.handle_timeout(now()) {
                    continue;
                }
                break;
            };
            match event {
                ClientEvent::Message(Event::Sent { id, .. }) => self.scan.handle_acknowledged(now(), id),
                ClientEvent::Message(Event::SendFailed { id, .. }) => self.scan.handle_failed(id),
                ClientEvent::Message(Event::Received { source, data }) => {
                    if let Some(motion) = self.scan.handle_response(source, &data) {
                        standing.handle_motion(motion);
                        if motion == Motion::Moves {
                            return Some(motion);
                        }
                    }
                }
                ClientEvent::Down(error) => {
                    tracing::debug!(%error, "the scan of the gateway ends early");
                    self.scan.handle_lost();
                }
                ClientEvent::Active { .. } | ClientEvent::ConfirmationRequired | ClientEvent::Message(_) => {}
            }
        }
        None
    }

    /// Sends as many questions as the bounds allow.
    fn ask_more(&mut self, may_scan: bool) {
        let now = now();
        while self.client.is_active()
            && let Some(question) = self.scan.poll_transmit(now, may_scan)
        {
            match self.client.send(question.target, question.pdu) {
                Ok(id) => self.scan.handle_sent(now, id, question.target),
                Err(error) => tracing::debug!(target = %question.target, %error, "not asked"),
            }
        }
    }
}
