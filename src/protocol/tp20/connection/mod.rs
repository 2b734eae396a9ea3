//! One side of a channel whose identifiers are agreed.

mod state;
mod transmission;

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::CanFrame;

use self::state::{ConnectionPhase, Due, SentFrame};
use super::presence::PeerPresence;
use super::receiver::BlockReceiver;
use super::sender::{BlockSender, Pace, TransferEnd};
use super::{
    CloseReason, ConnectionConfig, Event, Opening, Parameters, ReceiveFailure, SendError, Timer, Tpdu,
};

/// Number of waiting events from which data frames are dropped, which the peer sends again, and no PDU is accepted.
/// The caller takes the events after each call, so that only a caller that does not poll reaches this number.
const MAX_EVENTS: usize = 8;
/// Number of unanswered parameter requests after which the peer counts as gone: MNTC of the protocol.
const MAX_OFFERS: u8 = 10;
/// One side of a TP2.0 channel whose identifiers are agreed: the part that a tester and an ECU have in
/// common.
///
/// A connection is a pure state machine with the polling contract of [`Channel`](super::Channel). Unlike a
/// channel, it is not set up again once it is closed.
#[derive(Debug)]
pub struct Connection {
    config: ConnectionConfig,
    phase: ConnectionPhase,
    sender: BlockSender,
    receiver: BlockReceiver,
    due: Due,
    in_flight: VecDeque<SentFrame>,
    presence: PeerPresence,
    events: VecDeque<Event>,
}

impl Connection {
    /// Creates a connection that starts at `now`.
    pub fn new(config: ConnectionConfig, now: Instant) -> Self {
        let pace = Pace::new(&config.parameters, &config.parameters);
        let phase = match config.opening {
            Opening::Active => ConnectionPhase::Offering { sent: 0, deadline: None },
            Opening::Passive(limit) => ConnectionPhase::AwaitingOffer { deadline: now + limit },
        };
        Self {
            phase,
            sender: BlockSender::new(pace),
            receiver: BlockReceiver::new(config.max_pdu),
            due: Due::default(),
            in_flight: VecDeque::new(),
            presence: PeerPresence::new(&config, now),
            events: VecDeque::new(),
            config,
        }
    }

    /// Returns the connection's configuration.
    pub fn config(&self) -> &ConnectionConfig {
        &self.config
    }

    /// Returns whether PDUs can be sent.
    pub fn is_open(&self) -> bool {
        self.phase == ConnectionPhase::Open
    }

    /// Returns whether the connection is closed and has nothing left to send.
    pub fn is_done(&self) -> bool {
        self.phase == ConnectionPhase::Closed && !self.due.disconnect
    }

    /// Returns whether a PDU is being sent.
    pub fn is_sending(&self) -> bool {
        self.sender.is_sending()
    }

    /// Returns whether a PDU is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        self.receiver.is_receiving()
    }

    /// Starts to send a PDU once the connection is open, which ends with [`Event::Sent`] or
    /// [`Event::SendFailed`].
    ///
    /// # Errors
    ///
    /// The connection is closed, another PDU is being sent, many events have not been read, or the PDU is empty or
    /// longer than [`ConnectionConfig::max_pdu`].
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        if matches!(self.phase, ConnectionPhase::Closing { .. } | ConnectionPhase::Closed) {
            return Err(SendError::Closed);
        }
        if self.events.len() >= MAX_EVENTS {
            return Err(SendError::Busy);
        }
        self.sender.send(now, pdu, self.config.max_pdu)
    }

    /// Abandons the PDU that is being sent, without an event. This ends the connection, as the peer may have
    /// received a part of the PDU.
    pub fn abort_send(&mut self) {
        if self.sender.is_sending() {
            self.sender.abort();
            self.end(CloseReason::Requested, true);
        }
    }

    /// Disconnects.
    pub fn close(&mut self) {
        if matches!(self.phase, ConnectionPhase::Closing { .. } | ConnectionPhase::Closed) {
            return;
        }
        self.fail_all(CloseReason::Requested);
        self.due = Due { disconnect: true, ..Due::default() };
        self.phase = ConnectionPhase::Closing { deadline: None };
    }

    /// Ends the connection without waiting for the peer.
    fn end(&mut self, reason: CloseReason, notify_peer: bool) {
        if self.phase == ConnectionPhase::Closed {
            return;
        }
        self.fail_all(reason);
        self.due = Due { disconnect: notify_peer, ..Due::default() };
        self.phase = ConnectionPhase::Closed;
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

    /// Takes a frame from the bus; returns whether the frame was for this connection.
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
        self.presence.handle_heard(now);
        match (self.phase, tpdu) {
            (ConnectionPhase::Closed, _) => {}
            (_, Tpdu::Disconnect) => self.handle_disconnect(),
            (ConnectionPhase::Closing { .. }, _) => {}
            (_, Tpdu::ParametersRequest(peer)) => self.handle_offer(now, &peer),
            (_, Tpdu::ParametersResponse(peer)) => self.handle_parameters(now, peer.as_ref()),
            (_, Tpdu::ChannelTest) => self.due.parameters = true,
            (ConnectionPhase::Open, tpdu) => self.handle_transfer(now, tpdu),
            // an ECU that sends data has accepted our parameters
            (ConnectionPhase::Offering { sent: 1.., .. }, Tpdu::Data { .. }) => {
                self.open(now);
                self.handle_transfer(now, tpdu);
            }
            (ConnectionPhase::Offering { .. } | ConnectionPhase::AwaitingOffer { .. }, _) => {}
        }
        true
    }

    fn handle_disconnect(&mut self) {
        match self.phase {
            ConnectionPhase::Closing { .. } => {
                // if our disconnect was not sent yet, the peer has disconnected on its own and needs an
                // answer
                let notify_peer = self.due.disconnect;
                self.end(CloseReason::Requested, notify_peer);
            }
            _ => self.end(CloseReason::ByPeer, true),
        }
    }

    fn handle_offer(&mut self, now: Instant, peer: &Parameters) {
        self.due.parameters = true;
        if self.phase == ConnectionPhase::Open {
            // the peer's sequence numbers start at 0 again
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
        if matches!(self.phase, ConnectionPhase::Offering { sent: 1.., .. }) {
            self.open(now);
        }
    }

    fn adopt(&mut self, peer: &Parameters) {
        self.sender.set_pace(Pace::new(&self.config.parameters, peer));
        self.receiver.set_t3(peer.t3);
    }

    fn open(&mut self, now: Instant) {
        if self.phase != ConnectionPhase::Open {
            self.phase = ConnectionPhase::Open;
            self.presence.handle_used(now);
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

    fn handle_outcome(&mut self, outcome: Option<TransferEnd>) {
        match outcome {
            Some(TransferEnd::Sent { elapsed }) => self.events.push_back(Event::Sent { elapsed }),
            Some(TransferEnd::Failed(reason)) => {
                self.events.push_back(Event::SendFailed { reason });
                // the peer's next sequence number is unknown
                self.end(reason, true);
            }
            None => {}
        }
    }

    /// Handles every timer that has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        let is_due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        match self.phase {
            ConnectionPhase::Offering { sent, deadline } if is_due(deadline) => {
                if sent >= MAX_OFFERS {
                    return self.end(CloseReason::NoParameters, true);
                }
                self.phase = ConnectionPhase::Offering { sent, deadline: None };
            }
            ConnectionPhase::AwaitingOffer { deadline } if deadline <= now => {
                return self.end(CloseReason::NoParameters, true);
            }
            ConnectionPhase::Closing { deadline } if is_due(deadline) => {
                return self.end(CloseReason::Requested, false);
            }
            ConnectionPhase::Closed => return,
            _ => {}
        }
        if self.presence.is_silent(now) {
            return self.end(CloseReason::Silence, true);
        }
        if self.phase != ConnectionPhase::Open {
            return;
        }
        let outcome = self.sender.handle_timeout(now);
        self.handle_outcome(outcome);
        if self.phase == ConnectionPhase::Open && self.receiver.handle_timeout(now) {
            return self.end(CloseReason::ReceptionStopped, true);
        }
        if self.phase == ConnectionPhase::Open && self.presence.handle_timeout(now) {
            self.end(CloseReason::NoTestAnswer, true);
        }
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`Connection::handle_timeout`] is due, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let silence = self.presence.silence_at().map(|at| (at, Timer::Silence));
        let timers = match self.phase {
            ConnectionPhase::Offering { deadline, .. } => {
                [deadline.map(|at| (at, Timer::T1)), silence, None, None]
            }
            ConnectionPhase::AwaitingOffer { deadline } => [Some((deadline, Timer::T1)), silence, None, None],
            ConnectionPhase::Open => {
                let test = self.presence.poll_timeout().map(|at| (at, Timer::TCt));
                let reception = self.receiver.poll_timeout().map(|at| (at, Timer::Reception));
                [silence, test, reception, self.sender.poll_timeout()]
            }
            ConnectionPhase::Closing { deadline } => {
                [deadline.map(|at| (at, Timer::Disconnect)), None, None, None]
            }
            ConnectionPhase::Closed => [None; 4],
        };
        timers.into_iter().flatten().min_by_key(|&(deadline, _)| deadline)
    }

    /// Returns the memory of an incomplete PDU in bytes, the number of frames without an outcome, and that of
    /// waiting events.
    #[cfg(test)]
    pub(super) fn load(&self) -> (usize, usize, usize) {
        (self.receiver.memory(), self.in_flight.len(), self.events.len())
    }
}
