//! Asks the ECUs of one bus for the VIN.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::bus::BusState;
use connector_hal::can::{CanFrame, CanId};

use super::ecus::Ecus;
use super::event::{ReaderEvent, ReaderOutcome, ReaderSettings, ReaderTimer};
use super::peer::Peer;
use super::presence::Presence;
use super::probes::{HeardIds, Target, VinProbe, is_request_id, is_response_id};
use super::questions::{QuestionProgress, Questions};
use super::timing::{BUSY_PAUSE, LATENCY_ALLOWANCE};
use crate::protocol::isotp::{self, ReceiveFailure, SendFailure};
use crate::protocol::uds::{P2, P2_STAR};
use crate::vehicle::tester_traffic::{continues_foreign_transfer, is_request, is_response};
use crate::vehicle::vin::answer::{Service, VinAnswer};
use crate::vehicle::vin::report::Candidate;

/// The most frames that are ever put on a vehicle's bus: some thirty answers' flow controls and all requests.
const MAX_FRAMES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ReaderPhase {
    /// The reader only listens until the first call of [`VinReader::poll_transmit`].
    Waiting,
    AskedBus,
    Finished,
}

/// Asks the ECUs of one bus for the VIN, stage by stage: a pure state machine.
///
/// The adapter must be set to the right bit rate, or [`ReaderSettings::alive`] be false: then the reader
/// sends one frame, and nothing more unless that frame is acknowledged. The reader sends only requests for
/// the VIN and flow controls. It uses no identifier that another node uses, and asks no ECU twice for what
/// that ECU answered.
///
/// Before the first [`VinReader::poll_transmit`], the reader only listens. After that, and after every
/// `handle_*`, call [`VinReader::poll_transmit`] until it returns `None`, then [`VinReader::poll_event`]
/// until it returns `None`. Then read [`VinReader::poll_timeout`] again.
#[derive(Debug)]
pub struct VinReader {
    settings: ReaderSettings,
    phase: ReaderPhase,
    presence: Presence,
    questions: Questions,
    peers: Vec<Peer>,
    /// The peer of each frame that has no outcome yet, the oldest first.
    in_flight: VecDeque<usize>,
    ecus: Ecus,
    candidates: Vec<Candidate>,
    heard: HeardIds,
    frames_given: usize,
    is_held: bool,
    events: VecDeque<ReaderEvent>,
}

impl VinReader {
    /// A reader about to ask its first question.
    pub fn new(settings: ReaderSettings) -> Self {
        Self {
            settings,
            phase: ReaderPhase::Waiting,
            presence: Presence::new(settings.alive),
            questions: Questions::new(),
            peers: Vec::new(),
            in_flight: VecDeque::new(),
            ecus: Ecus::default(),
            candidates: Vec::new(),
            heard: HeardIds::default(),
            frames_given: 0,
            is_held: false,
            events: VecDeque::new(),
        }
    }

    /// Takes the bit rate as right although nothing was heard, because it is configured and cannot be
    /// checked. Where the adapter cannot report whether the first frame was acknowledged, asking continues
    /// unless there are errors.
    pub fn trust_bit_rate(&mut self) {
        self.presence.trust();
    }

    /// Sets whether the adapter reports when a frame was acknowledged, once that is known better.
    pub(crate) fn set_confirms_transmission(&mut self, confirms: bool) {
        self.settings.confirms_transmission = confirms;
    }

    /// The VINs so far, in the order in which they came.
    pub fn candidates(&self) -> &[Candidate] {
        &self.candidates
    }

    /// A frame of another node, or an error frame, was received.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if self.is_finished() {
            return;
        }
        if frame.is_error() {
            return self.handle_error();
        }
        self.presence.set_alive();
        if self.is_of_another_tester(frame) {
            return self.handle_other_tester();
        }
        self.heard.note(frame.id(), self.frames_given > 0);
        // an ECU that is asked alone is answered alone
        let is_physical = |peer: &&mut Peer| peer.target().response().is_some();
        let taken = self.peers.iter_mut().filter(is_physical).any(|peer| peer.handle_frame(now, frame))
            || self.heard.may_answer(frame.id())
                && self.peers.iter_mut().any(|peer| peer.handle_frame(now, frame));
        if taken || self.questions.has_queued() {
            self.advance(now);
        }
    }

    /// Whether the frame is a tester's, or of a response although nothing was asked.
    fn is_of_another_tester(&self, frame: &CanFrame) -> bool {
        let is_asking = self.frames_given > 0 || self.settings.shares_bus;
        is_request_id(frame.id()) && is_request(frame)
            || !is_asking && is_response_id(frame.id()) && is_response(frame)
            || continues_foreign_transfer(frame, is_asking)
    }

    /// Sets whether channels of the bus may be the ones that the ECU of the next frame answers.
    pub(crate) fn set_shares_bus(&mut self, shares_bus: bool) {
        self.settings.shares_bus = shares_bus;
    }

    /// Another tester was heard before the reader began: ends a reading that has not asked anything.
    pub(crate) fn handle_tester_before(&mut self) {
        if self.frames_given == 0 {
            self.handle_other_tester();
        }
    }

    /// Ends the reading: an ECU that receives requests of two testers drops one, perhaps in the middle of a transfer.
    fn handle_other_tester(&mut self) {
        tracing::info!("another tester is on the bus; the VIN is not asked for");
        let has_vin = !self.candidates.is_empty();
        self.finish(if has_vin { ReaderOutcome::Answered } else { ReaderOutcome::OtherTester });
    }

    /// Sets whether the reader begins no question, because something else needs the bus. The budget's time continues.
    pub(crate) fn set_held(&mut self, now: Instant, is_held: bool) {
        if std::mem::replace(&mut self.is_held, is_held) && !is_held {
            self.advance(now);
        }
    }

    /// A channel receives the PDU of this frame too and sends flow control, so that the reader must not.
    pub(crate) fn skip_flow_control(&mut self, now: Instant, frame: &CanFrame) {
        for peer in &mut self.peers {
            peer.skip_flow_control(now, frame);
        }
    }

    /// The oldest frame of [`VinReader::poll_transmit`] without outcome was acknowledged (or, by an adapter
    /// that does not confirm, taken).
    pub fn handle_transmitted(&mut self, now: Instant) {
        let Some(peer) = self.in_flight.pop_front() else { return };
        self.presence.handle_transmitted(self.settings.confirms_transmission);
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.handle_transmitted(now);
        }
        self.advance(now);
    }

    /// The oldest frame of [`VinReader::poll_transmit`] without outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, now: Instant) {
        let Some(peer) = self.in_flight.pop_front() else { return };
        if let Some(peer) = self.peers.get_mut(peer) {
            peer.handle_transmit_failed(now, SendFailure::NotAcknowledged);
        }
        self.advance(now);
    }

    /// The adapter refused the newest frame of [`VinReader::poll_transmit`]: the frame was not sent. This
    /// says nothing about the bus.
    pub(crate) fn handle_refused(&mut self, now: Instant) {
        let Some(index) = self.in_flight.pop_back() else { return };
        let Some(peer) = self.peers.get_mut(index) else { return };
        peer.handle_transmit_failed(now, SendFailure::NotAcknowledged);
        let events: Vec<isotp::Event> = std::iter::from_fn(|| peer.poll_event()).collect();
        for event in events {
            match event {
                isotp::Event::SendFailed { .. } => self.questions.set_progress(index, QuestionProgress::Over),
                other => self.handle_event(now, index, other),
            }
        }
        self.advance(now);
    }

    /// The controller's state changed.
    pub fn handle_bus_state(&mut self, now: Instant, state: BusState) {
        match state {
            BusState::Active => {}
            BusState::Passive => self.handle_error(),
            BusState::Off if self.candidates.is_empty() => self.finish(ReaderOutcome::NotAcknowledged),
            BusState::Off => self.finish(ReaderOutcome::Answered),
        }
        self.advance(now);
    }

    /// The deadline of [`VinReader::poll_timeout`] may have passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        for peer in &mut self.peers {
            peer.handle_timeout(now);
        }
        self.advance(now);
    }

    /// The next frame to hand to the bus; each needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        if self.phase == ReaderPhase::Waiting {
            self.phase = ReaderPhase::AskedBus;
            self.advance(now);
        }
        if self.is_finished() || self.frames_given >= MAX_FRAMES {
            return None;
        }
        let (index, frame) = self
            .peers
            .iter_mut()
            .enumerate()
            .find_map(|(index, peer)| Some((index, peer.poll_transmit(now)?)))?;
        self.in_flight.push_back(index);
        self.frames_given += 1;
        self.presence.handle_given(now);
        Some(frame)
    }

    /// The next event.
    pub fn poll_event(&mut self) -> Option<ReaderEvent> {
        self.events.pop_front()
    }

    /// The time of the next [`VinReader::handle_timeout`], and its reason.
    pub fn poll_timeout(&self) -> Option<(Instant, ReaderTimer)> {
        if self.is_finished() {
            return None;
        }
        let first_ack = self.presence.first_ack_by().map(|at| (at, ReaderTimer::NAs));
        let peers = self.peers.iter().filter_map(Peer::poll_timeout);
        [(self.settings.until, ReaderTimer::Budget)]
            .into_iter()
            .chain(first_ack)
            .chain(self.questions.deadlines())
            .chain(self.ecus.pending().map(|at| (at, ReaderTimer::P2Star)))
            .chain(peers.map(|(at, timer)| (at, ReaderTimer::Transport(timer))))
            .min_by_key(|(at, _)| *at)
    }

    fn is_finished(&self) -> bool {
        self.phase == ReaderPhase::Finished
    }

    /// An error on the bus. Before the first frame, errors are not ours.
    fn handle_error(&mut self) {
        if self.frames_given > 0 {
            self.presence.doubt();
        }
    }

    /// Continues as far as possible without waiting.
    fn advance(&mut self, now: Instant) {
        if self.phase == ReaderPhase::Waiting && now >= self.settings.until {
            // the adapter never took a frame
            return self.finish(ReaderOutcome::NotAnswered);
        }
        while self.phase == ReaderPhase::AskedBus {
            self.drain_peers(now);
            self.expire(now);
            self.send_queued(now);
            if self.is_finished() || self.is_waiting() || self.is_held {
                return;
            }
            if self.questions.has_queued() {
                // P2 of the first question passed in silence, and the adapter cannot report whether a node
                // acknowledged
                if !self.presence.is_trusted() {
                    return self.finish(ReaderOutcome::NotAcknowledged);
                }
                self.presence.set_alive();
            } else if !self.candidates.is_empty() {
                self.finish(ReaderOutcome::Answered);
            } else if !self.questions.begin_next_stage() {
                self.finish(ReaderOutcome::NotAnswered);
            }
        }
    }

    /// Ends everything whose time is over.
    fn expire(&mut self, now: Instant) {
        if self.presence.first_ack_by().is_some_and(|at| now >= at) {
            return self.finish(ReaderOutcome::NotAcknowledged);
        }
        if now >= self.settings.until {
            let has_vin = !self.candidates.is_empty();
            return self.finish(if has_vin { ReaderOutcome::Answered } else { ReaderOutcome::NotAnswered });
        }
        self.questions.expire(now);
        self.ecus.expire(now);
    }

    fn is_waiting(&self) -> bool {
        let is_under_way = self.questions.any_open() || self.ecus.any_answering();
        // once a VIN is known, only answers that are in time are awaited
        let may_come = self.candidates.is_empty()
            && (self.questions.has_repeats() || self.ecus.pending().next().is_some());
        is_under_way || may_come
    }

    fn send_queued(&mut self, now: Instant) {
        while !self.is_finished() && !self.is_held && (self.presence.is_alive() || self.questions.is_first())
        {
            let Some(probe) = self.questions.pop_queued() else { return };
            if !self.heard.allow(probe.target) || self.needs_no_question(probe) {
                continue;
            }
            let index = self.peer_of(probe.target);
            let sent = self.peers.get_mut(index).map(|peer| peer.send(now, probe.service.request()));
            if let Some(Ok(())) = sent {
                self.questions.handle_sent(probe, index);
            }
        }
    }

    fn peer_of(&mut self, target: Target) -> usize {
        let known = self.peers.iter().position(|peer| peer.target() == target);
        known.unwrap_or_else(|| {
            self.peers.push(Peer::new(target, &self.heard));
            self.peers.len() - 1
        })
    }

    /// Whether the only ECU that could answer has done so, or is about to.
    fn needs_no_question(&self, probe: VinProbe) -> bool {
        probe.target.response().is_some_and(|response| {
            self.ecus.is_answering(response) || self.ecus.has_answered(response, probe.service)
        })
    }

    fn drain_peers(&mut self, now: Instant) {
        for peer in 0..self.peers.len() {
            while let Some(event) = self.peers.get_mut(peer).and_then(Peer::poll_event) {
                self.handle_event(now, peer, event);
            }
        }
    }

    fn handle_event(&mut self, now: Instant, peer: usize, event: isotp::Event) {
        match event {
            isotp::Event::Sent { .. } => {
                self.questions.set_progress(peer, QuestionProgress::Until(now + P2 + LATENCY_ALLOWANCE));
            }
            isotp::Event::SendFailed { failure } => {
                tracing::debug!(%failure, "a request for the VIN was not sent");
                self.questions.set_progress(peer, QuestionProgress::Over);
                if !self.presence.has_transmitted() {
                    self.finish(ReaderOutcome::NotAcknowledged);
                }
            }
            isotp::Event::ReceptionStarted { address } => {
                self.questions.end_p2_of(address);
                self.ecus.answer_begins(address);
            }
            isotp::Event::Received { address, pdu } => {
                let answer = VinAnswer::parse(&pdu);
                let is_ours =
                    answer.service().is_some_and(|service| self.questions.was_asked(service, address));
                match is_ours || self.settings.shares_bus || !is_response_id(address) {
                    true => self.handle_answer(now, address, answer),
                    false => self.handle_other_tester(),
                }
            }
            isotp::Event::ReceiveFailed { address, failure } => {
                tracing::debug!(%address, %failure, "an answer was not received");
                self.ecus.answer_ends(address);
                if !matches!(failure, ReceiveFailure::Interrupted | ReceiveFailure::TooLong) {
                    self.ask_again(now, address, self.questions.service_asked_of(address));
                }
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, address: CanId, answer: VinAnswer) {
        let was_asked = |service: &Service| self.questions.was_asked(*service, address);
        let expected = answer.service().filter(was_asked);
        tracing::debug!(%address, ?answer, expected = expected.is_some(), "answer");
        let is_heard = self.ecus.answer_ends(address);
        let Some(service) = expected.filter(|service| is_heard && !self.ecus.has_answered(address, *service))
        else {
            return;
        };
        match answer {
            VinAnswer::Pending(_) => {
                let until = self.latest_answer().unwrap_or(now).min(now + P2_STAR + LATENCY_ALLOWANCE);
                return self.ecus.set_pending(address, until);
            }
            VinAnswer::Busy(_) => return self.ask_again(now + BUSY_PAUSE, address, Some(service)),
            VinAnswer::Vin(_, vin) => {
                let candidate = Candidate { vin, source: service.source(), address: address.into() };
                self.candidates.push(candidate);
                self.events.push_back(ReaderEvent::Answered(candidate));
            }
            VinAnswer::NoVin(..) | VinAnswer::Refused(..) | VinAnswer::Unrelated => {}
        }
        self.ecus.set_answered(address, service);
    }

    /// The latest time of a slow ECU's answer that leaves time to ask the others too.
    fn latest_answer(&self) -> Option<Instant> {
        self.settings.until.checked_sub((P2 + LATENCY_ALLOWANCE) * self.questions.stages_left())
    }

    fn ask_again(&mut self, at: Instant, address: CanId, service: Option<Service>) {
        let Some(service) = service else { return };
        if let Some(probe) = VinProbe::again(service, address)
            && !self.ecus.has_answered(address, service)
            && self.ecus.may_repeat(address)
        {
            self.questions.repeat(at, probe);
        }
    }

    fn finish(&mut self, outcome: ReaderOutcome) {
        if !self.is_finished() {
            let was_held = self.is_held && outcome == ReaderOutcome::NotAnswered;
            let outcome = if was_held { ReaderOutcome::Held } else { outcome };
            self.phase = ReaderPhase::Finished;
            self.peers.clear();
            self.questions.clear_queue();
            self.events.push_back(ReaderEvent::Finished(outcome));
        }
    }
}
