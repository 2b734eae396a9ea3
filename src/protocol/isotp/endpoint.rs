//! One peer, both directions.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::CanFrame;

use super::frame::{FrameWriter, PaddingState};
use super::in_flight::{InFlight, Owner};
use super::receiver::{Receiver, ReceiverConfig};
use super::sender::{Sender, SenderConfig};
use super::{Config, Event, NPdu, ReceiveFailure, SendError, SendFailure, Timer};

/// While so many events wait to be polled, frames of the bus are dropped.
const MAX_EVENTS: usize = 8;
/// How many frames of given-up transfers may wait for their outcome, besides a transfer's own.
pub(super) const ABANDONED_FRAMES: usize = 16;

/// Point to point: one sender and one receiver, at work at the same time.
#[derive(Debug)]
pub struct Endpoint {
    config: Config,
    sender: Sender,
    receiver: Receiver,
    /// The number of the reception; flow controls of another are not ours any more.
    reception: u32,
    padding: PaddingState,
    in_flight: InFlight,
    events: VecDeque<Event>,
}

impl Endpoint {
    /// An endpoint with nothing under way.
    pub fn new(config: Config) -> Self {
        let addressing = config.addressing;
        let writer = FrameWriter {
            id: addressing.transmit_id(),
            address: addressing.transmit_address(),
            frame_size: config.frame_size,
        };
        let sender = Sender::new(SenderConfig {
            writer,
            timeouts: config.timeouts,
            max_pdu: config.max_pdu,
            max_wait_frames: config.max_wait_frames,
            window: config.window,
        });
        let receiver = ReceiverConfig {
            writer,
            timeouts: config.timeouts,
            block_size: config.block_size,
            st_min: config.st_min,
            max_pdu: config.max_pdu,
        };
        Self {
            sender,
            receiver: Receiver::new(receiver, addressing.receive_id()),
            reception: 0,
            padding: PaddingState::new(config.padding),
            in_flight: InFlight::new(config.window.max(1).saturating_add(ABANDONED_FRAMES)),
            events: VecDeque::new(),
            config,
        }
    }

    /// How it is set up.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether a PDU is under way out.
    pub fn is_sending(&self) -> bool {
        self.sender.is_sending()
    }

    /// Whether a PDU is under way in.
    pub fn is_receiving(&self) -> bool {
        self.receiver.is_receiving()
    }

    /// Begins to send a PDU; its end is told by [`Event::Sent`] or [`Event::SendFailed`].
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        self.sender.send(now, pdu)
    }

    /// Gives up what is being sent, without an event.
    pub fn abort_send(&mut self) {
        self.sender.abort();
    }

    /// Takes a frame of the bus; whether it was for this endpoint.
    ///
    /// A frame for it that makes no sense at this point is ignored, as the standard has it (ISO 15765-2, 9.8.3).
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        if !self.config.addressing.accepts(frame) {
            return false;
        }
        if self.events.len() >= MAX_EVENTS {
            return true;
        }
        let address_bytes = self.config.addressing.receive_address_bytes();
        let n_pdu = match NPdu::decode(frame.data(), address_bytes) {
            Ok(n_pdu) => n_pdu,
            Err(error) => {
                tracing::trace!(%frame, %error, "frame ignored");
                return true;
            }
        };
        self.padding.observe(frame, &n_pdu, address_bytes);
        let address = frame.id();
        match n_pdu {
            NPdu::SingleFrame { data } => {
                self.events.extend(self.receiver.interrupt());
                self.events.push_back(Event::ReceptionStarted { address });
                self.events.push_back(Event::Received { address, pdu: data.to_vec() });
            }
            NPdu::FirstFrame { length, data } => {
                self.events.extend(self.receiver.interrupt());
                self.reception = self.reception.wrapping_add(1);
                self.events.push_back(Event::ReceptionStarted { address });
                self.events.extend(self.receiver.handle_first_frame(now, length, data, frame.len()));
            }
            NPdu::ConsecutiveFrame { sequence_number, data } => {
                let used = address_bytes + 1 + self.receiver.left();
                let event = self.receiver.handle_consecutive_frame(now, sequence_number, data, frame.len());
                if matches!(event, Some(Event::Received { .. })) {
                    self.padding.observe_used(frame, used);
                }
                self.events.extend(event);
            }
            NPdu::FlowControl { status, block_size, st_min } => {
                self.events.extend(self.sender.handle_flow_control(now, status, block_size, st_min));
            }
        }
        true
    }

    /// The oldest frame given out without outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        match self.in_flight.pop() {
            Some(Owner::Sender(transfer)) if transfer == self.sender.transfer() => {
                self.events.extend(self.sender.handle_transmitted(now));
            }
            Some(Owner::Receiver(reception)) if reception == self.reception => {
                self.receiver.handle_transmitted(now);
            }
            _ => {}
        }
    }

    /// The oldest frame given out without outcome will not be sent; or, with [`SendFailure::BusOff`], none will.
    pub fn handle_transmit_failed(&mut self, _now: Instant, failure: SendFailure) {
        if failure == SendFailure::BusOff {
            self.in_flight.clear();
            self.events.extend(self.sender.fail(failure));
            if self.receiver.owes_flow_control() {
                self.events.extend(self.receiver.fail(ReceiveFailure::NotAcknowledged));
            }
            return;
        }
        match self.in_flight.pop() {
            Some(Owner::Sender(transfer)) if transfer == self.sender.transfer() => {
                self.events.extend(self.sender.fail(failure));
            }
            Some(Owner::Receiver(reception)) if reception == self.reception => {
                self.events.extend(self.receiver.fail(ReceiveFailure::NotAcknowledged));
            }
            _ => {}
        }
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.events.extend(self.receiver.handle_timeout(now));
        self.events.extend(self.sender.handle_timeout(now));
    }

    /// The next frame to hand to the bus, a flow control before anything else; each needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        let fill = self.padding.fill();
        if self.in_flight.has_room_for_flow_control()
            && let Some(frame) = self.receiver.poll_transmit(now, fill)
        {
            self.in_flight.push(Owner::Receiver(self.reception));
            return Some(frame);
        }
        if !self.in_flight.has_room_for_data() {
            return None;
        }
        let frame = self.sender.poll_transmit(now, fill)?;
        self.in_flight.push(Owner::Sender(self.sender.transfer()));
        Some(frame)
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When to call [`Endpoint::handle_timeout`], and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let timers = [self.receiver.poll_timeout(), self.sender.poll_timeout()];
        timers.into_iter().flatten().min_by_key(|&(deadline, _)| deadline)
    }

    /// How much memory PDUs not yet whole take, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.receiver.memory()
    }

    /// How many frames have no outcome yet, and how many events wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.in_flight.len(), self.events.len())
    }
}
