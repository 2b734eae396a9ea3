//! The search for ECUs behind gateways: one TesterPresent to each address that may be an ECU's.
//!
//! ISO 13400-2 allows manufacturers all of 0x0001…0x0DFF and 0x1000…0x7FFF, more addresses than can be asked
//! in a few seconds. So the search begins with the addresses that share their high byte with the gateway.
//! Then it asks 0x1000…0x1FFF and 0x0001…0x0DFF, where most vehicles have their ECUs, until the time is up.

use std::collections::{BTreeMap, BTreeSet};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::has_read_all;

use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{ConnectionSettings, Event, SendId};
use crate::protocol::doip::discovery::{Discovery, Gateway};
use crate::protocol::uds::TESTER_PRESENT_ANSWERED;
use crate::vehicle::doip_network::client::{Client, ClientEvent};
use crate::vehicle::doip_network::network::Network;

/// The time that an ECU has to answer once the gateway has forwarded the question: P2 (50 ms), and twice that
/// for the gateway's way to the ECU's bus and back.
const ANSWER_TIME: Duration = Duration::from_millis(150);
/// The most questions that a gateway may have without having acknowledged them. The value is a compromise:
/// gateways with little memory refuse more (out of memory, 0x05), and with fewer the round trip to the
/// gateway would decide the duration.
const MAX_UNACKNOWLEDGED: usize = 8;
/// The most questions that ECUs may have without having answered them: the gateway has to put each of them on
/// a bus.
const MAX_UNANSWERED: usize = 64;
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
    asked: BTreeMap<LogicalAddress, ScannedGateway>,
    found: BTreeSet<(LogicalAddress, LogicalAddress)>,
}

/// A gateway that is being asked.
struct ScannedGateway {
    client: Client,
    is_over: bool,
    plan: Box<dyn Iterator<Item = u16> + Send>,
    /// The number of addresses that were asked, and of all addresses of the plan.
    done: u32,
    total: u32,
    unacknowledged: BTreeMap<SendId, LogicalAddress>,
    /// The ECUs that were asked, and the time until which their answers count.
    unanswered: BTreeMap<LogicalAddress, Instant>,
}

impl EcuSearch {
    /// A search that begins now, over connections with these settings.
    pub(crate) fn new(settings: ConnectionSettings, tls: bool, now: Instant) -> Self {
        Self { settings, tls, until: now + BUDGET, asked: BTreeMap::new(), found: BTreeSet::new() }
    }

    /// The number of addresses that were asked, the number of all addresses behind the gateways known so far,
    /// and the number of ECUs that were found.
    pub(crate) fn progress(&self) -> (u32, u32, usize) {
        let of =
            |count: fn(&ScannedGateway) -> u32| self.asked.values().map(count).fold(0, u32::saturating_add);
        (of(|asked| asked.done), of(|asked| asked.total), self.found.len())
    }

    /// The ECUs that answered, each with its gateway's address in front, by address.
    pub(crate) fn into_found(self) -> Vec<(LogicalAddress, LogicalAddress)> {
        self.found.into_iter().collect()
    }

    /// The time of the next [`EcuSearch::poll`], unless something happens earlier.
    pub(crate) fn poll_timeout(&self) -> Instant {
        let answers = self.asked.values().filter_map(|asked| asked.unanswered.values().min().copied());
        answers.min().map_or(self.until, |at| at.min(self.until))
    }

    /// Asks the ECUs behind the gateways that discovery knows; ready when no further answer can be expected.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        network: &dyn Network,
        discovery: &Discovery,
    ) -> Poll<()> {
        for gateway in discovery.gateways() {
            self.consider(gateway);
        }
        for (gateway, asked) in &mut self.asked {
            asked.poll(cx, network, |ecu| {
                self.found.insert((*gateway, ecu));
            });
        }
        let is_done = discovery.is_done_asking() && self.asked.values().all(|asked| asked.is_over);
        if is_done || has_read_all(cx) && self.until <= now() { Poll::Ready(()) } else { Poll::Pending }
    }

    fn consider(&mut self, gateway: &Gateway) {
        let address = gateway.announcement.address;
        if self.asked.contains_key(&address) || self.asked.len() >= MAX_GATEWAYS {
            return;
        }
        let version = gateway.spoken(self.settings.version);
        let settings = ConnectionSettings { version, ..self.settings };
        let asked = ScannedGateway {
            client: Client::new(gateway.address, settings, self.tls),
            is_over: false,
            plan: plan(address),
            done: 0,
            total: u32::try_from(plan(address).count()).unwrap_or(u32::MAX),
            unacknowledged: BTreeMap::new(),
            unanswered: BTreeMap::new(),
        };
        self.asked.insert(address, asked);
    }
}

/// The addresses that may be an ECU's, each once, the likeliest first.
fn plan(gateway: LogicalAddress) -> Box<dyn Iterator<Item = u16> + Send> {
    let page = gateway.get() & 0xFF00;
    let near = (page..=page | 0xFF).filter(|address| *address != 0);
    let others = (0x1000..=0x1FFF).chain(0x0001..=0x0DFF);
    Box::new(near.chain(others.filter(move |address| address & 0xFF00 != page)))
}

impl ScannedGateway {
    fn poll(&mut self, cx: &mut Context<'_>, network: &dyn Network, mut find: impl FnMut(LogicalAddress)) {
        while !self.is_over {
            self.ask_more();
            let Poll::Ready(event) = self.client.poll(cx, network) else {
                if self.end_waiting(cx) {
                    continue;
                }
                break;
            };
            match event {
                ClientEvent::Message(Event::Sent { id, .. }) => {
                    if let Some(ecu) = self.unacknowledged.remove(&id) {
                        self.unanswered.entry(ecu).and_modify(|until| *until = now() + ANSWER_TIME);
                    }
                }
                ClientEvent::Message(Event::SendFailed { id, .. }) => {
                    if let Some(ecu) = self.unacknowledged.remove(&id) {
                        self.unanswered.remove(&ecu);
                    }
                }
                // any answer shows that the ECU is there
                ClientEvent::Message(Event::Received { source, .. }) => {
                    if self.unanswered.remove(&source).is_some() {
                        find(source);
                    }
                }
                ClientEvent::Down(error) => {
                    tracing::debug!(%error, "the scan of the gateway ends early");
                    self.is_over = true;
                }
                ClientEvent::Active { .. } | ClientEvent::ConfirmationRequired | ClientEvent::Message(_) => {}
            }
        }
    }

    /// Forgets the ECUs that have not answered in time, once everything that has arrived was read. Returns
    /// whether there were any.
    fn end_waiting(&mut self, cx: &Context<'_>) -> bool {
        let (now, before) = (now(), self.unanswered.len());
        if has_read_all(cx) {
            self.unanswered.retain(|_, until| *until > now);
        }
        self.unanswered.len() < before
    }

    /// Sends as many questions as the bounds allow. The gateway is done when no question and no answer is
    /// left.
    fn ask_more(&mut self) {
        let now = now();
        while self.client.is_active()
            && self.unacknowledged.len() < MAX_UNACKNOWLEDGED
            && self.unanswered.len() < MAX_UNANSWERED
        {
            let Some(address) = self.plan.next() else {
                self.is_over = self.unanswered.is_empty();
                return;
            };
            self.done = self.done.saturating_add(1);
            let ecu = LogicalAddress::new(address);
            match self.client.send(ecu, &TESTER_PRESENT_ANSWERED) {
                Ok(id) => {
                    self.unacknowledged.insert(id, ecu);
                    // until the connection reports that the gateway acknowledged the question or not
                    self.unanswered.insert(ecu, now + BUDGET);
                }
                Err(error) => tracing::debug!(%ecu, %error, "not asked"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_is_asked_once_and_those_near_the_gateway_first() {
        for gateway in [0x4010, 0x1010, 0x0010] {
            let planned: Vec<u16> = plan(LogicalAddress::new(gateway)).collect();
            let once: BTreeSet<u16> = planned.iter().copied().collect();
            assert_eq!(planned.len(), once.len());
            assert!(planned.iter().take(255).all(|address| address & 0xFF00 == gateway & 0xFF00));
            assert!(once.contains(&gateway) && once.contains(&0x1001) && once.contains(&0x0DFF));
            assert!(!once.contains(&0) && !once.contains(&0x0E80) && !once.contains(&0xE000));
        }
    }
}
