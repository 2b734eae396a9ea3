//! Functional requests: one single frame to many ECUs, and an answer from each.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::address::{address_matches, physical_request_id};
use super::endpoint::ABANDONED_FRAMES;
use super::frame::{FrameWriter, PaddingState};
use super::in_flight::{InFlight, Owner};
use super::receiver::{Receiver, ReceiverConfig};
use super::sender::{Sender, SenderConfig};
use super::{
    Event, FrameSize, NPdu, Padding, ReceiveFailure, SendError, SendFailure, SeparationTime, Timeouts, Timer,
};

/// The longest answer to a functional request accepted by default: 64 KiB, since many may come at once.
pub const DEFAULT_MAX_ANSWER: usize = 1 << 16;

/// While so many events wait to be polled, frames of the bus are dropped; more than for one peer, as many answer.
const MAX_EVENTS: usize = 32;

/// How a [`FunctionalEndpoint`] asks, and who may answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionalConfig {
    /// The identifier of the requests.
    pub transmit: CanId,
    /// The address byte of requests and flow controls, for extended and mixed addressing.
    pub transmit_address: Option<u8>,
    /// The address byte of the answers, for extended and mixed addressing.
    pub receive_address: Option<u8>,
    /// Who may answer.
    pub responders: Responders,
    /// The frames we send; what we receive may have any size.
    pub frame_size: FrameSize,
    /// Whether short frames are filled up to 8 bytes; default enabled with 0xCC.
    pub padding: Padding,
    /// How many consecutive frames a responder may send before it waits for a flow control; default 0, all of them.
    pub block_size: u8,
    /// The separation time asked of the responders; default none.
    pub st_min: SeparationTime,
    /// The longest answer accepted, in bytes; default [`DEFAULT_MAX_ANSWER`].
    pub max_pdu: usize,
    /// How many segmented answers are collected at once; default 16. A first frame beyond that is ignored.
    pub max_receptions: usize,
    /// The N_ timers; default 1000 ms each.
    pub timeouts: Timeouts,
}

impl FunctionalConfig {
    /// Everything else as by default.
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

/// Who may answer a functional request, and where each takes its flow control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Responders {
    /// 0x7E8…0x7EF, with flow control on 0x7E0…0x7E7 (ISO 15765-4).
    Obd11,
    /// 0x18DAF1xx, with flow control on 0x18DAxxF1 (ISO 15765-4).
    Obd29,
    /// Pairs of response identifier and flow-control identifier.
    List(Vec<(CanId, CanId)>),
}

impl Responders {
    /// Where flow control for this response goes; `None` where nobody answers with this identifier.
    pub fn flow_control_id(&self, response: CanId) -> Option<CanId> {
        let raw = response.raw();
        match self {
            Self::Obd11 if !response.is_extended() && raw & !0x7 == 0x7E8 => {
                Some(physical_request_id(response))
            }
            Self::Obd29 if response.is_extended() && raw & !0xFF == 0x18DA_F100 => {
                Some(physical_request_id(response))
            }
            Self::Obd11 | Self::Obd29 => None,
            Self::List(pairs) => pairs.iter().find(|(id, _)| *id == response).map(|&(_, to)| to),
        }
    }
}

/// Asks many ECUs at once, and puts together what each answers.
#[derive(Debug)]
pub struct FunctionalEndpoint {
    config: FunctionalConfig,
    sender: Sender,
    /// Segmented answers under way, each with its number.
    receptions: Vec<(u32, Receiver)>,
    last_reception: u32,
    padding: PaddingState,
    in_flight: InFlight,
    events: VecDeque<Event>,
}

impl FunctionalEndpoint {
    /// An endpoint with nothing under way.
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

    /// How it is set up.
    pub fn config(&self) -> &FunctionalConfig {
        &self.config
    }

    /// Whether a request is under way out.
    pub fn is_sending(&self) -> bool {
        self.sender.is_sending()
    }

    /// Whether a segmented answer is under way in.
    pub fn is_receiving(&self) -> bool {
        self.receptions.iter().any(|(_, receiver)| receiver.is_receiving())
    }

    /// Begins to send a request; too long is what does not fit a single frame.
    pub fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendError> {
        self.sender.send(now, pdu)
    }

    /// Gives up what is being sent, without an event.
    pub fn abort_send(&mut self) {
        self.sender.abort();
    }

    /// Takes a frame of the bus; whether it was for this endpoint.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        if !frame.is_data() || !address_matches(self.config.receive_address, frame.data()) {
            return false;
        }
        let address = frame.id();
        let Some(flow_control_id) = self.config.responders.flow_control_id(address) else {
            return false;
        };
        if self.events.len() >= MAX_EVENTS {
            return true;
        }
        let address_bytes = usize::from(self.config.receive_address.is_some());
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
                if let Some(receiver) = self.reception_of(address) {
                    let event = receiver.interrupt();
                    self.events.extend(event);
                }
                self.events.push_back(Event::ReceptionStarted { address });
                self.events.push_back(Event::Received { address, pdu: data.to_vec() });
            }
            NPdu::FirstFrame { length, data } => {
                self.handle_first_frame(now, frame, flow_control_id, length, data);
            }
            NPdu::ConsecutiveFrame { sequence_number, data } => {
                if let Some(receiver) = self.reception_of(address) {
                    let used = address_bytes + 1 + receiver.left();
                    let event = receiver.handle_consecutive_frame(now, sequence_number, data, frame.len());
                    if matches!(event, Some(Event::Received { .. })) {
                        self.padding.observe_used(frame, used);
                    }
                    self.events.extend(event);
                }
            }
            // what is sent functionally has one frame, and waits for no flow control
            NPdu::FlowControl { .. } => {}
        }
        self.forget_idle();
        true
    }

    /// The oldest frame given out without outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        match self.in_flight.pop() {
            Some(Owner::Sender(transfer)) if transfer == self.sender.transfer() => {
                self.events.extend(self.sender.handle_transmitted(now));
            }
            Some(Owner::Receiver(reception)) => {
                if let Some(receiver) = self.reception_numbered(reception) {
                    receiver.handle_transmitted(now);
                }
            }
            _ => {}
        }
    }

    /// The oldest frame given out without outcome will not be sent; or, with [`SendFailure::BusOff`], none will.
    pub fn handle_transmit_failed(&mut self, _now: Instant, failure: SendFailure) {
        if failure == SendFailure::BusOff {
            self.in_flight.clear();
            self.events.extend(self.sender.fail(failure));
            let owing = self.receptions.iter_mut().filter(|(_, receiver)| receiver.owes_flow_control());
            let failed = owing.filter_map(|(_, receiver)| receiver.fail(ReceiveFailure::NotAcknowledged));
            self.events.extend(failed);
        } else {
            match self.in_flight.pop() {
                Some(Owner::Sender(transfer)) if transfer == self.sender.transfer() => {
                    self.events.extend(self.sender.fail(failure));
                }
                Some(Owner::Receiver(reception)) => {
                    if let Some(receiver) = self.reception_numbered(reception) {
                        let event = receiver.fail(ReceiveFailure::NotAcknowledged);
                        self.events.extend(event);
                    }
                }
                _ => {}
            }
        }
        self.forget_idle();
    }

    /// Does what is due.
    pub fn handle_timeout(&mut self, now: Instant) {
        let failed = self.receptions.iter_mut().filter_map(|(_, receiver)| receiver.handle_timeout(now));
        self.events.extend(failed);
        self.events.extend(self.sender.handle_timeout(now));
        self.forget_idle();
    }

    /// The next frame to hand to the bus, flow controls before anything else; each needs an outcome, in this order.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        let fill = self.padding.fill();
        if self.in_flight.has_room_for_flow_control() {
            for (reception, receiver) in &mut self.receptions {
                if let Some(frame) = receiver.poll_transmit(now, fill) {
                    self.in_flight.push(Owner::Receiver(*reception));
                    self.forget_idle();
                    return Some(frame);
                }
            }
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

    /// When to call [`FunctionalEndpoint::handle_timeout`], and for which timer.
    pub fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        let receptions = self.receptions.iter().filter_map(|(_, receiver)| receiver.poll_timeout());
        receptions.chain(self.sender.poll_timeout()).min_by_key(|&(deadline, _)| deadline)
    }

    /// How much memory PDUs not yet whole take, in bytes.
    #[cfg(test)]
    pub(super) fn memory(&self) -> usize {
        self.receptions.iter().map(|(_, receiver)| receiver.memory()).sum()
    }

    /// How many frames have no outcome yet, and how many events wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> (usize, usize) {
        (self.in_flight.len(), self.events.len())
    }

    fn handle_first_frame(&mut self, now: Instant, frame: &CanFrame, to: CanId, length: u32, data: &[u8]) {
        let address = frame.id();
        if let Some(index) = self.receptions.iter().position(|(_, receiver)| receiver.address() == address) {
            let (_, mut interrupted) = self.receptions.swap_remove(index);
            self.events.extend(interrupted.interrupt());
        }
        if self.receptions.len() >= self.config.max_receptions {
            tracing::debug!(%address, "first frame ignored: too many answers at once");
            return;
        }
        let writer =
            FrameWriter { id: to, address: self.config.transmit_address, frame_size: self.config.frame_size };
        let config = ReceiverConfig {
            writer,
            timeouts: self.config.timeouts,
            block_size: self.config.block_size,
            st_min: self.config.st_min,
            max_pdu: self.config.max_pdu,
        };
        let mut receiver = Receiver::new(config, address);
        self.events.push_back(Event::ReceptionStarted { address });
        self.events.extend(receiver.handle_first_frame(now, length, data, frame.len()));
        self.last_reception = self.last_reception.wrapping_add(1);
        self.receptions.push((self.last_reception, receiver));
    }

    fn reception_of(&mut self, address: CanId) -> Option<&mut Receiver> {
        self.receptions
            .iter_mut()
            .map(|(_, receiver)| receiver)
            .find(|receiver| receiver.address() == address)
    }

    fn reception_numbered(&mut self, number: u32) -> Option<&mut Receiver> {
        self.receptions.iter_mut().find(|(reception, _)| *reception == number).map(|(_, receiver)| receiver)
    }

    fn forget_idle(&mut self) {
        self.receptions.retain(|(_, receiver)| !receiver.is_idle());
    }
}
