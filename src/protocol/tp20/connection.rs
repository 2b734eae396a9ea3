//! A channel whose identifiers are agreed upon, seen from either side.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::CanFrame;

use super::receiver::Receiver;
use super::sender::{Outcome, Pace, Sender};
use super::{
    CloseReason, ConnectionConfig, Event, Opening, Parameters, ReceiveFailure, SendError, Timer, Tpdu,
};

/// While so many events wait to be polled, data is dropped, so that the peer sends it again.
const MAX_EVENTS: usize = 8;
/// How many frames may wait for their outcome.
const MAX_IN_FLIGHT: usize = 16;
/// How often parameters are sent before the peer is taken for gone (MNTC is 10).
const MAX_OFFERS: u8 = 10;
/// How often the channel is tested before the peer is taken for gone (MNCT).
const MAX_TESTS: u8 = 5;
/// How long the peer may take to answer that it disconnects too.
const DISCONNECT_WAIT: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Our parameters are to be sent; T1 runs once they are on the bus.
    Offering {
        sent: u8,
        deadline: Option<Instant>,
    },
    /// Those of the peer are to come.
    AwaitingOffer {
        deadline: Instant,
    },
    Open,
    /// We disconnect, the peer is to do so too.
    Closing {
        deadline: Option<Instant>,
    },
    Closed,
}

/// What a frame without outcome is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Data { serial: u32 },
    Offer,
    Test,
    Disconnect,
    Other,
}

/// What is to be sent besides data.
#[derive(Debug, Default)]
struct Due {
    parameters: bool,
    test: bool,
    disconnect: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    phase: Phase,
    sender: Sender,
    receiver: Receiver,
    due: Due,
    in_flight: VecDeque<Sent>,
    /// When the channel is to be tested.
    test_at: Option<Instant>,
    /// Until when the test is to be answered, once it is on the bus.
    test_answer_by: Option<Instant>,
    tests: u8,
    silence_at: Option<Instant>,
    events: VecDeque<Event>,
}

impl Connection {
    /// A connection that begins now.
    pub fn new(config: ConnectionConfig, now: Instant) -> Self {
        let pace = Pace::new(&config.parameters, &config.parameters);
        let phase = match config.opening {
            Opening::Active => Phase::Offering { sent: 0, deadline: None },
            Opening::Passive(limit) => Phase::AwaitingOffer { deadline: now + limit },
        };
        Self {
            phase,
            sender: Sender::new(pace),
            receiver: Receiver::new(config.max_pdu),
            due: Due::default(),
            in_flight: VecDeque::new(),
            test_at: None,
            test_answer_by: None,
            tests: 0,
            silence_at: config.silence_limit.map(|limit| now + limit),
            events: VecDeque::new(),
            config,
        }
    }

    /// How it is set up.
    pub fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Whether PDUs can be sent.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether it is over, and nothing is left to be sent.
    pub fn is_done(&self) -> bool {
        self.phase == Phase::Closed && !self.due.disconnect
    }

    /// Whether a PDU is under way out.
    pub fn is_sending(&self) -> bool {
        self.sender.is_sending()
    }

    /// Whether a PDU is under way in.
    pub fn is_receiving(&self) -> bool {
        self.receiver.is_receiving()
    }

    /// Begins to send a PDU once the connection is open; its end is told by [`Event::Sent`] or [`Event::SendFailed`].
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Closed) {
            return Err(SendError::Closed);
        }
        self.sender.send(now, pdu, self.config.max_pdu)
    }

    /// Gives up what is being sent, without an event; as the peer may have a part of it, this ends the connection.
    pub fn abort_send(&mut self) {
        if self.sender.is_sending() {
            self.sender.abort();
            self.end(CloseReason::Requested, true);
        }
    }

    /// Disconnects.
    pub fn close(&mut self) {
        if matches!(self.phase, Phase::Closing { .. } | Phase::Closed) {
            return;
        }
        self.fail_all(CloseReason::Requested);
        self.due = Due { disconnect: true, ..Due::default() };
        self.phase = Phase::Closing { deadline: None };
    }

    /// Ends the connection without waiting for the peer.
    fn end(&mut self, reason: CloseReason, tell_peer: bool) {
        if self.phase == Phase::Closed {
            return;
        }
        self.fail_all(reason);
        self.due = Due { disconnect: tell_peer, ..Due::default() };
        self.phase = Phase::Closed;
        self.events.push_back(Event::Closed { reason });
    }

    fn fail_all(&mut self, reason: CloseReason) {
        if self.sender.is_sending() {
            self.sender.abort();
            self.events.push_back(Event::SendFailed { reason });
        }
        let failure = match reason {
            CloseReason::ReceptionStopped => ReceiveFailure::Timeout,
            _ => ReceiveFailure::Closed,
        };
        self.events.extend(self.receiver.fail(failure));
        self.receiver.take_ack();
    }

    /// Takes a frame of the bus; whether it was for this connection.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        if !frame.is_data() || frame.id() != self.config.receive {
            return false;
        }
        let tpdu = match Tpdu::decode(frame.data()) {
            Ok(tpdu) => tpdu,
            Err(error) => {
                tracing::trace!(%frame, %error, "frame ignored");
                return true;
            }
        };
        self.silence_at = self.config.silence_limit.map(|limit| now + limit);
        // whatever the peer says, it is there
        self.test_answer_by = None;
        self.tests = 0;
        match (self.phase, tpdu) {
            (Phase::Closed, _) => {}
            (_, Tpdu::Disconnect) => self.handle_disconnect(),
            (Phase::Closing { .. }, _) => {}
            (_, Tpdu::ParametersRequest(peer)) => self.handle_offer(now, &peer),
            (_, Tpdu::ParametersResponse(peer)) => self.handle_parameters(now, peer.as_ref()),
            (_, Tpdu::ChannelTest) => self.due.parameters = true,
            (Phase::Open, tpdu) => self.handle_transfer(now, tpdu),
            // an ECU that sends data has taken our parameters for agreed upon
            (Phase::Offering { sent: 1.., .. }, Tpdu::Data { .. }) => {
                self.open(now);
                self.handle_transfer(now, tpdu);
            }
            (Phase::Offering { .. } | Phase::AwaitingOffer { .. }, _) => {}
        }
        true
    }

    fn handle_disconnect(&mut self) {
        match self.phase {
            Phase::Closing { .. } => {
                // whether it is an answer or its own idea
                let tell_peer = self.due.disconnect;
                self.end(CloseReason::Requested, tell_peer);
            }
            _ => self.end(CloseReason::ByPeer, true),
        }
    }

    fn handle_offer(&mut self, now: Instant, peer: &Parameters) {
        self.due.parameters = true;
        if self.phase == Phase::Open {
            // with it, the peer counts from 0 again
            if self.sender.is_sending() {
                self.sender.abort();
                self.events.push_back(Event::SendFailed { reason: CloseReason::Restarted });
            }
            self.events.extend(self.receiver.restart());
            self.sender.restart();
        }
        self.adopt(peer);
        self.open(now);
    }

    fn handle_parameters(&mut self, now: Instant, peer: Option<&Parameters>) {
        if let Some(peer) = peer {
            self.adopt(peer);
        }
        if matches!(self.phase, Phase::Offering { sent: 1.., .. }) {
            self.open(now);
        }
    }

    fn adopt(&mut self, peer: &Parameters) {
        self.sender.set_pace(Pace::new(&self.config.parameters, peer));
        self.receiver.set_t3(peer.t3);
    }

    fn open(&mut self, now: Instant) {
        if self.phase != Phase::Open {
            self.phase = Phase::Open;
            self.test_at = self.config.test_after.map(|after| now + after);
            self.events.push_back(Event::Opened);
        }
    }

    fn handle_transfer(&mut self, now: Instant, tpdu: Tpdu<'_>) {
        match tpdu {
            Tpdu::Data { .. } if self.events.len() >= MAX_EVENTS => {}
            Tpdu::Data { wants_ack, is_last, sequence, data } => {
                let events = self.receiver.handle_data(now, wants_ack, is_last, sequence, data);
                self.events.extend(events.into_iter().flatten());
            }
            Tpdu::Ack { ready, sequence } => {
                let outcome = self.sender.handle_ack(now, ready, sequence);
                self.handle_outcome(outcome);
            }
            Tpdu::Break => self.receiver.handle_break(now),
            _ => {}
        }
    }

    fn handle_outcome(&mut self, outcome: Option<Outcome>) {
        match outcome {
            Some(Outcome::Sent { elapsed }) => self.events.push_back(Event::Sent { elapsed }),
            Some(Outcome::Failed(reason)) => {
                self.events.push_back(Event::SendFailed { reason });
                // nobody knows any more which number comes next
                self.end(reason, true);
            }
            None => {}
        }
    }

    /// The oldest frame given out without outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        let t1 = self.config.parameters.t1.longest();
        match self.in_flight.pop_front() {
            Some(Sent::Data { serial }) => self.sender.handle_transmitted(now, serial),
            Some(Sent::Offer) => {
                if let Phase::Offering { deadline: deadline @ None, .. } = &mut self.phase {
                    *deadline = Some(now + t1);
                }
            }
            // a busy ECU may miss some
            Some(Sent::Test) => self.test_answer_by = self.config.test_after.map(|after| now + after),
            Some(Sent::Disconnect) => {
                if let Phase::Closing { deadline: deadline @ None } = &mut self.phase {
                    *deadline = Some(now + DISCONNECT_WAIT);
                }
            }
            Some(Sent::Other) | None => {}
        }
    }

    /// The oldest frame given out without outcome will not be sent; or, with [`CloseReason::BusOff`], none will.
    pub fn handle_transmit_failed(&mut self, _now: Instant, reason: CloseReason) {
        if reason == CloseReason::BusOff {
            self.in_flight.clear();
            return self.end(reason, false);
        }
        match self.in_flight.pop_front() {
            Some(Sent::Data { serial }) if self.sender.is_in_flight(serial) => self.end(reason, false),
            Some(Sent::Offer | Sent::Test) if self.phase != Phase::Closed => self.end(reason, false),
            Some(Sent::Disconnect) if matches!(self.phase, Phase::Closing { .. }) => {
                self.end(CloseReason::Requested, false);
            }
            _ => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.phase {
            Phase::Offering { sent, deadline } if is_due(deadline) => {
                if sent >= MAX_OFFERS {
                    return self.end(CloseReason::NoParameters, true);
                }
                self.phase = Phase::Offering { sent, deadline: None };
            }
            Phase::AwaitingOffer { deadline } if deadline <= now => {
                return self.end(CloseReason::NoParameters, true);
            }
            Phase::Closing { deadline } if is_due(deadline) => {
                return self.end(CloseReason::Requested, false);
            }
            Phase::Closed => return,
            _ => {}
        }
        if is_due(self.silence_at) {
            return self.end(CloseReason::Silence, true);
        }
        if self.phase != Phase::Open {
            return;
        }
        let outcome = self.sender.handle_timeout(now);
        self.handle_outcome(outcome);
        if self.phase == Phase::Open && self.receiver.handle_timeout(now) {
            return self.end(CloseReason::ReceptionStopped, true);
        }
        if is_due(self.test_answer_by) {
            self.test_answer_by = None;
            self.test_at = None;
            if self.tests >= MAX_TESTS {
                return self.end(CloseReason::NoTestAnswer, true);
            }
            self.due.test = true;
        } else if self.test_answer_by.is_none() && is_due(self.test_at) {
            self.test_at = None;
            self.due.test = true;
        }
    }

    /// The next frame to hand to the bus, data after everything else; each needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return None;
        }
        let id = self.config.transmit;
        let own = self.config.parameters;
        if std::mem::take(&mut self.due.disconnect) {
            return self.give_out(now, Sent::Disconnect, Tpdu::Disconnect.encode(id));
        }
        if matches!(self.phase, Phase::Closing { .. } | Phase::Closed) {
            return None;
        }
        if let Some(sequence) = self.receiver.take_ack() {
            let ack = Tpdu::Ack { ready: true, sequence };
            return self.give_out(now, Sent::Other, ack.encode(id));
        }
        if std::mem::take(&mut self.due.parameters) {
            let response = Tpdu::ParametersResponse(Some(own));
            return self.give_out(now, Sent::Other, response.encode(id));
        }
        if let Phase::Offering { sent, deadline: None } = self.phase
            && !self.in_flight.contains(&Sent::Offer)
        {
            self.phase = Phase::Offering { sent: sent + 1, deadline: None };
            return self.give_out(now, Sent::Offer, Tpdu::ParametersRequest(own).encode(id));
        }
        if self.phase != Phase::Open {
            return None;
        }
        if std::mem::take(&mut self.due.test) {
            self.tests = self.tests.saturating_add(1);
            return self.give_out(now, Sent::Test, Tpdu::ChannelTest.encode(id));
        }
        let (tpdu, serial) = self.sender.poll_transmit(now)?;
        let frame = tpdu.encode(id);
        self.give_out(now, Sent::Data { serial }, frame)
    }

    fn give_out(&mut self, now: Instant, sent: Sent, frame: Option<CanFrame>) -> Option<CanFrame> {
        let frame = frame?;
        self.in_flight.push_back(sent);
        if self.phase == Phase::Open {
            self.test_at = self.config.test_after.map(|after| now + after);
        }
        Some(frame)
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Connection::handle_timeout`], and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let silence = self.silence_at.map(|at| (at, Timer::Silence));
        let timers = match self.phase {
            Phase::Offering { deadline, .. } => [deadline.map(|at| (at, Timer::T1)), silence, None, None],
            Phase::AwaitingOffer { deadline } => [Some((deadline, Timer::T1)), silence, None, None],
            Phase::Open => {
                let test = self.test_answer_by.or(self.test_at).map(|at| (at, Timer::TCt));
                let reception = self.receiver.poll_timeout().map(|at| (at, Timer::Reception));
                [silence, test, reception, self.sender.poll_timeout()]
            }
            Phase::Closing { deadline } => [deadline.map(|at| (at, Timer::Disconnect)), None, None, None],
            Phase::Closed => [None; 4],
        };
        timers.into_iter().flatten().min_by_key(|&(deadline, _)| deadline)
    }

    /// How much memory a PDU not yet whole takes, how many frames have no outcome, and how many events wait.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize, usize) {
        (self.receiver.memory(), self.in_flight.len(), self.events.len())
    }
}
