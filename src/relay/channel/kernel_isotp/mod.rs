//! The kernel's ISO-TP as a transport of PDUs.
//!
//! A socket carries the PDUs. It reports less than the agent's own endpoint: neither the start of a reception
//! nor which of two deadlines has passed. This transport derives both from the frames on the bus, which the
//! agent receives anyway.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::{CanFrame, IsotpEvent, IsotpOptions, IsotpReceiveError, IsotpSendError};

use super::output::receive_failed;
use super::transport::{EcuTarget, FrameTransport, PduTransport, TransportEvent};
use crate::protocol::isotp::{
    Addressing, Config, Endpoint, FrameSize, NPdu, Padding, ReceiveFailure, SendFailure,
};
use crate::relay::wire::codec::SendFailedDetail;

/// The kernel waits 1 s for a consecutive frame, then reports an error. This longer deadline applies if the
/// report is lost.
const N_CR: Duration = Duration::from_millis(1500);
/// The kernel waits 1 s for flow control after its last frame, and 2 s for a frame to be sent on the bus. A
/// timeout within this time after the last frame is therefore one of flow control.
const FLOW_CONTROL_WAIT: Duration = Duration::from_millis(1500);
/// The time within which frames of a finished PDU may still be received: they wait in the socket of the raw frames
/// while the PDU is read from its own.
const STRAGGLERS: Duration = Duration::from_millis(100);

/// A PDU that is being sent.
#[derive(Debug, Clone, Copy)]
struct Sending {
    started: Instant,
    /// When the kernel took the PDU.
    taken: Option<Instant>,
    /// When a frame of the PDU was last on the bus.
    seen: Option<Instant>,
}

/// A PDU that is being received.
#[derive(Debug, Clone, Copy)]
struct Reception {
    deadline: Instant,
    is_segmented: bool,
}

/// The kernel's ISO-TP endpoint for one channel.
#[derive(Debug)]
pub struct KernelIsotp {
    config: Config,
    addressing: Addressing,
    options: IsotpOptions,
    max_pdu: usize,
    /// The longest PDU that the kernel takes, in bytes.
    kernel_max_pdu: usize,
    n_as: Duration,
    outgoing: Option<Vec<u8>>,
    sending: Option<Sending>,
    /// The kernel is still sending a PDU that was aborted here; its outcome is ignored.
    abandoned: bool,
    /// A frame may be left in the adapter that no node acknowledges.
    is_stuck: bool,
    reception: Option<Reception>,
    /// The number of PDUs that the socket delivered before their frames were received.
    early: u32,
    stragglers_until: Option<Instant>,
    events: VecDeque<TransportEvent>,
}

impl KernelIsotp {
    /// The kernel's endpoint with this configuration; `None` if the kernel does not support it. The kernel has no padding
    /// detection, and address bytes in both directions only. Its sockets for FD frames receive no classic ones, and
    /// send flow control in FD frames always.
    pub fn new(config: &Config, kernel_max_pdu: usize) -> Option<Self> {
        let addressing = config.addressing;
        let padding = match config.padding {
            Padding::Enabled(byte) => Some(byte),
            Padding::Disabled => None,
            Padding::Detection(_) => return None,
        };
        if config.frame_size != FrameSize::Classic || addressing.is_one_sided() {
            return None;
        }
        let options = IsotpOptions {
            addresses: addressing.addresses(),
            padding,
            block_size: config.block_size,
            st_min: config.st_min.0,
            ..IsotpOptions::new(addressing.transmit_id(), addressing.receive_id())
        };
        Some(Self {
            config: config.clone(),
            addressing,
            options,
            max_pdu: config.max_pdu.min(kernel_max_pdu),
            kernel_max_pdu,
            n_as: config.timeouts.n_as,
            outgoing: None,
            sending: None,
            abandoned: false,
            is_stuck: false,
            reception: None,
            early: 0,
            stragglers_until: None,
            events: VecDeque::new(),
        })
    }

    /// The options of the socket, and the longest PDU that it takes, in bytes.
    pub fn socket(&self) -> (IsotpOptions, usize) {
        (self.options, self.max_pdu)
    }

    /// The agent's own endpoint with the same configuration.
    pub(super) fn own_endpoint(&self) -> Endpoint {
        Endpoint::new(self.config.clone())
    }

    /// The PDU that the socket should take; unchanged until [`KernelIsotp::handle_taken`].
    pub fn pdu(&self) -> Option<&[u8]> {
        self.outgoing.as_deref()
    }

    /// The socket took the PDU, or refused it.
    pub(crate) fn handle_taken(&mut self, now: Instant, taken: Result<(), IsotpSendError>) {
        self.outgoing = None;
        match taken {
            Ok(()) => {
                if let Some(sending) = &mut self.sending {
                    sending.taken = Some(now);
                }
            }
            Err(error) => self.fail(now, error),
        }
    }

    /// Handles an event of the socket.
    pub(crate) fn handle_socket(&mut self, now: Instant, event: IsotpEvent) {
        self.stragglers_until = Some(now + STRAGGLERS);
        match event {
            IsotpEvent::Received(pdu) => {
                if self.reception.take().is_none() {
                    self.early = self.early.saturating_add(1);
                    self.events.push_back(TransportEvent::ReceptionStarted);
                }
                let address = self.addressing.receive_id().to_number();
                self.events.push_back(TransportEvent::Received { address, pdu });
            }
            IsotpEvent::ReceiveFailed(error) => {
                self.reception = None;
                self.report(match error {
                    IsotpReceiveError::Timeout => ReceiveFailure::ConsecutiveFrameTimeout,
                    IsotpReceiveError::WrongSequenceNumber => ReceiveFailure::WrongSequenceNumber,
                    IsotpReceiveError::TooLong => ReceiveFailure::TooLong,
                });
            }
            IsotpEvent::Sent | IsotpEvent::SendFailed(_) if std::mem::take(&mut self.abandoned) => {}
            IsotpEvent::Sent => {
                if let Some(sending) = self.sending.take() {
                    let elapsed = now.saturating_duration_since(sending.started);
                    self.events.push_back(TransportEvent::Sent { elapsed });
                }
            }
            IsotpEvent::SendFailed(error) => self.fail(now, error),
        }
    }

    /// The socket was replaced, and the adapter has discarded all frames.
    pub fn handle_reset(&mut self) {
        self.abandoned = false;
        self.is_stuck = false;
        self.early = 0;
        if self.sending.is_some_and(|sending| sending.taken.is_some()) {
            self.abort(SendFailedDetail::NotAcknowledged);
            self.abandoned = false;
        }
    }

    /// The adapter lost received frames, perhaps those of PDUs that the socket has delivered already.
    pub(crate) fn handle_lost(&mut self) {
        self.early = 0;
    }

    /// Whether the kernel sent this frame for this transport.
    pub(crate) fn is_own_frame(&self, now: Instant, frame: &CanFrame) -> bool {
        let is_busy = self.has_pdu() || self.reception.is_some();
        self.is_from_us(frame) && (is_busy || self.stragglers_until.is_some_and(|until| now <= until))
    }

    /// Whether a frame is left in the adapter that no node acknowledges.
    pub(crate) fn is_stuck(&self) -> bool {
        self.is_stuck
    }

    /// Whether the kernel has a PDU of which a frame may not be acknowledged yet.
    pub(crate) fn has_pdu(&self) -> bool {
        self.abandoned || self.is_taken()
    }

    fn is_taken(&self) -> bool {
        self.sending.is_some_and(|sending| sending.taken.is_some())
    }

    fn is_from_us(&self, frame: &CanFrame) -> bool {
        let address = self.addressing.addresses().map(|(transmit, _)| transmit);
        frame.is_data()
            && frame.id() == self.addressing.transmit_id()
            && address.is_none_or(|address| frame.data().first() == Some(&address))
    }

    fn fail(&mut self, now: Instant, error: IsotpSendError) {
        let Some(sending) = self.sending.take() else { return };
        let detail = match error {
            IsotpSendError::Timeout => {
                let waited_for_ecu = sending.seen.is_some_and(|seen| now < seen + FLOW_CONTROL_WAIT);
                self.is_stuck |= !waited_for_ecu;
                match waited_for_ecu {
                    true => SendFailedDetail::FlowControlTimeout,
                    false => SendFailedDetail::NotAcknowledged,
                }
            }
            IsotpSendError::Overflow => SendFailedDetail::FlowControlOverflow,
            IsotpSendError::InvalidFlowStatus => SendFailedDetail::FlowControlTimeout,
            IsotpSendError::Length => SendFailedDetail::RefusedByPolicy,
            IsotpSendError::InterfaceDown => SendFailedDetail::BusOff,
        };
        self.events.push_back(TransportEvent::SendFailed { detail });
    }

    /// Aborts the PDU. The kernel cannot be notified, and may still send it.
    fn abort(&mut self, detail: SendFailedDetail) {
        if self.sending.is_some() {
            self.abort_send();
            self.events.push_back(TransportEvent::SendFailed { detail });
        }
    }

    fn report(&mut self, failure: ReceiveFailure) {
        let (detail, text) = receive_failed(failure);
        self.events.push_back(TransportEvent::ReceiveFailed { detail, text });
    }

    fn begin_reception(&mut self, now: Instant, is_segmented: bool) {
        if self.early > 0 {
            self.early -= 1;
            return;
        }
        if self.reception.is_some_and(|reception| reception.is_segmented) {
            self.report(ReceiveFailure::Interrupted);
        }
        self.reception = Some(Reception { deadline: now + N_CR, is_segmented });
        self.events.push_back(TransportEvent::ReceptionStarted);
    }

    /// When the kernel must have taken the PDU, and then, when a frame of it must have been on the bus.
    fn acknowledgement_deadline(&self) -> Option<Instant> {
        let sending = self.sending.filter(|sending| sending.seen.is_none())?;
        Some(sending.taken.unwrap_or(sending.started) + self.n_as)
    }
}

impl PduTransport for KernelIsotp {
    fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail> {
        if self.sending.is_some() {
            return Err(SendFailedDetail::QueueFull);
        }
        if pdu.is_empty() || pdu.len() > self.max_pdu {
            return Err(SendFailedDetail::RefusedByPolicy);
        }
        self.outgoing = Some(pdu.to_vec());
        self.sending = Some(Sending { started: now, taken: None, seen: None });
        Ok(())
    }

    fn abort_send(&mut self) {
        self.outgoing = None;
        self.abandoned |= self.is_taken();
        self.sending = None;
    }

    fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if let Some(reception) = self.reception.take_if(|reception| reception.deadline <= now)
            && reception.is_segmented
        {
            self.report(ReceiveFailure::ConsecutiveFrameTimeout);
        }
        if self.acknowledgement_deadline().is_some_and(|at| at <= now) {
            // a PDU that the kernel has not taken has left nothing in the adapter
            self.is_stuck |= self.is_taken();
            self.abort(SendFailedDetail::NotAcknowledged);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let reception = self.reception.map(|reception| reception.deadline);
        reception.into_iter().chain(self.acknowledgement_deadline()).min()
    }

    fn handle_bus_off(&mut self, _now: Instant) {
        self.abort(SendFailedDetail::BusOff);
    }

    fn is_receiving(&self) -> bool {
        self.reception.is_some()
    }

    fn has_begun(&self) -> bool {
        self.outgoing.is_none()
    }
}

impl FrameTransport for KernelIsotp {
    fn target(&self) -> Option<EcuTarget> {
        Some(EcuTarget::of(&self.addressing))
    }

    fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        if self.is_from_us(frame) {
            if let Some(sending) = self.sending.as_mut().filter(|sending| sending.taken.is_some()) {
                sending.seen = Some(now);
            }
            return false;
        }
        if !self.addressing.accepts(frame) {
            return false;
        }
        match NPdu::decode(frame.data(), self.addressing.address_bytes()) {
            Ok(NPdu::SingleFrame { .. }) => self.begin_reception(now, false),
            Ok(NPdu::FirstFrame { length, .. }) => {
                self.begin_reception(now, true);
                if usize::try_from(length).is_ok_and(|length| length > self.kernel_max_pdu) {
                    // the kernel answers with overflow, which the socket does not report
                    self.reception = None;
                    self.report(ReceiveFailure::TooLong);
                }
            }
            Ok(NPdu::ConsecutiveFrame { .. }) => {
                if let Some(reception) = &mut self.reception {
                    reception.deadline = now + N_CR;
                }
            }
            Ok(NPdu::FlowControl { .. }) | Err(_) => {}
        }
        true
    }

    fn handle_transmitted(&mut self, _now: Instant) {}

    fn handle_transmit_failed(&mut self, _now: Instant, _failure: SendFailure) {}

    fn poll_transmit(&mut self, _now: Instant) -> Option<CanFrame> {
        None
    }

    fn is_receiving_from(&self, frame: &CanFrame) -> bool {
        self.is_receiving() && self.addressing.accepts(frame)
    }

    fn may_be_answered_by(&self, frame: &CanFrame) -> bool {
        self.addressing.accepts(frame)
    }
}

#[cfg(test)]
mod tests;
