//! The questions of a scan to one DoIP gateway and the ECUs behind it: a pure state machine.
//!
//! First the gateway's vehicle is asked whether it stands. Then each address that may be an ECU's gets one
//! TesterPresent. If an answer belongs to no question, each ECU that was found is asked once more, alone.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use crate::protocol::doip::LogicalAddress;
use crate::protocol::uds::TESTER_PRESENT_ANSWERED;
use crate::vehicle::scan::standing::{Motion, SPEED_BY_UDS};

/// The time that an ECU has to answer once the gateway has forwarded the question: P2 (50 ms), and twice that
/// for the gateway's way to the ECU's bus and back.
const ANSWER_TIME: Duration = Duration::from_millis(150);
/// The time that a gateway has to acknowledge a question (A_DoIP_Diagnostic_Message, ISO 13400-2).
const ACKNOWLEDGE_TIME: Duration = Duration::from_secs(2);
/// The time between two requests for the vehicle's speed during a scan. A vehicle that starts to move is still
/// slow after a second.
const SPEED_EVERY: Duration = Duration::from_secs(1);
/// The time at the end of a scan that is kept for asking the ECUs that were found once more: twenty that do not
/// answer.
const CONFIRM_TIME: Duration = Duration::from_secs(3);
/// The most questions that are sent before the gateway acknowledges them. The value is a compromise: gateways with
/// little memory refuse more (out of memory, 0x05), and with fewer, the scan would wait for round trips.
const MAX_UNACKNOWLEDGED: usize = 8;
/// The most questions that ECUs may have without having answered them: the gateway has to put each of them on
/// a bus.
const MAX_UNANSWERED: usize = 64;
/// All ECUs with OBD (functional addressing, ISO 13400-2).
const OBD_FUNCTIONAL: LogicalAddress = LogicalAddress::new(0xE400);

/// A question to send.
pub(super) struct DoipQuestion {
    pub(super) target: LogicalAddress,
    pub(super) pdu: &'static [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum GatewayPhase {
    /// The vehicle is asked whether it stands, one question after the other.
    Motion,
    /// All questions about the motion have been asked. The scan continues when an ECU of any gateway reports that the
    /// vehicle stands.
    Waiting,
    Sweep,
    /// ECUs that were found are asked once more, one after the other.
    Confirming,
    Over,
}

/// The scan behind one gateway.
///
/// After each `handle_*`, call [`GatewayScan::poll_transmit`] until it returns `None`. Each question that was sent is
/// passed to [`GatewayScan::handle_sent`], with its identifier `I`.
pub(super) struct GatewayScan<I> {
    phase: GatewayPhase,
    /// The end of the scan.
    until: Instant,
    motion: VecDeque<DoipQuestion>,
    /// Where the speed is asked during the scan.
    speed_targets: VecDeque<LogicalAddress>,
    speed_at: Option<Instant>,
    plan: Box<dyn Iterator<Item = u16> + Send>,
    /// The number of addresses that were asked, and of all addresses of the plan.
    done: u32,
    total: u32,
    /// Questions that the gateway has not acknowledged.
    unacknowledged: BTreeMap<I, LogicalAddress>,
    /// The addresses that were asked, and the time until which their answers count.
    unanswered: BTreeMap<LogicalAddress, Instant>,
    found: BTreeSet<LogicalAddress>,
    /// Found ECUs that are still to be asked once more.
    unconfirmed: VecDeque<LogicalAddress>,
    confirmed: BTreeSet<LogicalAddress>,
    /// An address answered that was not asked.
    is_doubtful: bool,
}

impl<I: Ord> GatewayScan<I> {
    /// The scan behind the gateway with this address, which ends at `until`.
    pub(super) fn new(gateway: LogicalAddress, until: Instant) -> Self {
        let targets = [OBD_FUNCTIONAL, gateway];
        Self {
            phase: GatewayPhase::Motion,
            until,
            motion: targets.map(|target| DoipQuestion { target, pdu: &SPEED_BY_UDS }).into(),
            speed_targets: targets.into(),
            speed_at: None,
            plan: plan(gateway),
            done: 0,
            total: u32::try_from(plan(gateway).count()).unwrap_or(u32::MAX),
            unacknowledged: BTreeMap::new(),
            unanswered: BTreeMap::new(),
            found: BTreeSet::new(),
            unconfirmed: VecDeque::new(),
            confirmed: BTreeSet::new(),
            is_doubtful: false,
        }
    }

    /// Whether nothing more is asked.
    pub(super) fn is_over(&self) -> bool {
        self.phase == GatewayPhase::Over
    }

    /// Whether the gateway's ECUs reported nothing about the motion, and are not scanned.
    pub(super) fn is_waiting(&self) -> bool {
        self.phase == GatewayPhase::Waiting
    }

    /// The number of addresses that were asked, and of all addresses.
    pub(super) fn progress(&self) -> (u32, u32) {
        (self.done, self.total)
    }

    /// The ECUs that are proved.
    pub(super) fn found(&self) -> impl Iterator<Item = LogicalAddress> {
        let proved = if self.is_doubtful { &self.confirmed } else { &self.found };
        proved.iter().copied()
    }

    /// The connection is lost.
    pub(super) fn handle_lost(&mut self) {
        self.phase = GatewayPhase::Over;
    }

    /// The question of [`GatewayScan::poll_transmit`] is on its way.
    pub(super) fn handle_sent(&mut self, now: Instant, id: I, target: LogicalAddress) {
        self.unacknowledged.insert(id, target);
        self.unanswered.insert(target, now + ACKNOWLEDGE_TIME);
    }

    /// The gateway passed the question on.
    pub(super) fn handle_acknowledged(&mut self, now: Instant, id: I) {
        if let Some(target) = self.unacknowledged.remove(&id) {
            self.unanswered.entry(target).and_modify(|until| *until = now + ANSWER_TIME);
        }
    }

    /// The question did not reach its ECU.
    pub(super) fn handle_failed(&mut self, id: I) {
        if let Some(target) = self.unacknowledged.remove(&id) {
            self.unanswered.remove(&target);
            self.speed_targets.retain(|other| *other != target);
        }
    }

    /// A diagnostic message arrived. Returns what it reports about the vehicle's motion.
    pub(super) fn handle_response(&mut self, source: LogicalAddress, pdu: &[u8]) -> Option<Motion> {
        let motion = Motion::parse(pdu);
        let was_asked = self.unanswered.contains_key(&source);
        // answers to a functional question come from any address
        let is_about_motion = motion.is_some() || pdu.starts_with(&[0x7F, 0x22]);
        match self.phase {
            GatewayPhase::Motion if was_asked && !is_pending(pdu) => drop(self.unanswered.remove(&source)),
            GatewayPhase::Sweep if is_about_motion => {}
            GatewayPhase::Sweep if was_asked => {
                // any answer shows that the ECU is there
                self.unanswered.remove(&source);
                self.found.insert(source);
            }
            GatewayPhase::Sweep => self.is_doubtful |= !self.found.contains(&source),
            GatewayPhase::Confirming if was_asked && !is_about_motion => {
                self.unanswered.remove(&source);
                self.confirmed.insert(source);
            }
            _ => {}
        }
        motion
    }

    /// Forgets the ECUs that have not answered in time. Returns whether there were any.
    pub(super) fn handle_timeout(&mut self, now: Instant) -> bool {
        let before = self.unanswered.len();
        self.unanswered.retain(|_, until| *until > now);
        self.unanswered.len() < before
    }

    /// The next question. `may_scan` is whether it is known that the vehicle stands.
    pub(super) fn poll_transmit(&mut self, now: Instant, may_scan: bool) -> Option<DoipQuestion> {
        self.speed_at.get_or_insert(now + SPEED_EVERY);
        loop {
            match self.phase {
                GatewayPhase::Motion if !self.is_idle() => return None,
                GatewayPhase::Motion => match self.motion.pop_front() {
                    Some(question) => return Some(question),
                    None => self.phase = GatewayPhase::Waiting,
                },
                GatewayPhase::Waiting if !may_scan => return None,
                GatewayPhase::Waiting => self.phase = GatewayPhase::Sweep,
                GatewayPhase::Sweep | GatewayPhase::Confirming if self.is_full() => return None,
                GatewayPhase::Sweep => {
                    if let Some(question) = self.speed_question(now) {
                        return Some(question);
                    }
                    let has_time = !self.is_doubtful || now + CONFIRM_TIME < self.until;
                    if let Some(address) = self.plan.next().filter(|_| has_time) {
                        self.done = self.done.saturating_add(1);
                        return Some(tester_present(LogicalAddress::new(address)));
                    }
                    if !self.unanswered.is_empty() {
                        return None;
                    }
                    self.unconfirmed = self.found.iter().copied().filter(|_| self.is_doubtful).collect();
                    self.phase = GatewayPhase::Confirming;
                }
                GatewayPhase::Confirming if !self.is_idle() => return None,
                GatewayPhase::Confirming => match self.unconfirmed.pop_front() {
                    Some(ecu) => return Some(tester_present(ecu)),
                    None => self.phase = GatewayPhase::Over,
                },
                GatewayPhase::Over => return None,
            }
        }
    }

    /// The time of the next [`GatewayScan::handle_timeout`] or [`GatewayScan::poll_transmit`], unless something
    /// happens earlier. `can_send` is whether the gateway is connected.
    pub(super) fn poll_timeout(&self, can_send: bool) -> Option<Instant> {
        let asks_speed = can_send
            && self.phase == GatewayPhase::Sweep
            && !self.is_full()
            && !self.speed_targets.is_empty();
        let speed_at = self.speed_at.filter(|_| asks_speed);
        self.unanswered.values().copied().chain(speed_at).min()
    }

    fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty() && self.unanswered.is_empty()
    }

    fn is_full(&self) -> bool {
        self.unacknowledged.len() >= MAX_UNACKNOWLEDGED || self.unanswered.len() >= MAX_UNANSWERED
    }

    /// The request for the vehicle's speed, once a second at each target.
    fn speed_question(&mut self, now: Instant) -> Option<DoipQuestion> {
        let interval = SPEED_EVERY / u32::try_from(self.speed_targets.len().max(1)).unwrap_or(1);
        if self.speed_at.is_none_or(|at| now < at) {
            return None;
        }
        let target = self.speed_targets.pop_front()?;
        self.speed_at = Some(now + interval);
        self.speed_targets.push_back(target);
        Some(DoipQuestion { target, pdu: &SPEED_BY_UDS })
    }
}

fn tester_present(target: LogicalAddress) -> DoipQuestion {
    DoipQuestion { target, pdu: &TESTER_PRESENT_ANSWERED }
}

fn is_pending(pdu: &[u8]) -> bool {
    matches!(pdu, [0x7F, _, 0x78, ..])
}

/// The addresses that may be an ECU's, each once, the likeliest first.
fn plan(gateway: LogicalAddress) -> Box<dyn Iterator<Item = u16> + Send> {
    let page = gateway.get() & 0xFF00;
    let near = (page..=page | 0xFF).filter(|address| *address != 0);
    let others = (0x1000..=0x1FFF).chain(0x0001..=0x0DFF);
    Box::new(near.chain(others.filter(move |address| address & 0xFF00 != page)))
}

#[cfg(test)]
#[path = "gateway_scan_tests.rs"]
mod tests;
