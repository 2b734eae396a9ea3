//! The scan as a state machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use connector_hal::bus::bit_time;
use connector_hal::can::{CanFrame, CanId, FrameKind};

use super::answer::{is_tester_present_answer, speed};
use super::plan::{self, Probe, SetupForm};
use super::resolve::Resolver;
use super::{EcuFound, ScanProtocol};
use crate::protocol::tp20::{LogicalAddress, SETUP_ID, SetupMessage, SetupOpcode};

/// How long to listen before anything is asked.
const LISTEN: Duration = Duration::from_millis(400);
/// How long an ECU may take to answer: P2 is 50 ms, gateways and adapters take their time too.
const ANSWER_TIME: Duration = Duration::from_millis(100);
/// The share of the bus that questions take, as long as that leaves it as free as [`SHARE_OF_FREE`] says.
const SHARE: f64 = 0.15;
/// The most that they take of what others leave of the bus.
const SHARE_OF_FREE: f64 = 0.4;
/// The most of the bus that is taken for used by others, so that a scan ends on any bus.
const MAX_LOAD: f64 = 0.9;
/// Bits of a frame of 8 bytes with the worst stuffing.
const QUESTION_BITS: u32 = 135;
/// Over how long the load is measured.
const LOAD_WINDOW: Duration = Duration::from_millis(100);
/// How often the speed is asked for while a scan runs.
const SPEED_EVERY: Duration = Duration::from_secs(1);
/// How long a request may wait for an operator's channel that uses the same identifier.
const MAX_HELD: Duration = Duration::from_secs(5);
/// Within this, a frame must be acknowledged on the bus.
const N_AS: Duration = Duration::from_millis(1000);
/// Identifiers that are kept of what is heard; a bus has fewer.
const MAX_HEARD: usize = 4096;
/// The logical address of testers (SAE J2819).
const TESTER: u8 = 0;
/// How many frames may wait for their outcome.
const MAX_IN_FLIGHT: usize = 8;
/// TP2.0 channels that may wait to be closed; ECUs drop the others by themselves.
const MAX_DISCONNECTS: usize = 256;

/// How a bus is scanned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScanSettings {
    /// The bus's bit rate, in bit/s, by which the scan's own load is measured out.
    pub bit_rate: u32,
}

/// Why a scan ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ScanOutcome {
    /// Everything was asked.
    #[error("everything was asked")]
    Done,
    /// An ECU says that the vehicle moves.
    #[error("the vehicle moves")]
    VehicleMoves,
    /// The ignition was switched off.
    #[error("the ignition was switched off")]
    IgnitionOff,
    /// Nobody acknowledges frames.
    #[error("nobody is on the bus")]
    NotAcknowledged,
    /// The bus went off.
    #[error("the bus is off")]
    BusOff,
}

/// How far a scan is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Steps done.
    pub done: u32,
    /// Steps in all, as far as that is known yet.
    pub total: u32,
    /// ECUs found.
    pub found: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
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

#[derive(Debug, Clone, Copy)]
struct Sent {
    at: Instant,
    probe: Probe,
}

/// See the module.
#[derive(Debug)]
pub struct Scanner {
    settings: ScanSettings,
    stage: Stage,
    queue: VecDeque<Probe>,
    /// Given out, without outcome, oldest first.
    in_flight: VecDeque<Sent>,
    /// On the bus for no longer than an answer takes, and what waits for its outcome is not here.
    recent: VecDeque<Sent>,
    /// Until when the next question waits.
    next_at: Option<Instant>,
    entered_at: Instant,
    /// Until when answers to the stage's last question may come.
    answers_until: Option<Instant>,
    /// All questions that are left have waited for channels since then.
    held_since: Option<Instant>,
    speed_at: Instant,
    /// Identifiers that others sent with before anything was asked.
    heard: BTreeSet<CanId>,
    /// Identifiers that answer although nothing was asked.
    noisy: BTreeSet<CanId>,
    /// Identifiers that send what could be taken for an answer to a set-up.
    noisy_setups: BTreeSet<CanId>,
    resolver: Resolver,
    /// The answer that ends the wait for it at once.
    awaited: Option<CanId>,
    found: BTreeMap<(CanId, Option<u8>), EcuFound>,
    is_acknowledged: bool,
    load: f64,
    load_since: Instant,
    busy: Duration,
    asked: u32,
    /// Questions that a scan has at least.
    planned: u32,
    outcome: Option<ScanOutcome>,
}

impl Scanner {
    /// A scan that begins now by listening.
    pub fn new(settings: ScanSettings, now: Instant) -> Self {
        Self {
            settings,
            stage: Stage::Listening { until: now + LISTEN },
            queue: VecDeque::new(),
            in_flight: VecDeque::new(),
            recent: VecDeque::new(),
            next_at: None,
            entered_at: now,
            answers_until: None,
            held_since: None,
            speed_at: now,
            heard: BTreeSet::new(),
            noisy: BTreeSet::new(),
            noisy_setups: BTreeSet::new(),
            resolver: Resolver::default(),
            awaited: None,
            found: BTreeMap::new(),
            is_acknowledged: false,
            load: 0.0,
            load_since: now,
            busy: Duration::ZERO,
            asked: 0,
            planned: plan::count(),
            outcome: None,
        }
    }

    /// Why the scan has ended, once it has.
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
    pub fn progress(&self) -> Progress {
        let waiting =
            u32::try_from(self.queue.len() + self.in_flight.len() + self.resolver.open()).unwrap_or(0);
        let total = self.planned.max(self.asked + waiting);
        let done = if self.stage == Stage::Finished { total } else { self.asked };
        Progress { done, total, found: self.found.len() }
    }

    /// The ignition was switched off, or is on, or cannot be told.
    pub fn handle_ignition(&mut self, ignition: Option<bool>) {
        if ignition == Some(false) {
            self.finish(ScanOutcome::IgnitionOff);
        }
    }

    /// An operator has a TP2.0 channel to this ECU, which a set-up would end: it is found, and is not asked.
    pub fn handle_tp20_open(&mut self, ecu: LogicalAddress) {
        if self.stage == Stage::Finished {
            return;
        }
        self.queue.retain(|probe| !matches!(probe, Probe::Setup { ecu: other, .. } if *other == ecu));
        self.noisy_setups.insert(ecu.setup_response_id());
        self.add_tp20(ecu);
    }

    /// The bus went off.
    pub fn handle_bus_off(&mut self) {
        self.finish(ScanOutcome::BusOff);
    }

    fn finish(&mut self, outcome: ScanOutcome) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.stage = Stage::Finished;
            self.queue.clear();
        }
    }

    /// A frame of another node.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if frame.is_error() || self.stage == Stage::Finished {
            return;
        }
        self.measure_load(now, frame);
        let id = frame.id();
        let is_answer = is_tester_present_answer(frame.data());
        if let Stage::Listening { .. } = self.stage {
            if self.heard.len() < MAX_HEARD {
                self.heard.insert(id);
                if is_answer {
                    self.noisy.insert(id);
                }
                if frame.len() == 7 && SetupMessage::decode(frame.data()).is_some() {
                    self.noisy_setups.insert(id);
                }
            }
            return;
        }
        if frame.kind() == FrameKind::Remote {
            return;
        }
        self.forget_old(now);
        self.handle_speed(frame);
        if is_answer && !self.noisy.contains(&id) {
            self.handle_answer(now, id);
        }
        self.handle_extended_answer(frame);
        self.handle_setup_answer(frame);
    }

    /// What was sent so long ago that no answer to it comes any more.
    fn forget_old(&mut self, now: Instant) {
        while self.recent.front().is_some_and(|sent| sent.at + ANSWER_TIME < now) {
            self.recent.pop_front();
        }
    }

    /// What may have been heard by now: an answer can come before the word that the question was sent.
    fn asked_lately(&self) -> impl Iterator<Item = Probe> {
        self.recent.iter().chain(&self.in_flight).map(|sent| sent.probe)
    }

    fn handle_speed(&mut self, frame: &CanFrame) {
        let id = frame.id();
        let is_obd = match id.is_extended() {
            true => id.raw() & 0xFFFF_FF00 == 0x18DA_F100,
            false => (0x7E8..=0x7EF).contains(&id.raw()),
        };
        let was_asked = self.asked_lately().any(|probe| matches!(probe, Probe::Speed { .. }));
        if is_obd && was_asked && speed(frame.data()).is_some_and(|speed| speed > 0) {
            self.finish(ScanOutcome::VehicleMoves);
        }
    }

    fn handle_answer(&mut self, now: Instant, answer: CanId) {
        if answer.is_extended() {
            // normal fixed addressing: the answer names the ECU
            let address = answer.raw() & 0xFF;
            let request = CanId::extended_truncated(0x18DA_00F1 | address << 8);
            let was_asked = self.asked_lately().any(|probe| is_plain(probe, request));
            if answer.raw() & 0xFFFF_FF00 == 0x18DA_F100 && was_asked {
                self.add(EcuFound {
                    request,
                    response: answer,
                    extended_request_address: None,
                    extended_response_address: None,
                    protocol: ScanProtocol::Isotp,
                });
            }
            return;
        }
        match self.stage {
            Stage::Resolving
                if self.resolver.handle_answer_again(answer)
                    && self.awaited.take_if(|id| *id == answer).is_some() =>
            {
                self.answers_until = Some(now);
                self.queue.clear();
            }
            Stage::Standard => {
                let requests: Vec<CanId> = self
                    .asked_lately()
                    .filter(|probe| matches!(probe, Probe::TesterPresent { extended: None, .. }))
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

    fn handle_extended_answer(&mut self, frame: &CanFrame) {
        let Some((&first, rest)) = frame.data().split_first() else { return };
        if self.stage != Stage::ExtendedAddresses || !is_tester_present_answer(rest) {
            return;
        }
        let response = frame.id();
        // the answer begins with the ECU's address, or with the tester's, and then its identifier ends with the ECU's
        let fits =
            |address: u8| first == address || first == 0xF1 && response.raw() & 0xFF == u32::from(address);
        let asked = self.asked_lately().find_map(|probe| match probe {
            Probe::TesterPresent { request, extended: Some(address) } if fits(address) => {
                Some((request, address))
            }
            _ => None,
        });
        if let Some((request, address)) = asked
            && !response.is_extended()
            && response != request
        {
            self.add(EcuFound {
                request,
                response,
                extended_request_address: Some(address),
                extended_response_address: Some(first),
                protocol: ScanProtocol::Isotp,
            });
        }
    }

    fn handle_setup_answer(&mut self, frame: &CanFrame) {
        let Some(message) = SetupMessage::decode(frame.data()).filter(|_| frame.len() == 7) else { return };
        let asked = self.asked_lately().find_map(|probe| match probe {
            Probe::Setup { ecu, .. } if ecu.setup_response_id() == frame.id() => Some((probe, ecu)),
            _ => None,
        });
        let Some((probe, ecu)) = asked else { return };
        // where others send too, only what names the identifier that was asked for is an answer
        let is_answer = match message.opcode {
            SetupOpcode::Request => false,
            _ if !self.heard.contains(&frame.id()) => true,
            SetupOpcode::Positive => message.destination == TESTER && probe.is_granted_by(&message),
            SetupOpcode::Negative(_) => false,
        };
        if !is_answer {
            return;
        }
        if let (SetupOpcode::Positive, Some(request)) = (message.opcode, message.transmit)
            && self.queue.iter().filter(|probe| matches!(probe, Probe::Disconnect { .. })).count()
                < MAX_DISCONNECTS
        {
            self.queue.push_front(Probe::Disconnect { request });
        }
        let other_forms = |probe: &Probe| !matches!(probe, Probe::Setup { ecu: other, .. } if *other == ecu);
        self.queue.retain(other_forms);
        self.add_tp20(ecu);
    }

    fn add_tp20(&mut self, ecu: LogicalAddress) {
        self.add(EcuFound {
            request: SETUP_ID,
            response: ecu.setup_response_id(),
            extended_request_address: None,
            extended_response_address: None,
            protocol: ScanProtocol::Tp20,
        });
    }

    fn add(&mut self, ecu: EcuFound) {
        tracing::debug!(%ecu, "found an ECU");
        self.found.entry((ecu.response, ecu.extended_request_address)).or_insert(ecu);
    }

    /// The oldest frame given out that has no outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        self.is_acknowledged = true;
        if let Some(sent) = self.in_flight.pop_front() {
            self.forget_old(now);
            self.recent.push_back(Sent { at: now, ..sent });
            let is_answered = self.stage == Stage::Resolving && self.awaited.is_none();
            self.answers_until = Some(if is_answered { now } else { now + ANSWER_TIME });
        }
    }

    /// The oldest frame given out that has no outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, _now: Instant) {
        self.in_flight.pop_front();
        if !self.is_acknowledged {
            self.finish(ScanOutcome::NotAcknowledged);
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.next_at.take_if(|at| *at <= now);
        if self.in_flight.front().is_some_and(|sent| sent.at + N_AS <= now) {
            return self.finish(ScanOutcome::NotAcknowledged);
        }
        if let Stage::Listening { until } = self.stage {
            if until <= now {
                self.enter(now, Stage::Speed);
            }
            return;
        }
        if self.speed_at <= now && self.stage != Stage::Finished {
            self.speed_at = now + SPEED_EVERY;
            plan::speed().for_each(|probe| self.queue.push_front(probe));
        }
        if self.held_since.is_some_and(|since| since + MAX_HELD <= now) {
            // the operator's transfers go first, however long they take
            self.held_since = None;
            for probe in self.queue.drain(..) {
                tracing::debug!(request = %probe.request(), "not asked: a channel uses the identifier");
            }
        }
        let is_over = self.queue.is_empty() && self.in_flight.is_empty();
        if is_over && self.answers_until.is_none_or(|until| until <= now) {
            self.go_on(now);
        }
    }

    /// The stage's questions are asked and answered.
    fn go_on(&mut self, now: Instant) {
        match self.stage {
            Stage::Listening { .. } | Stage::Finished => {}
            Stage::Speed => self.enter(now, Stage::Standard),
            Stage::Standard => self.enter(now, Stage::Resolving),
            Stage::Resolving => self.resolve_next(now),
            Stage::Extended => self.enter(now, Stage::ExtendedAddresses),
            Stage::ExtendedAddresses => self.enter(now, Stage::Tp20),
            Stage::Tp20 => {
                let finds_tp20 = self.found.values().any(|ecu| ecu.protocol == ScanProtocol::Tp20);
                // the less usual forms only where they are likely, or where there is nothing else
                if finds_tp20 || self.found.is_empty() {
                    self.enter(now, Stage::Tp20OtherForms);
                } else {
                    self.finish(ScanOutcome::Done);
                }
            }
            Stage::Tp20OtherForms => self.finish(ScanOutcome::Done),
        }
    }

    fn enter(&mut self, now: Instant, stage: Stage) {
        self.stage = stage;
        self.entered_at = now;
        self.answers_until = None;
        self.recent.clear();
        match stage {
            Stage::Speed => {
                self.speed_at = now + SPEED_EVERY;
                self.queue.extend(plan::speed());
            }
            Stage::Standard => {
                let has_gmlan_traffic = self.heard.iter().any(|id| plan::is_gmlan(*id));
                self.queue.extend(
                    plan::standard().filter(|probe| !has_gmlan_traffic || !plan::is_gmlan(probe.request())),
                );
            }
            Stage::Resolving => self.resolve_next(now),
            Stage::Extended => self.queue.extend(plan::extended()),
            Stage::ExtendedAddresses => {
                // to an ECU with an identifier of its own, these would be something else
                let is_taken = |probe: &Probe| self.found.values().any(|ecu| ecu.request == probe.request());
                let probes: Vec<_> = plan::extended_addresses().filter(|probe| !is_taken(probe)).collect();
                self.queue.extend(probes);
            }
            Stage::Tp20 => self.queue.extend(plan::tp20(&[SetupForm::Transmit])),
            Stage::Tp20OtherForms => {
                let found: Vec<CanId> = self.found.values().map(|ecu| ecu.response).collect();
                let is_new = |probe: &Probe| match probe {
                    Probe::Setup { ecu, .. } => !found.contains(&ecu.setup_response_id()),
                    _ => true,
                };
                self.queue.extend(plan::tp20(&[SetupForm::Both, SetupForm::Neither]).filter(is_new));
            }
            Stage::Listening { .. } | Stage::Finished => {}
        }
        let (heard, noisy_setups) = (&self.heard, &self.noisy_setups);
        self.queue.retain(|probe| match probe {
            Probe::Speed { .. } => true,
            Probe::Setup { ecu, .. } => {
                !heard.contains(&probe.request()) && !noisy_setups.contains(&ecu.setup_response_id())
            }
            _ => !heard.contains(&probe.request()),
        });
    }

    fn resolve_next(&mut self, now: Instant) {
        self.answers_until = None;
        self.recent.clear();
        match self.resolver.next_question() {
            Some(question) => {
                self.awaited = Some(question.answer);
                let probes = question.requests.iter();
                self.queue
                    .extend(probes.map(|request| Probe::TesterPresent { request: *request, extended: None }));
            }
            None => {
                self.awaited = None;
                let resolved: Vec<_> = self.resolver.resolved().collect();
                for (request, response) in resolved {
                    self.add(EcuFound {
                        request,
                        response,
                        extended_request_address: None,
                        extended_response_address: None,
                        protocol: ScanProtocol::Isotp,
                    });
                }
                self.enter(now, Stage::Extended);
            }
        }
    }

    /// The next frame for the bus, unless its identifier is one that a channel is busy with; each needs an outcome.
    pub fn poll_transmit(&mut self, now: Instant, is_busy: impl Fn(CanId) -> bool) -> Option<CanFrame> {
        if self.next_at.is_some_and(|at| now < at)
            || self.in_flight.len() >= MAX_IN_FLIGHT
            || self.stage == Stage::Finished
        {
            return None;
        }
        // as long as nobody has acknowledged anything, the bus may be none, or have another bit rate
        if !self.is_acknowledged && !self.in_flight.is_empty() {
            return None;
        }
        while self.queue.front().is_some_and(|probe| self.is_needless(*probe)) {
            self.queue.pop_front();
            self.asked = self.asked.saturating_add(1);
        }
        // what a channel is busy with lets the others go first
        let free = self.queue.iter().position(|probe| !is_busy(probe.request()) && !self.is_needless(*probe));
        let Some(probe) = free.and_then(|index| self.queue.remove(index)) else {
            if !self.queue.is_empty() {
                self.held_since.get_or_insert(now);
            }
            return None;
        };
        if !matches!(probe, Probe::Speed { .. }) {
            self.held_since = None;
        }
        let frame = probe.frame()?;
        self.asked = self.asked.saturating_add(1);
        self.in_flight.push_back(Sent { at: now, probe });
        self.next_at = Some(now + self.pause());
        Some(frame)
    }

    /// Whether it is known to be an ECU's own identifier, which no ECU is asked on.
    fn is_needless(&self, probe: Probe) -> bool {
        let is_plain = matches!(probe, Probe::TesterPresent { extended: None, .. });
        self.stage == Stage::Standard && is_plain && self.resolver.knows(probe.request())
    }

    /// How long to wait from one question to the next, so that the bus is the others'.
    fn pause(&self) -> Duration {
        let free = 1.0 - self.load.min(MAX_LOAD);
        bit_time(QUESTION_BITS, self.settings.bit_rate).div_f64(SHARE.min(SHARE_OF_FREE * free))
    }

    fn measure_load(&mut self, now: Instant, frame: &CanFrame) {
        let bits = if frame.id().is_extended() { 67 } else { 47 } + 9 * frame.len();
        self.busy += bit_time(u32::try_from(bits).unwrap_or(0), self.settings.bit_rate);
        let window = now.saturating_duration_since(self.load_since);
        if window >= LOAD_WINDOW {
            self.load = self.busy.as_secs_f64() / window.as_secs_f64();
            self.busy = Duration::ZERO;
            self.load_since = now;
        }
    }

    /// When [`Scanner::handle_timeout`] is due, or [`Scanner::poll_transmit`] may give something.
    pub fn poll_timeout(&self) -> Option<Instant> {
        if let Stage::Listening { until } = self.stage {
            return Some(until);
        }
        if self.stage == Stage::Finished {
            return None;
        }
        let stuck = self.in_flight.front().map(|sent| sent.at + N_AS);
        let held = self.held_since.map(|since| since + MAX_HELD);
        let has_room = self.in_flight.len() < MAX_IN_FLIGHT && self.held_since.is_none();
        let next = self.next_at.filter(|_| !self.queue.is_empty() && has_room);
        let over = if self.queue.is_empty() && self.in_flight.is_empty() {
            // a stage without questions is over at once
            Some(self.answers_until.unwrap_or(self.entered_at))
        } else {
            None
        };
        [stuck, held, next, over, Some(self.speed_at)].into_iter().flatten().min()
    }
}

fn is_plain(probe: Probe, request: CanId) -> bool {
    probe == (Probe::TesterPresent { request, extended: None })
}
