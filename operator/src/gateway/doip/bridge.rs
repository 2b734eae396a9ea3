//! The tool's side of a DoIP gateway, without I/O: covers the remote ECUs, and removes duplicate answers.

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use connector_agent::protocol::doip::{DiagnosticMessage, LogicalAddress};

use super::super::copies::{AnswerPath, Copies};
use super::super::cover::{Cover, CoverConfig};

/// The largest number of pairs of tester and ECU. Messages of further pairs are refused. More than the ECUs
/// of a vehicle; the limit bounds the memory that a tool takes which asks every address.
const MAX_PAIRS: usize = 256;

/// A tester, and the ECU or group of ECUs that receives its requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Pair {
    /// The tester.
    pub(super) tester: LogicalAddress,
    /// The ECU or group of ECUs.
    pub(super) target: LogicalAddress,
}

impl Pair {
    /// The pair as one number.
    pub(super) fn key(self) -> u32 {
        u32::from(self.tester.get()) << 16 | u32::from(self.target.get())
    }

    pub(super) fn of(key: u32) -> Self {
        // the upper and the lower half of the key
        let (tester, target) = ((key >> 16) as u16, key as u16);
        Self { tester: LogicalAddress::new(tester), target: LogicalAddress::new(target) }
    }
}

/// The state of one pair.
struct CoveredEcu {
    cover: Cover,
    copies: Copies,
}

/// The tool's side of a DoIP gateway.
///
/// After every `handle_*`, take everything from `poll_response`, then call `poll_timeout` again.
pub(super) struct DoipBridge {
    config: CoverConfig,
    ecus: BTreeMap<Pair, CoveredEcu>,
    responses: VecDeque<DiagnosticMessage>,
}

impl DoipBridge {
    /// A bridge without requests.
    pub(super) fn new(config: CoverConfig) -> Self {
        Self { config, ecus: BTreeMap::new(), responses: VecDeque::new() }
    }

    fn ecu(&mut self, pair: Pair) -> Option<&mut CoveredEcu> {
        if self.ecus.len() >= MAX_PAIRS && !self.ecus.contains_key(&pair) {
            return None;
        }
        let config = self.config;
        let new = || CoveredEcu { cover: Cover::new(config), copies: Copies::default() };
        Some(self.ecus.entry(pair).or_insert_with(new))
    }

    /// A tester sent a request. Returns `false` if there are too many pairs.
    pub(super) fn handle_request(&mut self, now: Instant, pair: Pair, pdu: &[u8]) -> bool {
        if pair.target.is_functional() {
            return true;
        }
        let Some(ecu) = self.ecu(pair) else { return false };
        ecu.cover.handle_request(now, pdu);
        true
    }

    /// The ECU `source` answered a request of this pair.
    pub(super) fn handle_response(&mut self, now: Instant, pair: Pair, source: LogicalAddress, pdu: &[u8]) {
        let path = if pair.target.is_functional() { AnswerPath::Functional } else { AnswerPath::Physical };
        let tester = pair.tester;
        let Some(ecu) = self.ecu(Pair { tester, target: source }) else {
            return tracing::debug!(%source, "discarding a response, because there are too many ECUs");
        };
        if ecu.copies.is_copy(now, path, pdu) {
            return;
        }
        ecu.cover.handle_response(now, pdu);
        self.responses.push_back(DiagnosticMessage { source, target: tester, data: pdu.to_vec() });
    }

    /// A request is on the vehicle's network.
    pub(super) fn handle_sent(&mut self, now: Instant, pair: Pair) {
        if let Some(ecu) = self.ecus.get_mut(&pair) {
            ecu.cover.handle_sent(now);
        }
    }

    /// An acknowledged request was not sent, or its response was incomplete. A functional request gets no
    /// answer.
    pub(super) fn handle_failed(&mut self, pair: Pair) {
        let Some(ecu) = self.ecus.get_mut(&pair) else { return };
        if pair.target.is_functional() {
            ecu.cover.handle_failed();
        } else {
            ecu.cover.handle_failed_after_acknowledgement();
        }
        self.collect(pair);
    }

    /// The link to the connector is lost, or back.
    pub(super) fn handle_link(&mut self, now: Instant, up: bool) {
        self.ecus.values_mut().for_each(|ecu| ecu.cover.handle_link(now, up));
    }

    /// A tester disconnected.
    pub(super) fn handle_gone(&mut self, tester: LogicalAddress) {
        self.ecus.retain(|pair, _| pair.tester != tester);
        self.responses.retain(|response| response.target != tester);
    }

    /// Handles the deadlines that have passed.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        let pairs: Vec<Pair> = self.ecus.keys().copied().collect();
        for pair in pairs {
            if let Some(ecu) = self.ecus.get_mut(&pair) {
                ecu.cover.handle_timeout(now);
                self.collect(pair);
            }
        }
    }

    /// Takes the answer on behalf of an ECU, if there is one.
    fn collect(&mut self, pair: Pair) -> bool {
        let answer = self.ecus.get_mut(&pair).and_then(|ecu| ecu.cover.poll_answer());
        let message = answer.map(|data| DiagnosticMessage { source: pair.target, target: pair.tester, data });
        let some = message.is_some();
        self.responses.extend(message);
        some
    }

    /// The next message to a tester.
    pub(super) fn poll_response(&mut self) -> Option<DiagnosticMessage> {
        self.responses.pop_front()
    }

    /// When to call `handle_timeout`.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.ecus.values().filter_map(|ecu| ecu.cover.poll_timeout()).map(|(at, _)| at).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const TESTER: LogicalAddress = LogicalAddress::new(0x0E80);
    const ECU: LogicalAddress = LogicalAddress::new(0x4011);
    const ALL: LogicalAddress = LogicalAddress::new(0xE400);
    const ONE: Pair = Pair { tester: TESTER, target: ECU };
    const FUNCTIONAL: Pair = Pair { tester: TESTER, target: ALL };

    fn responses(bridge: &mut DoipBridge) -> Vec<(u16, Vec<u8>)> {
        std::iter::from_fn(|| bridge.poll_response())
            .map(|response| (response.source.get(), response.data))
            .collect()
    }

    #[test]
    fn an_address_pair_survives_conversion_to_its_number() {
        assert_eq!(Pair::of(FUNCTIONAL.key()), FUNCTIONAL);
    }

    #[test]
    fn a_late_answer_is_covered_under_the_ecus_own_address() {
        let (mut bridge, now) = (DoipBridge::new(CoverConfig::default()), Instant::now());
        assert!(bridge.handle_request(now, ONE, &[0x22, 0xF1, 0x90]));
        let due = bridge.poll_timeout().unwrap();
        assert_eq!(due, now + Duration::from_millis(10));
        bridge.handle_timeout(due);
        assert_eq!(responses(&mut bridge), [(0x4011, vec![0x7F, 0x22, 0x78])]);
        bridge.handle_response(due, ONE, ECU, &[0x62, 0xF1, 0x90]);
        assert_eq!(responses(&mut bridge), [(0x4011, vec![0x62, 0xF1, 0x90])]);
        assert_eq!(bridge.poll_timeout(), None);
    }

    #[test]
    fn an_unreachable_target_is_reported_once() {
        let (mut bridge, now) = (DoipBridge::new(CoverConfig::default()), Instant::now());
        bridge.handle_request(now, ONE, &[0x22, 0xF1, 0x90]);
        bridge.handle_failed(ONE);
        let never = (0x4011, vec![0x7F, 0x22, 0x25]);
        assert_eq!(responses(&mut bridge), std::slice::from_ref(&never));
        bridge.handle_failed(ONE);
        assert_eq!(responses(&mut bridge), []);
        bridge.handle_request(now, ONE, &[0x22, 0xF1, 0x90]);
        bridge.handle_timeout(now + Duration::from_millis(10));
        bridge.handle_failed(ONE);
        let pending = (0x4011, vec![0x7F, 0x22, 0x78]);
        assert_eq!(responses(&mut bridge), [pending, never]);
    }

    #[test]
    fn each_answer_to_a_functional_request_comes_once_from_its_ecus_address() {
        let (mut bridge, now) = (DoipBridge::new(CoverConfig::default()), Instant::now());
        for _ in 0..2 {
            bridge.handle_request(now, FUNCTIONAL, &[0x3E, 0]);
            bridge.handle_response(now, FUNCTIONAL, ECU, &[0x7E, 0]);
            bridge.handle_response(now, ONE, ECU, &[0x7E, 0]);
            bridge.handle_response(now, FUNCTIONAL, LogicalAddress::new(0x4012), &[0x7E, 0]);
            assert_eq!(responses(&mut bridge), [(0x4011, vec![0x7E, 0]), (0x4012, vec![0x7E, 0])]);
        }
    }

    #[test]
    fn a_request_to_a_group_of_ecus_is_not_covered() {
        let (mut bridge, now) = (DoipBridge::new(CoverConfig::default()), Instant::now());
        assert!(bridge.handle_request(now, FUNCTIONAL, &[0x22, 0xF1, 0x90]));
        bridge.handle_sent(now, FUNCTIONAL);
        assert_eq!(bridge.poll_timeout(), None, "no response pending is due");
        // far longer than any P2*
        bridge.handle_timeout(now + Duration::from_secs(60));
        bridge.handle_failed(FUNCTIONAL);
        assert_eq!(responses(&mut bridge), []);
    }

    #[test]
    fn the_number_of_targets_per_tester_is_bounded() {
        let (mut bridge, now) = (DoipBridge::new(CoverConfig::default()), Instant::now());
        let ask = |bridge: &mut DoipBridge, target| {
            let pair = Pair { tester: TESTER, target: LogicalAddress::new(target) };
            bridge.handle_request(now, pair, &[0x3E, 0])
        };
        assert!((0..256).all(|target| ask(&mut bridge, target)));
        assert!(!ask(&mut bridge, 256));
        bridge.handle_gone(TESTER);
        assert!(ask(&mut bridge, 256));
    }
}
