//! Asking the ECUs of one bus for the VIN.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{CanFrame, CanId};

use self::ecus::Ecus;
use self::link::Link;
use self::probes::{HeardIds, Probe, STAGES, Target};
use super::{Answer, Candidate, Service};
use crate::protocol::isotp;
use crate::protocol::isotp::{ReceiveFailure, SendFailure};

mod ecus;
mod event;
mod link;
mod probes;

pub use event::{Outcome, ReaderEvent, ReaderSettings, Timer};

/// How long an ECU may take to the first frame of its answer (ISO 15765-4, P2CAN).
pub const P2: Duration = Duration::from_millis(50);
/// The same after response pending (ISO 14229-2).
pub const P2_STAR: Duration = Duration::from_secs(5);
/// What adapter and bus may add to P2.
pub const LATENCY_ALLOWANCE: Duration = Duration::from_millis(20);
/// N_As of a tester that does not know yet whether anybody is there (ISO 15765-4).
const N_AS_INITIAL: Duration = Duration::from_millis(25);
/// When to ask a busy ECU again.
const BUSY_PAUSE: Duration = Duration::from_millis(50);
/// More is never put on a vehicle's bus, whatever comes from it: some thirty answers' flow controls and all requests.
const MAX_FRAMES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// On its way onto the bus.
    Sending,
    /// P2 is running.
    Until(Instant),
    Over,
}

/// A question of the current stage.
#[derive(Debug)]
struct Asked {
    probe: Probe,
    link: usize,
    progress: Progress,
}

/// Asks the ECUs of one bus for the VIN, stage by stage: a pure state machine.
///
/// The adapter must be set to the right bit rate, or [`ReaderSettings::alive`] be false: then one frame is sent, and
/// nothing more unless it is acknowledged. Nothing but requests for the VIN and flow controls is ever sent, nothing on
/// an identifier that another node uses, and no ECU is asked twice what it answered.
///
/// What is heard before the first [`Reader::poll_transmit`] is only listened to. After that, and after every `handle_*`, call [`Reader::poll_transmit`] until it gives nothing, then [`Reader::poll_event`] until it
/// gives nothing, then look at [`Reader::poll_timeout`] again.
#[derive(Debug)]
pub struct Reader {
    settings: ReaderSettings,
    stage: usize,
    links: Vec<Link>,
    /// Whose frame each one without outcome is.
    in_flight: VecDeque<usize>,
    /// Questions that wait for their turn.
    queue: VecDeque<Probe>,
    asked: Vec<Asked>,
    /// All questions ever asked.
    history: Vec<Probe>,
    repeats: Vec<(Instant, Probe)>,
    ecus: Ecus,
    candidates: Vec<Candidate>,
    heard: HeardIds,
    frames_given: usize,
    /// When the first frame must have been acknowledged.
    first_ack_by: Option<Instant>,
    transmitted: bool,
    /// Silence is no sign of a wrong bit rate.
    trusted: bool,
    /// There were errors since the first frame was sent, and nothing else.
    doubtful: bool,
    events: VecDeque<ReaderEvent>,
    started: bool,
    finished: bool,
}

impl Reader {
    /// A reader about to ask its first question.
    pub fn new(settings: ReaderSettings) -> Self {
        Self {
            settings,
            stage: 0,
            links: Vec::new(),
            in_flight: VecDeque::new(),
            queue: STAGES.first().copied().unwrap_or_default().iter().copied().collect(),
            asked: Vec::new(),
            history: Vec::new(),
            repeats: Vec::new(),
            ecus: Ecus::default(),
            candidates: Vec::new(),
            heard: HeardIds::default(),
            frames_given: 0,
            first_ack_by: None,
            transmitted: false,
            trusted: false,
            doubtful: false,
            events: VecDeque::new(),
            started: false,
            finished: false,
        }
    }

    /// Takes the bit rate as right although nothing was heard, as it is configured and nobody can find out: where the
    /// adapter can't tell whether the first frame was acknowledged, asking goes on unless there are errors.
    pub fn trust_bit_rate(&mut self) {
        self.trusted = true;
    }

    /// The adapter turned out to tell, or not to tell, when a frame was acknowledged.
    pub fn set_confirms_transmission(&mut self, confirms: bool) {
        self.settings.confirms_transmission = confirms;
    }

    /// The VINs that were told so far, in order.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// A frame of another node, or an error frame, was received.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if self.finished {
            return;
        }
        if frame.is_error() {
            self.doubtful |= self.frames_given > 0;
            return;
        }
        self.settings.alive = true;
        self.heard.note(frame.id(), self.frames_given > 0);
        // an ECU that is asked alone is answered alone
        let is_physical = |link: &&mut Link| link.target().response().is_some();
        let taken = self.links.iter_mut().filter(is_physical).any(|link| link.handle_frame(now, frame))
            || self.links.iter_mut().any(|link| link.handle_frame(now, frame));
        if taken || !self.queue.is_empty() {
            self.advance(now);
        }
    }

    /// The oldest frame given out by [`Reader::poll_transmit`] without outcome was acknowledged (or, by an adapter
    /// that does not confirm, taken).
    pub fn handle_transmitted(&mut self, now: Instant) {
        let Some(link) = self.in_flight.pop_front() else { return };
        self.transmitted = true;
        self.settings.alive |= self.settings.confirms_transmission;
        if let Some(link) = self.links.get_mut(link) {
            link.handle_transmitted(now);
        }
        self.advance(now);
    }

    /// The oldest frame given out by [`Reader::poll_transmit`] without outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, now: Instant) {
        let Some(link) = self.in_flight.pop_front() else { return };
        if let Some(link) = self.links.get_mut(link) {
            link.handle_transmit_failed(now, SendFailure::NotAcknowledged);
        }
        self.advance(now);
    }

    /// The controller's state changed.
    pub fn handle_bus_state(&mut self, now: Instant, state: BusState) {
        match state {
            BusState::Active => {}
            BusState::Passive => self.doubtful |= self.frames_given > 0,
            BusState::Off if self.candidates.is_empty() => self.finish(Outcome::NotAcknowledged),
            BusState::Off => self.finish(Outcome::Told),
        }
        self.advance(now);
    }

    /// The deadline of [`Reader::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for link in &mut self.links {
            link.handle_timeout(now);
        }
        self.advance(now);
    }

    /// The next frame to hand to the bus; each needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        if !self.started {
            self.started = true;
            self.advance(now);
        }
        if self.finished || self.frames_given >= MAX_FRAMES {
            return None;
        }
        let (index, frame) = self
            .links
            .iter_mut()
            .enumerate()
            .find_map(|(index, link)| Some((index, link.poll_transmit(now)?)))?;
        self.in_flight.push_back(index);
        self.frames_given += 1;
        if self.first_ack_by.is_none() {
            self.first_ack_by = Some(now + N_AS_INITIAL + LATENCY_ALLOWANCE);
        }
        Some(frame)
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<ReaderEvent> {
        self.events.pop_front()
    }

    /// When [`Reader::handle_timeout`] is to be called, and what for.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        if self.finished {
            return None;
        }
        let first_ack = self.awaits_first_ack().map(|at| (at, Timer::NAs));
        let answers = self.asked.iter().filter_map(|asked| match asked.progress {
            Progress::Until(at) => Some((at, Timer::P2)),
            Progress::Sending | Progress::Over => None,
        });
        let repeats = self.repeats.iter().map(|(at, _)| (*at, Timer::Repeat));
        let links = self.links.iter().filter_map(Link::poll_timeout);
        [(self.settings.until, Timer::Budget)]
            .into_iter()
            .chain(first_ack)
            .chain(answers)
            .chain(self.ecus.pending().map(|at| (at, Timer::P2Star)))
            .chain(repeats)
            .chain(links.map(|(at, timer)| (at, Timer::Transport(timer))))
            .min_by_key(|(at, _)| *at)
    }

    /// Goes as far as possible without waiting.
    fn advance(&mut self, now: Instant) {
        if !self.started && now >= self.settings.until {
            // the bus never took a frame
            return self.finish(Outcome::NotTold);
        }
        while self.started && !self.finished {
            self.drain_links(now);
            self.expire(now);
            self.send_queued(now);
            if self.finished || self.is_waiting() {
                return;
            }
            if !self.queue.is_empty() {
                // P2 of the first question passed in silence, and the adapter can't say whether it was acknowledged
                if self.doubtful || !self.trusted {
                    return self.finish(Outcome::NotAcknowledged);
                }
                self.settings.alive = true;
            } else if !self.candidates.is_empty() {
                self.finish(Outcome::Told);
            } else {
                self.begin_next_stage();
            }
        }
    }

    fn begin_next_stage(&mut self) {
        self.stage += 1;
        self.asked.clear();
        match STAGES.get(self.stage) {
            Some(probes) => self.queue.extend(*probes),
            None => self.finish(Outcome::NotTold),
        }
    }

    /// Ends what has waited long enough.
    fn expire(&mut self, now: Instant) {
        let unheard = self.awaits_first_ack().is_some_and(|at| now >= at);
        if unheard {
            return self.finish(Outcome::NotAcknowledged);
        }
        if now >= self.settings.until {
            let told = !self.candidates.is_empty();
            return self.finish(if told { Outcome::Told } else { Outcome::NotTold });
        }
        for asked in &mut self.asked {
            if matches!(asked.progress, Progress::Until(at) if now >= at) {
                asked.progress = Progress::Over;
            }
        }
        self.ecus.expire(now);
        let due = self.repeats.extract_if(.., |(at, _)| now >= *at);
        self.queue.extend(due.map(|(_, probe)| probe));
    }

    /// When the first frame must have been acknowledged, while that is not known.
    fn awaits_first_ack(&self) -> Option<Instant> {
        if self.settings.alive || self.transmitted { None } else { self.first_ack_by }
    }

    fn is_waiting(&self) -> bool {
        let is_under_way =
            self.asked.iter().any(|asked| asked.progress != Progress::Over) || self.ecus.any_answering();
        // with a VIN in hand, only those are waited for that are in time
        let may_come =
            self.candidates.is_empty() && (!self.repeats.is_empty() || self.ecus.pending().next().is_some());
        is_under_way || may_come
    }

    fn send_queued(&mut self, now: Instant) {
        while !self.finished && (self.settings.alive || self.history.is_empty()) {
            let Some(probe) = self.queue.pop_front() else { return };
            if !self.heard.allow(probe.target) || self.needs_no_question(probe) {
                continue;
            }
            let link = self.link_to(probe.target);
            let sent = self.links.get_mut(link).map(|link| link.send(now, probe.service.request()));
            if let Some(Ok(())) = sent {
                self.asked.push(Asked { probe, link, progress: Progress::Sending });
                self.history.push(probe);
            }
        }
    }

    fn link_to(&mut self, target: Target) -> usize {
        let known = self.links.iter().position(|link| link.target() == target);
        known.unwrap_or_else(|| {
            self.links.push(Link::new(target, &self.heard));
            self.links.len() - 1
        })
    }

    /// Whether the only ECU that could answer has done so, or is about to.
    fn needs_no_question(&self, probe: Probe) -> bool {
        probe.target.response().is_some_and(|response| {
            self.ecus.is_answering(response) || self.ecus.has_answered(response, probe.service)
        })
    }

    fn drain_links(&mut self, now: Instant) {
        for link in 0..self.links.len() {
            while let Some(event) = self.links.get_mut(link).and_then(Link::poll_event) {
                self.handle_event(now, link, event);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, link: usize, event: isotp::Event) {
        match event {
            isotp::Event::Sent { .. } => {
                self.set_progress(link, Progress::Until(now + P2 + LATENCY_ALLOWANCE));
            }
            isotp::Event::SendFailed { failure } => {
                tracing::debug!(%failure, "a request for the VIN was not sent");
                self.set_progress(link, Progress::Over);
                if !self.transmitted {
                    self.finish(Outcome::NotAcknowledged);
                }
            }
            isotp::Event::ReceptionStarted { address } => {
                self.end_p2_of(address);
                self.ecus.answer_begins(address);
            }
            isotp::Event::Received { address, pdu } => self.handle_answer(now, address, Answer::parse(&pdu)),
            isotp::Event::ReceiveFailed { address, failure } => {
                tracing::debug!(%address, %failure, "an answer was not received");
                self.ecus.answer_ends(address);
                if !matches!(failure, ReceiveFailure::Interrupted | ReceiveFailure::TooLong) {
                    self.ask_again(now, address, self.service_asked_of(address));
                }
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, address: CanId, answer: Answer) {
        let expected = answer.service().filter(|service| self.was_asked(*service, address));
        tracing::debug!(%address, ?answer, expected = expected.is_some(), "answer");
        let is_heard = self.ecus.answer_ends(address);
        let Some(service) = expected.filter(|service| is_heard && !self.ecus.has_answered(address, *service))
        else {
            return;
        };
        match answer {
            Answer::Pending(_) => {
                let until = self.latest_answer().unwrap_or(now).min(now + P2_STAR + LATENCY_ALLOWANCE);
                return self.ecus.set_pending(address, until);
            }
            Answer::Busy(_) => return self.ask_again(now + BUSY_PAUSE, address, Some(service)),
            Answer::Vin(_, vin) => {
                let candidate = Candidate { vin, source: service.source(), address: address.into() };
                self.candidates.push(candidate);
                self.events.push_back(ReaderEvent::Told(candidate));
            }
            Answer::NoVin(..) | Answer::Refused(..) | Answer::Unrelated => {}
        }
        self.ecus.set_answered(address, service);
    }

    /// Until when a slow ECU can be waited for, with time left to ask the others too.
    fn latest_answer(&self) -> Option<Instant> {
        let stages_left = STAGES.len().saturating_sub(self.stage + 1);
        let needed = (P2 + LATENCY_ALLOWANCE) * u32::try_from(stages_left).unwrap_or(u32::MAX);
        self.settings.until.checked_sub(needed)
    }

    fn ask_again(&mut self, at: Instant, address: CanId, service: Option<Service>) {
        let Some(service) = service else { return };
        if !self.ecus.has_answered(address, service) && self.ecus.may_repeat(address) {
            self.repeats.push((at, Probe::again(service, address)));
        }
    }

    /// What an ECU was asked last.
    fn service_asked_of(&self, address: CanId) -> Option<Service> {
        let reaches = |probe: &&Probe| probe.target.response().is_none_or(|response| response == address);
        self.history.iter().rev().find(reaches).map(|probe| probe.service)
    }

    fn was_asked(&self, service: Service, address: CanId) -> bool {
        self.history.iter().any(|probe| {
            probe.service == service && probe.target.response().is_none_or(|response| response == address)
        })
    }

    fn set_progress(&mut self, link: usize, progress: Progress) {
        let sending = |asked: &&mut Asked| asked.link == link && asked.progress == Progress::Sending;
        if let Some(asked) = self.asked.iter_mut().find(sending) {
            asked.progress = progress;
        }
    }

    /// P2 counts to the first frame of the answer; a functional request may have more answers.
    fn end_p2_of(&mut self, address: CanId) {
        for asked in &mut self.asked {
            if asked.probe.target.response() == Some(address) {
                asked.progress = Progress::Over;
            }
        }
    }

    fn finish(&mut self, outcome: Outcome) {
        if !self.finished {
            self.finished = true;
            self.links.clear();
            self.queue.clear();
            self.events.push_back(ReaderEvent::Finished(outcome));
        }
    }
}
