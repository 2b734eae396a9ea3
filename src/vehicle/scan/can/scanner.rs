//! The scan of a CAN bus as a pure state machine.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId, FrameKind};

use super::answer::{
    extended_address_answer, fixed_addressing_answer, is_tester_present_answer, reports_movement,
    setup_answer, tp20_ecu,
};
use super::noise::Noise;
use super::pacing::Pacing;
use super::plan::{self, ScanProbe, SetupForm};
use super::resolve::Resolver;
use super::sent::{ANSWER_TIME, SentProbes};
use crate::protocol::tp20::LogicalAddress;
use crate::vehicle::scan::outcome::{ScanOutcome, ScanProgress};
use crate::vehicle::scan::report::{EcuFound, ScanProtocol};

/// How long to listen before the first question. The value is a compromise: identifiers that others use must
/// be heard, most of which occur several times a second, and a technician waits.
const LISTEN: Duration = Duration::from_millis(400);
/// The time between two requests for the vehicle's speed during a scan. A vehicle that starts to move is
/// still slow after a second, and one request a second is hardly any load.
const SPEED_EVERY: Duration = Duration::from_secs(1);
/// The longest time that questions wait for a channel that uses the same identifier: P2*, the time that an
/// ECU has for a final response (ISO 14229-2).
const MAX_HELD: Duration = Duration::from_secs(5);
/// The most TP2.0 channels that may wait to be closed; ECUs close the others by themselves. One for each
/// logical address.
const MAX_DISCONNECTS: usize = 256;

/// How a bus is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanSettings {
    /// The bus's bit rate, in bit/s, which limits the load of the scan.
    pub bit_rate: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ScanStage {
    Listening { until: Instant },
    Speed,
    Standard,
    Resolving,
    Extended,
    ExtendedAddresses,
    Tp20,
    Tp20OtherForms,
    Finished,
}

/// A scan of one bus.
///
/// After each `handle_*`, call [`Scanner::poll_transmit`] until it returns `None`, and read
/// [`Scanner::outcome`] and [`Scanner::poll_timeout`] again.
#[derive(Debug)]
pub struct Scanner {
    stage: ScanStage,
    /// The time when the stage began.
    entered_at: Instant,
    /// The stage's questions that are not sent yet.
    queue: VecDeque<ScanProbe>,
    sent: SentProbes,
    pacing: Pacing,
    noise: Noise,
    resolver: Resolver,
    /// The answer that ends the wait for answers immediately.
    expected: Option<CanId>,
    /// The earliest time of the next question.
    next_at: Option<Instant>,
    /// The time until which answers to the stage's last question may come.
    answers_until: Option<Instant>,
    /// The time since which all remaining questions have waited for channels.
    held_since: Option<Instant>,
    /// The time of the next request for the speed.
    speed_at: Instant,
    is_acknowledged: bool,
    found: BTreeMap<(CanId, Option<u8>), EcuFound>,
    /// The number of questions that were asked or skipped.
    asked: u32,
    /// The number of questions that a scan has at least.
    planned: u32,
    outcome: Option<ScanOutcome>,
}

impl Scanner {
    /// A scan that begins by listening.
    pub fn new(settings: ScanSettings, now: Instant) -> Self {
        Self {
            stage: ScanStage::Listening { until: now + LISTEN },
            entered_at: now,
            queue: VecDeque::new(),
            sent: SentProbes::default(),
            pacing: Pacing::new(settings.bit_rate, now),
            noise: Noise::default(),
            resolver: Resolver::default(),
            expected: None,
            next_at: None,
            answers_until: None,
            held_since: None,
            speed_at: now,
            is_acknowledged: false,
            found: BTreeMap::new(),
            asked: 0,
            planned: plan::count(),
            outcome: None,
        }
    }

    /// The reason why the scan has ended, once it has.
    pub fn outcome(&self) -> Option<ScanOutcome> {
        self.outcome
    }

    /// The ECUs found so far, by identifier.
    pub fn ecus(&self) -> Vec<EcuFound> {
        let mut ecus: Vec<_> = self.found.values().copied().collect();
        ecus.sort();
        ecus
    }

    /// How far the scan is.
    pub fn progress(&self) -> ScanProgress {
        let waiting = self.queue.len() + self.sent.in_flight() + self.resolver.open();
        let total = self.planned.max(self.asked + u32::try_from(waiting).unwrap_or(0));
        let done = if self.stage == ScanStage::Finished { total } else { self.asked };
        ScanProgress { done, total, found: self.found.len() }
    }

    /// The ignition is on or off, or unknown (`None`).
    pub fn handle_ignition(&mut self, ignition: Option<bool>) {
        if ignition == Some(false) {
            self.finish(ScanOutcome::IgnitionOff);
        }
    }

    /// An operator has a TP2.0 channel to this ECU, which a set-up would end. The ECU counts as found, and is
    /// not asked.
    pub fn handle_tp20_open(&mut self, ecu: LogicalAddress) {
        if self.stage == ScanStage::Finished {
            return;
        }
        self.cancel_setups(ecu);
        self.noise.exclude_tp20(ecu);
        self.add(tp20_ecu(ecu));
    }

    /// The bus went off.
    pub fn handle_bus_off(&mut self) {
        self.finish(ScanOutcome::BusOff);
    }

    /// A frame of another node.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if frame.is_error() || self.stage == ScanStage::Finished {
            return;
        }
        self.pacing.handle_frame(now, frame);
        if let ScanStage::Listening { .. } = self.stage {
            return self.noise.handle_frame(frame);
        }
        if frame.kind() == FrameKind::Remote {
            return;
        }
        self.sent.forget_old(now);
        if reports_movement(frame, self.sent.answerable()) {
            self.finish(ScanOutcome::VehicleMoves);
        }
        let id = frame.id();
        if is_tester_present_answer(frame.data()) && self.noise.allows_answer(id) {
            self.handle_answer(now, id);
        }
        if self.stage == ScanStage::ExtendedAddresses
            && let Some(ecu) = extended_address_answer(frame, self.sent.answerable())
        {
            self.add(ecu);
        }
        self.handle_setup_answer(frame);
    }

    /// The oldest frame without outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        self.is_acknowledged = true;
        if self.sent.handle_transmitted(now) {
            let is_answered = self.stage == ScanStage::Resolving && self.expected.is_none();
            self.answers_until = Some(if is_answered { now } else { now + ANSWER_TIME });
        }
    }

    /// The oldest frame without outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, _now: Instant) {
        self.sent.handle_failed();
        if !self.is_acknowledged {
            self.finish(ScanOutcome::NotAcknowledged);
        }
    }

    /// The adapter refused the newest frame: the frame was not sent.
    pub(crate) fn handle_refused(&mut self) {
        self.sent.handle_refused();
        if !self.is_acknowledged {
            self.finish(ScanOutcome::NotAcknowledged);
        }
    }

    /// The deadline of [`Scanner::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.next_at.take_if(|at| *at <= now);
        if self.sent.stuck_at().is_some_and(|at| at <= now) {
            return self.finish(ScanOutcome::NotAcknowledged);
        }
        if let ScanStage::Listening { until } = self.stage {
            if until <= now {
                self.enter(now, ScanStage::Speed);
            }
            return;
        }
        if self.speed_at <= now && self.stage != ScanStage::Finished {
            self.speed_at = now + SPEED_EVERY;
            plan::speed().for_each(|probe| self.queue.push_front(probe));
        }
        if self.held_since.is_some_and(|since| since + MAX_HELD <= now) {
            // the operator's transfers take precedence, however long they last
            self.held_since = None;
            for probe in self.queue.drain(..) {
                tracing::debug!(request = %probe.request(), "not asked: a channel uses the identifier");
            }
        }
        let is_over = self.queue.is_empty() && self.sent.in_flight() == 0;
        if is_over && self.answers_until.is_none_or(|until| until <= now) {
            self.end_stage(now);
        }
    }

    /// The next frame for the bus, unless `is_busy` returns true for its identifier because a channel uses
    /// it. Each frame needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant, is_busy: impl Fn(CanId) -> bool) -> Option<CanFrame> {
        if self.next_at.is_some_and(|at| now < at)
            || !self.sent.has_room()
            || self.stage == ScanStage::Finished
        {
            return None;
        }
        // until a node has acknowledged a frame, no node may be on the bus, or the bit rate may be wrong
        if !self.is_acknowledged && self.sent.in_flight() > 0 {
            return None;
        }
        while self.queue.front().is_some_and(|probe| self.is_needless(*probe)) {
            self.queue.pop_front();
            self.asked = self.asked.saturating_add(1);
        }
        // a question whose identifier a channel uses lets the others go first
        let free = self.queue.iter().position(|probe| !is_busy(probe.request()) && !self.is_needless(*probe));
        let Some(probe) = free.and_then(|index| self.queue.remove(index)) else {
            if !self.queue.is_empty() {
                self.held_since.get_or_insert(now);
            }
            return None;
        };
        if !matches!(probe, ScanProbe::Speed { .. }) {
            self.held_since = None;
        }
        let frame = probe.frame()?;
        self.asked = self.asked.saturating_add(1);
        self.sent.push(now, probe);
        self.next_at = Some(now + self.pacing.pause());
        Some(frame)
    }

    /// The time of the next [`Scanner::handle_timeout`], or at which [`Scanner::poll_transmit`] may return a
    /// frame.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self.stage {
            ScanStage::Listening { until } => return Some(until),
            ScanStage::Finished => return None,
            _ => {}
        }
        let held = self.held_since.map(|since| since + MAX_HELD);
        let may_send = !self.queue.is_empty() && self.sent.has_room() && self.held_since.is_none();
        let next = self.next_at.filter(|_| may_send);
        // a stage without questions is over immediately
        let is_over = self.queue.is_empty() && self.sent.in_flight() == 0;
        let over = is_over.then(|| self.answers_until.unwrap_or(self.entered_at));
        [self.sent.stuck_at(), held, next, over, Some(self.speed_at)].into_iter().flatten().min()
    }

    fn finish(&mut self, outcome: ScanOutcome) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.stage = ScanStage::Finished;
            self.queue.clear();
        }
    }

    fn handle_answer(&mut self, now: Instant, answer: CanId) {
        if answer.is_extended() {
            if let Some(ecu) = fixed_addressing_answer(answer, self.sent.answerable()) {
                self.add(ecu);
            }
            return;
        }
        match self.stage {
            ScanStage::Resolving
                if self.resolver.handle_answer_again(answer)
                    && self.expected.take_if(|id| *id == answer).is_some() =>
            {
                self.answers_until = Some(now);
                self.queue.clear();
            }
            ScanStage::Standard => {
                let requests: Vec<CanId> = self
                    .sent
                    .answerable()
                    .filter(|probe| matches!(probe, ScanProbe::TesterPresent { extended: None, .. }))
                    .map(|probe| probe.request())
                    .filter(|request| !request.is_extended())
                    .collect();
                if !requests.is_empty() {
                    self.resolver.handle_answer(answer, requests.into_iter());
                }
            }
            _ => {}
        }
    }

    fn handle_setup_answer(&mut self, frame: &CanFrame) {
        let was_heard = self.noise.was_heard(frame.id());
        let Some(answer) = setup_answer(frame, self.sent.answerable(), was_heard) else { return };
        let is_disconnect = |probe: &&ScanProbe| matches!(probe, ScanProbe::Disconnect { .. });
        if let Some(request) = answer.opened
            && self.queue.iter().filter(is_disconnect).count() < MAX_DISCONNECTS
        {
            self.queue.push_front(ScanProbe::Disconnect { request });
        }
        self.cancel_setups(answer.ecu);
        self.add(tp20_ecu(answer.ecu));
    }

    /// Removes the channel set-ups to this ECU from the queue.
    fn cancel_setups(&mut self, ecu: LogicalAddress) {
        self.queue.retain(|probe| !matches!(probe, ScanProbe::Setup { ecu: other, .. } if *other == ecu));
    }

    fn add(&mut self, ecu: EcuFound) {
        tracing::debug!(%ecu, "found an ECU");
        self.found.entry((ecu.response, ecu.extended_request_address)).or_insert(ecu);
    }

    /// The stage's questions are asked and answered.
    fn end_stage(&mut self, now: Instant) {
        match self.stage {
            ScanStage::Listening { .. } | ScanStage::Finished => {}
            ScanStage::Speed => self.enter(now, ScanStage::Standard),
            ScanStage::Standard => self.enter(now, ScanStage::Resolving),
            ScanStage::Resolving => self.resolve_next(now),
            ScanStage::Extended => self.enter(now, ScanStage::ExtendedAddresses),
            ScanStage::ExtendedAddresses => self.enter(now, ScanStage::Tp20),
            ScanStage::Tp20 => {
                let finds_tp20 = self.found.values().any(|ecu| ecu.protocol == ScanProtocol::Tp20);
                // the rarer forms only where they are likely, or where nothing else was found
                if finds_tp20 || self.found.is_empty() {
                    self.enter(now, ScanStage::Tp20OtherForms);
                } else {
                    self.finish(ScanOutcome::Done);
                }
            }
            ScanStage::Tp20OtherForms => self.finish(ScanOutcome::Done),
        }
    }

    fn enter(&mut self, now: Instant, stage: ScanStage) {
        self.stage = stage;
        self.entered_at = now;
        self.answers_until = None;
        self.sent.forget_recent();
        match stage {
            ScanStage::Speed => {
                self.speed_at = now + SPEED_EVERY;
                self.queue.extend(plan::speed());
            }
            ScanStage::Standard => {
                let has_gmlan_traffic = self.noise.has_gmlan_traffic();
                self.queue.extend(
                    plan::standard().filter(|probe| !has_gmlan_traffic || !plan::is_gmlan(probe.request())),
                );
            }
            ScanStage::Resolving => self.resolve_next(now),
            ScanStage::Extended => self.queue.extend(plan::extended()),
            ScanStage::ExtendedAddresses => {
                // an ECU with its own identifier would take these for other messages
                let is_taken =
                    |probe: &ScanProbe| self.found.values().any(|ecu| ecu.request == probe.request());
                let probes: Vec<_> = plan::extended_addresses().filter(|probe| !is_taken(probe)).collect();
                self.queue.extend(probes);
            }
            ScanStage::Tp20 => self.queue.extend(plan::tp20(&[SetupForm::Transmit])),
            ScanStage::Tp20OtherForms => {
                let found: Vec<CanId> = self.found.values().map(|ecu| ecu.response).collect();
                let is_new = |probe: &ScanProbe| match probe {
                    ScanProbe::Setup { ecu, .. } => !found.contains(&ecu.setup_response_id()),
                    _ => true,
                };
                self.queue.extend(plan::tp20(&[SetupForm::Both, SetupForm::Neither]).filter(is_new));
            }
            ScanStage::Listening { .. } | ScanStage::Finished => {}
        }
        self.queue.retain(|probe| self.noise.allows(probe));
    }

    /// Asks the next question that assigns an answer to a request; without one, the stage is over.
    fn resolve_next(&mut self, now: Instant) {
        self.answers_until = None;
        self.sent.forget_recent();
        match self.resolver.next_question() {
            Some(question) => {
                self.expected = Some(question.answer);
                let probes = question.requests.iter();
                self.queue.extend(
                    probes.map(|request| ScanProbe::TesterPresent { request: *request, extended: None }),
                );
            }
            None => {
                self.expected = None;
                let resolved: Vec<_> = self.resolver.resolved().collect();
                for (request, response) in resolved {
                    self.add(EcuFound::isotp(request, response));
                }
                self.enter(now, ScanStage::Extended);
            }
        }
    }

    /// Whether the question's identifier is known to be that of an ECU's answers, on which no ECU is asked.
    fn is_needless(&self, probe: ScanProbe) -> bool {
        let is_plain = matches!(probe, ScanProbe::TesterPresent { extended: None, .. });
        self.stage == ScanStage::Standard && is_plain && self.resolver.knows(probe.request())
    }
}
