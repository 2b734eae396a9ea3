//! The scan of a CAN bus as a pure state machine.

mod answers;
mod stages;

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, CanId, FrameKind};

use super::acknowledgement::Acknowledgement;
use super::answer::{extended_address_answer, is_tester_present_answer, motion, tp20_ecu};
use super::noise::Noise;
use super::pacing::Pacing;
use super::plan::{self, ScanProbe};
use super::proofs::Proofs;
use super::resolve::Resolver;
use super::sent::{ANSWER_TIME, SentProbes};
use super::stage::ScanStage;
use crate::protocol::tp20::LogicalAddress;
use crate::vehicle::scan::outcome::{ScanOutcome, ScanProgress};
use crate::vehicle::scan::report::EcuFound;
use crate::vehicle::scan::request::ScanRequest;
use crate::vehicle::scan::standing::{Motion, SpeedSource, Standing};
use crate::vehicle::tester_traffic::{
    continues_foreign_transfer, is_obd_answer_id, is_obd_request_id, is_request, is_response,
};

/// How long to listen before the first question: messages that are sent once a second or less often are heard
/// too.
const LISTEN: Duration = Duration::from_secs(3);
/// The longest time of a scan, however the vehicle answers: a technician waits.
const MAX_SCAN: Duration = Duration::from_secs(15);
/// The longest time in a scan for assigning answers to requests, and for waiting for answers. It suffices for twenty
/// ECUs with unusual identifiers.
const RESOLVING: Duration = Duration::from_secs(5);
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanSettings {
    /// The bus's bit rate, in bit/s, which limits the load of the scan.
    pub bit_rate: u32,
    /// What the scan is asked to do.
    pub request: ScanRequest,
    /// Channels of a session use the bus too, so that ECUs also respond to their requests.
    pub shares_bus: bool,
}

/// A scan of one bus.
///
/// After each `handle_*`, call [`Scanner::poll_transmit`] until it returns `None`, and read
/// [`Scanner::outcome`] and [`Scanner::poll_timeout`] again. Some questions go to all ECUs, so a caller that has
/// channels on the bus does not call [`Scanner::poll_transmit`] while any of them is busy. It may withhold the
/// call for as long as it likes: the scan still ends by its deadline, if [`Scanner::handle_timeout`] is called.
#[derive(Debug)]
pub struct Scanner {
    request: ScanRequest,
    shares_bus: bool,
    stage: ScanStage,
    /// The time when the scan ends with what it found until then.
    deadline: Instant,
    /// The time until which answers are assigned to requests, so that the other stages have their time.
    resolve_until: Instant,
    /// The time when the stage began.
    entered_at: Instant,
    /// The stage's questions that are not sent yet.
    queue: VecDeque<ScanProbe>,
    sent: SentProbes,
    pacing: Pacing,
    noise: Noise,
    standing: Standing,
    /// How ECUs reported the vehicle's speed.
    speed_source: SpeedSource,
    acknowledgement: Acknowledgement,
    resolver: Resolver,
    proofs: Proofs,
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
    found: BTreeMap<(CanId, Option<u8>), EcuFound>,
    /// The number of questions that were asked or skipped.
    asked: u32,
    /// The number of questions that a scan has at least.
    planned: u32,
    /// Answers were not assigned to requests because there was no time.
    is_cut_short: bool,
    outcome: Option<ScanOutcome>,
}

impl Scanner {
    /// A scan that begins by listening.
    pub fn new(settings: ScanSettings, now: Instant) -> Self {
        let ScanSettings { bit_rate, request, shares_bus } = settings;
        let pacing = Pacing::new(bit_rate, now);
        let planned = plan::count(&request.ranges);
        let longest = LISTEN + RESOLVING + pacing.longest_pause().saturating_mul(planned);
        let deadline = now + longest.min(MAX_SCAN);
        Self {
            standing: Standing::new(request.vehicle_stands),
            request,
            shares_bus,
            stage: ScanStage::Listening { until: now + LISTEN },
            deadline,
            resolve_until: deadline,
            entered_at: now,
            queue: VecDeque::new(),
            sent: SentProbes::default(),
            pacing,
            noise: Noise::default(),
            speed_source: SpeedSource::default(),
            acknowledgement: Acknowledgement::default(),
            resolver: Resolver::default(),
            proofs: Proofs::default(),
            expected: None,
            next_at: None,
            answers_until: None,
            held_since: None,
            speed_at: now,
            found: BTreeMap::new(),
            asked: 0,
            planned,
            is_cut_short: false,
            outcome: None,
        }
    }

    /// The reason why the scan has ended, once it has.
    pub fn outcome(&self) -> Option<ScanOutcome> {
        self.outcome
    }

    /// The ECUs proved so far, by identifier.
    pub fn ecus(&self) -> Vec<EcuFound> {
        let mut ecus: Vec<_> = self.found.values().filter(|ecu| self.proofs.suffice(ecu)).copied().collect();
        ecus.sort();
        ecus
    }

    /// How far the scan is.
    pub fn progress(&self) -> ScanProgress {
        let waiting = self.queue.len() + self.sent.in_flight() + self.resolver.open();
        let total = self.planned.max(self.asked + u32::try_from(waiting).unwrap_or(0));
        let done = if self.stage == ScanStage::Finished { total } else { self.asked };
        ScanProgress { done, total, found: self.ecus().len() }
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
        self.acknowledgement.handle_heard();
        if self.is_of_another_tester(frame) {
            return self.finish(ScanOutcome::OtherTester);
        }
        if let ScanStage::Listening { .. } = self.stage {
            return self.noise.handle_frame(frame);
        }
        self.noise.handle_later_frame(frame);
        if frame.kind() == FrameKind::Remote {
            return;
        }
        self.sent.forget_old(now);
        if let Some(motion) = motion(frame, self.sent.answerable()) {
            self.handle_motion(motion, frame);
        }
        let id = frame.id();
        if is_tester_present_answer(frame.data()) && self.noise.allows_answer(id) {
            self.handle_answer(now, id);
        }
        if let Some(ecu) = extended_address_answer(frame, self.sent.answerable()) {
            self.handle_extended_address_answer(now, ecu);
        }
        self.handle_setup_answer(frame);
    }

    /// Sets whether channels of the bus may be the ones that the ECU of the next frame answers.
    pub(crate) fn set_shares_bus(&mut self, shares_bus: bool) {
        self.shares_bus = shares_bus;
    }

    /// Whether the frame is a tester's, or of a response although nothing was asked.
    fn is_of_another_tester(&self, frame: &CanFrame) -> bool {
        let is_asking = self.shares_bus || !matches!(self.stage, ScanStage::Listening { .. });
        is_obd_request_id(frame.id()) && is_request(frame)
            || !is_asking && is_obd_answer_id(frame.id()) && is_response(frame)
            || continues_foreign_transfer(frame, is_asking)
    }

    /// The oldest frame without outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        self.acknowledgement.handle_acknowledged();
        if self.sent.handle_transmitted(now) {
            let is_answered = self.stage.asks_alone() && self.expected.is_none();
            self.answers_until = Some(if is_answered { now } else { now + ANSWER_TIME });
        }
    }

    /// The oldest frame without outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, _now: Instant) {
        if self.sent.handle_failed() {
            self.handle_not_acknowledged();
        }
    }

    /// The adapter refused the newest frame: the frame was not sent. This says nothing about the bus.
    pub(crate) fn handle_refused(&mut self) {
        self.sent.handle_refused();
    }

    /// The deadline of [`Scanner::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.deadline <= now {
            return self.finish(ScanOutcome::OutOfTime);
        }
        self.next_at.take_if(|at| *at <= now);
        if self.stuck_at().is_some_and(|at| at <= now) {
            // the adapter lost a report, or the bus sleeps: the outcome of the next frame shows it
            self.sent.forget_in_flight();
            self.handle_not_acknowledged();
        }
        if let ScanStage::Listening { until } = self.stage {
            if until <= now {
                self.enter(now, ScanStage::Motion);
            }
            return;
        }
        if self.speed_at <= now && self.stage != ScanStage::Finished {
            self.ask_speed(now);
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
        let has_room = match self.acknowledgement.is_doubtful() {
            true => self.sent.in_flight() == 0,
            false => self.sent.has_room(),
        };
        let is_over = self.stage == ScanStage::Finished || self.deadline <= now;
        if self.next_at.is_some_and(|at| now < at) || !has_room || is_over {
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
        if !matches!(probe, ScanProbe::Motion { .. }) {
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
            ScanStage::Listening { until } => return Some(until.min(self.deadline)),
            ScanStage::Finished => return None,
            _ => {}
        }
        let held = self.held_since.map(|since| since + MAX_HELD);
        let may_send = !self.queue.is_empty() && self.sent.has_room() && self.held_since.is_none();
        let next = self.next_at.filter(|_| may_send);
        // a stage without questions is over immediately
        let is_over = self.queue.is_empty() && self.sent.in_flight() == 0;
        let over = is_over.then(|| self.answers_until.unwrap_or(self.entered_at));
        let always = [self.speed_at, self.deadline];
        [self.stuck_at(), held, next, over].into_iter().flatten().chain(always).min()
    }

    fn stuck_at(&self) -> Option<Instant> {
        self.sent.stuck_at(self.queue.is_empty())
    }

    fn finish(&mut self, outcome: ScanOutcome) {
        if self.outcome.is_none() {
            self.outcome = Some(outcome);
            self.stage = ScanStage::Finished;
            self.queue.clear();
        }
    }

    /// No node acknowledged the oldest frame.
    fn handle_not_acknowledged(&mut self) {
        if let Some(outcome) = self.acknowledgement.handle_failed() {
            self.finish(outcome);
        }
    }

    fn handle_motion(&mut self, motion: Motion, frame: &CanFrame) {
        self.speed_source.handle_answer(frame.data());
        self.standing.handle_motion(motion);
        if motion == Motion::Moves {
            self.finish(ScanOutcome::VehicleMoves);
        }
    }

    /// Asks for the vehicle's speed before everything else. Questions that were not sent yet are not repeated.
    fn ask_speed(&mut self, now: Instant) {
        self.speed_at = now + SPEED_EVERY;
        if matches!(self.stage, ScanStage::Motion | ScanStage::MotionByUds) {
            return;
        }
        self.queue.retain(|probe| !matches!(probe, ScanProbe::Motion { .. }));
        match self.speed_source {
            SpeedSource::Uds => plan::speed_by_uds().for_each(|probe| self.queue.push_front(probe)),
            SpeedSource::Obd | SpeedSource::None => {
                plan::speed().for_each(|probe| self.queue.push_front(probe));
            }
        }
    }
}
