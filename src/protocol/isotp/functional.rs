//! The endpoint for functional requests: one single frame to many ECUs, and an answer from each.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::endpoint::ABANDONED_FRAMES;
use super::frame::{FrameWriter, PaddingState};
use super::in_flight::{FrameOwner, InFlight};
use super::receiver::{Receiver, ReceiverConfig};
use super::responders::{Responder, Responders};
use super::sender::{Sender, SenderConfig};
use super::{
    Event, FrameSize, NPdu, Padding, ReceiveFailure, SendError, SendFailure, SeparationTime, Timeouts, Timer,
};

/// Default of the longest answer to a functional request: 64 KiB, because many answers may arrive
/// simultaneously.
pub(crate) const DEFAULT_MAX_ANSWER: usize = 1 << 16;

/// Number of waiting events from which frames of the bus are dropped. It is four times as high as for one peer, because
/// many ECUs answer at the same time.
const MAX_EVENTS: usize = 32;

/// Configuration of a [`FunctionalEndpoint`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionalConfig {
    /// Identifier of the requests.
    pub transmit: CanId,
    /// Address byte of requests, for extended and mixed addressing.
    pub transmit_address: Option<u8>,
    /// Address byte of answers from an OBD range, for extended and mixed addressing.
    pub receive_address: Option<u8>,
    /// The ECUs that may answer.
    pub responders: Responders,
    /// Type and size of the frames to send. Flow control has the type of the frame that it answers. Received frames
    /// may have any type and size.
    pub frame_size: FrameSize,
    /// Padding of short frames to 8 bytes; by default enabled with 0xCC.
    pub padding: Padding,
    /// Number of consecutive frames that an ECU may send before it waits for a flow control; by default 0, no
    /// limit.
    pub block_size: u8,
    /// Separation time that the ECUs are asked to keep; by default none.
    pub st_min: SeparationTime,
    /// Longest answer accepted, in bytes; by default 64 KiB.
    pub max_pdu: usize,
    /// Number of segmented answers that are received simultaneously; by default 16. Further first frames are
    /// ignored.
    pub max_receptions: usize,
    /// The N_ timers; by default 1000 ms each.
    pub timeouts: Timeouts,
}

impl FunctionalConfig {
    /// Creates a configuration with all other fields at their defaults.
    pub fn new(transmit: CanId, responders: Responders) -> Self {
        Self {
            transmit,
            transmit_address: None,
            receive_address: None,
            responders,
            frame_size: FrameSize::Classic,
            padding: Padding::default(),
            block_size: 0,
            st_min: SeparationTime::default(),
            max_pdu: DEFAULT_MAX_ANSWER,
            max_receptions: 16,
            timeouts: Timeouts::default(),
        }
    }
}

/// A segmented answer that is being received.
#[derive(Debug)]
struct Reception {
    number: u32,
    responder: Responder,
    receiver: Receiver,
}

/// Sends a request to many ECUs in one frame, and reassembles the answer of each ECU (ISO 15765-2).
///
/// A functional endpoint is a pure state machine with the polling contract of [`Endpoint`](super::Endpoint).
/// The `address` of an event is the identifier of the ECU's frames.
#[derive(Debug)]
pub struct FunctionalEndpoint {
    config: FunctionalConfig,
    sender: Sender,
    receptions: Vec<Reception>,
    last_reception: u32,
    padding: PaddingState,
    in_flight: InFlight,
    events: VecDeque<Event>,
}

impl FunctionalEndpoint {
    /// Creates an idle endpoint.
    pub fn new(config: FunctionalConfig) -> Self {
        let writer = FrameWriter {
            id: config.transmit,
            address: config.transmit_address,
            frame_size: config.frame_size,
        };
        let sender = Sender::new(SenderConfig {
            writer,
            timeouts: config.timeouts,
            max_pdu: writer.max_single_frame(),
            max_wait_frames: 0,
            window: 1,
        });
        Self {
            sender,
            receptions: Vec::new(),
            last_reception: 0,
            padding: PaddingState::new(config.padding),
            in_flight: InFlight::new(ABANDONED_FRAMES),
            events: VecDeque::new(),
            config,
        }
    }

    /// Returns the endpoint's configuration.
    pub fn config(&self) -> &FunctionalConfig {
        &self.config
    }

    /// Returns whether a request is being sent.
    pub fn is_sending(&self) -> bool {
        self.sender.is_sending()
    }

    /// Returns whether a segmented answer is being received.
    #[cfg(test)]
    pub(super) fn is_receiving(&self) -> bool {
        self.receptions.iter().any(|reception| reception.receiver.is_receiving())
    }

    /// Starts to send a request, which ends with [`Event::Sent`] or [`Event::SendFailed`].
    ///
    /// # Errors
    ///
    /// Another request is being sent, or the request is empty or does not fit a single frame.
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        // events that the caller does not read must not accumulate
        if self.events.len() >= MAX_EVENTS {
            return Err(SendError::Busy);
        }
        self.sender.send(now, pdu)
    }

    /// Abandons the request that is being sent, without an event.
    pub fn abort_send(&mut self) {
        self.sender.abort();
    }

    /// Takes a frame from the bus; returns whether the frame was for this endpoint.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        let Some(responder) = self.responder_of(frame) else { return false };
        let address = frame.id();
        if self.events.len() >= MAX_EVENTS {
            return true;
        }
        let address_bytes = usize::from(responder.response_address.is_some());
        let n_pdu = match NPdu::decode(frame.data(), address_bytes) {
            Ok(n_pdu) => n_pdu,
            Err(error) => {
                tracing::trace!(%frame, %error, "frame ignored");
                return true;
            }
        };
        self.padding.observe(frame, &n_pdu, address_bytes);
        match n_pdu {
            NPdu::SingleFrame { data } => {
                if let Some(receiver) = self.reception_of(&responder) {
                    let event = receiver.interrupt();
                    self.events.extend(event);
                }
                self.events.push_back(Event::ReceptionStarted { address });
                self.events.push_back(Event::Received { address, pdu: data.to_vec() });
            }
            NPdu::FirstFrame { length, data } => {
                self.handle_first_frame(now, frame, responder, length, data);
            }
            NPdu::ConsecutiveFrame { sequence_number, data } => {
                if let Some(receiver) = self.reception_of(&responder) {
                    let used = address_bytes + 1 + receiver.left();
                    let event = receiver.handle_consecutive_frame(now, sequence_number, data, frame.len());
                    if matches!(event, Some(Event::Received { .. })) {
                        self.padding.observe_used(frame, used);
                    }
                    self.events.extend(event);
                }
            }
            // a functional request has one frame and needs no flow control
            NPdu::FlowControl { .. } => {}
        }
        self.remove_idle();
        true
    }

    /// Reports that another endpoint receives the PDU of this frame too, and sends flow control: an ECU must get only
    /// one.
    pub(crate) fn skip_flow_control(&mut self, now: Instant, frame: &CanFrame) {
        if let Some(responder) = self.responder_of(frame)
            && let Some(receiver) = self.reception_of(&responder)
        {
            receiver.skip_flow_control(now);
            self.remove_idle();
        }
    }

    /// Reports that the oldest frame without an outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        match self.in_flight.pop() {
            Some(FrameOwner::Sender(transfer)) if transfer == self.sender.transfer() => {
                self.events.extend(self.sender.handle_transmitted(now));
            }
            Some(FrameOwner::Receiver(reception)) => {
                if let Some(receiver) = self.reception_numbered(reception) {
                    receiver.handle_transmitted(now);
                }
            }
            _ => {}
        }
    }

    /// Reports that the oldest frame without an outcome will not be sent, or with [`SendFailure::BusOff`]
    /// that none will.
    pub fn handle_transmit_failed(&mut self, _now: Instant, failure: SendFailure) {
        if failure == SendFailure::BusOff {
            self.in_flight.clear();
            self.events.extend(self.sender.fail(failure));
            let owing = self.receptions.iter_mut().filter(|reception| reception.receiver.owes_flow_control());
            let failed =
                owing.filter_map(|reception| reception.receiver.fail(ReceiveFailure::NotAcknowledged));
            self.events.extend(failed);
        } else {
            match self.in_flight.pop() {
                Some(FrameOwner::Sender(transfer)) if transfer == self.sender.transfer() => {
                    self.events.extend(self.sender.fail(failure));
                }
                Some(FrameOwner::Receiver(reception)) => {
                    if let Some(receiver) = self.reception_numbered(reception) {
                        let event = receiver.fail(ReceiveFailure::NotAcknowledged);
                        self.events.extend(event);
                    }
                }
                _ => {}
            }
        }
        self.remove_idle();
    }

    /// Handles every timer that has expired.
    pub fn handle_timeout(&mut self, now: Instant) {
        let failed =
            self.receptions.iter_mut().filter_map(|reception| reception.receiver.handle_timeout(now));
        self.events.extend(failed);
        self.events.extend(self.sender.handle_timeout(now));
        self.remove_idle();
    }

    /// Returns the next frame to send, flow controls first. Each frame needs an outcome, in this order.
    ///
    /// A segmented answer of an ECU without an address for flow control ends here, unless
    /// [`skip_flow_control`](Self::skip_flow_control) has been called for it.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        self.fail_unaddressed();
        let fill = self.padding.fill();
        if self.in_flight.has_room_for_flow_control() {
            for Reception { number, receiver, .. } in &mut self.receptions {
                if let Some(frame) = receiver.poll_transmit(now, fill) {
                    self.in_flight.push(FrameOwner::Receiver(*number));
                    self.remove_idle();
                    return Some(frame);
                }
            }
        }
        if !self.in_flight.has_room_for_data() {
            return None;
        }
        let frame = self.sender.poll_transmit(now, fill)?;
        self.in_flight.push(FrameOwner::Sender(self.sender.transfer()));
        Some(frame)
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when [`FunctionalEndpoint::handle_timeout`] is due, and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let receptions = self.receptions.iter().filter_map(|reception| reception.receiver.poll_timeout());
        receptions.chain(self.sender.poll_timeout()).min_by_key(|&(deadline, _)| deadline)
    }

    /// Returns the memory that incomplete PDUs use, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.receptions.iter().map(|reception| reception.receiver.memory()).sum()
    }

    /// Returns the number of frames without an outcome and the number of waiting events.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.in_flight.len(), self.events.len())
    }

    /// The ECU that sent the frame, if it may answer.
    fn responder_of(&self, frame: &CanFrame) -> Option<Responder> {
        let FunctionalConfig { transmit_address, receive_address, .. } = self.config;
        self.config.responders.sender_of(frame, transmit_address, receive_address).filter(|_| frame.is_data())
    }

    fn handle_first_frame(
        &mut self,
        now: Instant,
        frame: &CanFrame,
        responder: Responder,
        length: u32,
        data: &[u8],
    ) {
        let address = frame.id();
        if let Some(index) = self.receptions.iter().position(|reception| reception.responder == responder) {
            let mut interrupted = self.receptions.swap_remove(index);
            self.events.extend(interrupted.receiver.interrupt());
        }
        if self.receptions.len() >= self.config.max_receptions {
            tracing::debug!(%address, "first frame ignored: too many simultaneous answers");
            return;
        }
        let frame_size = self.config.frame_size;
        let writer =
            responder.flow_control.map(|to| FrameWriter { id: to.id, address: to.address, frame_size });
        let config = ReceiverConfig {
            writer,
            timeouts: self.config.timeouts,
            block_size: self.config.block_size,
            st_min: self.config.st_min,
            max_pdu: self.config.max_pdu,
        };
        let mut receiver = Receiver::new(config, address);
        self.events.push_back(Event::ReceptionStarted { address });
        self.events.extend(receiver.handle_first_frame(now, frame, length, data));
        self.last_reception = self.last_reception.wrapping_add(1);
        self.receptions.push(Reception { number: self.last_reception, responder, receiver });
    }

    /// Ends the answers that await flow control for which no address is known.
    fn fail_unaddressed(&mut self) {
        let unaddressed = self.receptions.iter_mut().filter(|reception| {
            reception.responder.flow_control.is_none() && reception.receiver.owes_flow_control()
        });
        let failed =
            unaddressed.filter_map(|reception| reception.receiver.fail(ReceiveFailure::NoFlowControlAddress));
        self.events.extend(failed);
        self.remove_idle();
    }

    fn reception_of(&mut self, responder: &Responder) -> Option<&mut Receiver> {
        let reception = self.receptions.iter_mut().find(|reception| reception.responder == *responder);
        reception.map(|reception| &mut reception.receiver)
    }

    fn reception_numbered(&mut self, number: u32) -> Option<&mut Receiver> {
        let reception = self.receptions.iter_mut().find(|reception| reception.number == number);
        reception.map(|reception| &mut reception.receiver)
    }

    fn remove_idle(&mut self) {
        self.receptions.retain(|reception| !reception.receiver.is_idle());
    }
}
