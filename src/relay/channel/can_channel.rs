//! The channels of a CAN bus: raw frames, and PDUs over CAN frames.

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::keep_alive::KeepAliveHold;
use super::kernel_isotp::KernelIsotp;
use super::output::{KeepAliveStop, Output, PduToSend, detail_of, receive_failed};
use super::pdu_channel::PduChannel;
use super::raw_channel::RawChannel;
use super::transport::{EcuTarget, FrameTransport, OpenFailure, PduTransport, TransportEvent};
use crate::policy::{BusPolicy, Framing, IntentTarget};
use crate::protocol::isotp::{Endpoint, Event, FunctionalEndpoint, SendError, SendFailure};
use crate::relay::wire::codec::{PduFlags, SendFailedDetail};

/// A channel of a CAN bus.
#[derive(Debug)]
pub enum CanChannel {
    /// A channel of frames.
    Raw(RawChannel),
    /// A channel of PDUs whose frames the agent makes.
    Pdu(Box<PduChannel<dyn FrameTransport>>),
    /// A channel of PDUs whose frames the kernel makes.
    Kernel(Box<PduChannel<KernelIsotp>>),
}

/// Matches a channel; both kinds of PDU channels share one arm.
macro_rules! by_kind {
    ($channel:expr, $raw:pat => $of_raw:expr, $pdus:ident => $of_pdus:expr) => {
        match $channel {
            CanChannel::Raw($raw) => $of_raw,
            CanChannel::Pdu($pdus) => $of_pdus,
            CanChannel::Kernel($pdus) => $of_pdus,
        }
    };
}

impl CanChannel {
    /// Handles a frame of another node, or an error frame.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        by_kind!(self, raw => raw.handle_frame(now, frame), pdus => pdus.handle_frame(now, frame));
    }

    /// Sends a PDU of the operator.
    pub(crate) fn handle_pdu(&mut self, now: Instant, pdu: PduToSend<'_>) {
        by_kind!(self, raw => raw.refuse(), pdus => pdus.handle_pdu(now, pdu));
    }

    /// Has every PDU or frame of the operator judged by the policy of this bus.
    /// `target` and `framing` are those of its PDUs.
    pub fn set_policy(&mut self, policy: &BusPolicy, target: IntentTarget, framing: Framing) {
        by_kind!(
            self,
            raw => raw.set_policy(policy.channel(IntentTarget::None)),
            pdus => pdus.set_policy(policy.channel(target).with_framing(framing))
        );
    }

    /// Sends a request of the connector itself to this ECU; false if the channel goes to another one or is busy.
    pub(crate) fn ask(&mut self, now: Instant, target: IntentTarget, request: &[u8]) -> bool {
        by_kind!(self, _ => false, pdus => pdus.is_to(target) && pdus.ask_briefly(now, request))
    }

    /// Whether the operator may await a response of this service.
    pub(crate) fn awaits(&self, now: Instant, service: u8) -> bool {
        by_kind!(self, raw => raw.is_busy(now), pdus => pdus.awaits(service))
    }

    /// Whether PDUs to this ECU go through this channel.
    pub(crate) fn is_to(&self, target: IntentTarget) -> bool {
        by_kind!(self, _ => false, pdus => pdus.is_to(target))
    }

    /// Breaks the chain behind a PDU of the operator that was refused before it reached the channel.
    pub(crate) fn handle_refused_pdu(&mut self, flags: PduFlags) {
        by_kind!(self, _ => {}, pdus => pdus.handle_refused_pdu(flags));
    }

    /// Whether a PDU is on its way to the bus.
    pub fn is_sending(&self) -> bool {
        by_kind!(self, _ => false, pdus => pdus.is_sending())
    }

    /// Whether the channel receives a PDU from its one ECU, which is the sender of this frame.
    pub(crate) fn is_receiving_from(&self, frame: &CanFrame) -> bool {
        by_kind!(self, _ => false, pdus => pdus.transport().is_receiving_from(frame))
    }

    /// Whether this frame may be of an ECU that answers this channel.
    pub(crate) fn may_be_answered_by(&self, frame: &CanFrame) -> bool {
        by_kind!(self, raw => raw.may_send(), pdus => pdus.transport().may_be_answered_by(frame))
    }

    /// Another channel receives the PDU of this frame too, and sends flow control.
    pub(crate) fn skip_flow_control(&mut self, now: Instant, frame: &CanFrame) {
        by_kind!(self, _ => {}, pdus => pdus.transport_mut().skip_flow_control(now, frame));
    }

    /// The kernel's ISO-TP, if it carries the PDUs of this channel.
    pub fn kernel(&self) -> Option<&KernelIsotp> {
        match self {
            Self::Kernel(channel) => Some(channel.transport()),
            Self::Raw(_) | Self::Pdu(_) => None,
        }
    }

    /// Acts on the kernel's ISO-TP, if it carries the PDUs of this channel, and handles its events.
    pub(crate) fn with_kernel(&mut self, now: Instant, act: impl FnOnce(&mut KernelIsotp)) {
        if let Self::Kernel(channel) = self {
            act(channel.transport_mut());
            channel.handle_events(now);
        }
    }

    /// Replaces the kernel's ISO-TP by the agent's own, if the kernel carries the PDUs of this channel.
    #[must_use]
    pub(crate) fn with_own_isotp(self, now: Instant) -> Self {
        match self {
            Self::Kernel(channel) => {
                let own: Box<dyn FrameTransport> = Box::new(channel.transport().own_endpoint());
                Self::Pdu(Box::new(channel.with_transport(own, now)))
            }
            other => other,
        }
    }

    /// Sends a frame of the operator before `expires`.
    pub fn handle_frame_to_send(&mut self, now: Instant, frame: CanFrame, expires: Instant) {
        by_kind!(self, raw => raw.handle_frame_to_send(now, frame, expires), pdus => pdus.refuse());
    }

    /// The adapter took a frame of [`CanChannel::poll_transmit`].
    pub(crate) fn handle_accepted(&mut self, now: Instant, frame: &CanFrame) {
        by_kind!(self, raw => raw.handle_accepted(now, frame), _pdus => {});
    }

    /// The channel is closed, and frames that the adapter holds may not be sent.
    pub(crate) fn handle_abandoned(&mut self) {
        by_kind!(self, raw => raw.handle_abandoned(), _pdus => {});
    }

    /// The oldest frame without an outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        by_kind!(self, _ => {}, pdus => pdus.handle_transmitted(now));
    }

    /// The oldest frame without an outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        by_kind!(self, raw => raw.handle_transmit_failed(failure), pdus => pdus.handle_transmit_failed(now, failure));
    }

    /// The bus went off: all frames and PDUs that wait fail.
    pub fn handle_bus_off(&mut self, now: Instant) {
        by_kind!(self, raw => raw.handle_bus_off(), pdus => pdus.handle_bus_off(now));
    }

    /// The adapter lost received frames.
    pub(crate) fn handle_lost(&mut self, frames: u32) {
        match self {
            Self::Raw(channel) => channel.handle_lost(frames),
            Self::Pdu(_) => {}
            Self::Kernel(channel) => channel.transport_mut().handle_lost(),
        }
    }

    /// Allows or stops TesterPresent.
    pub(crate) fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>) {
        by_kind!(self, _ => {}, pdus => pdus.set_keep_alive(now, stop));
    }

    /// Asks the ECU to return to its default session, if the operator made it leave that session.
    pub fn return_to_default_session(&mut self, now: Instant) {
        by_kind!(self, _ => {}, pdus => pdus.return_to_default_session(now));
    }

    /// Handles the deadline of [`CanChannel::poll_timeout`].
    pub(crate) fn handle_timeout(&mut self, now: Instant, hold: KeepAliveHold) {
        by_kind!(self, raw => raw.handle_timeout(now), pdus => pdus.handle_timeout_with(now, hold));
    }

    /// The next frame for the bus, and until when it may be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(CanFrame, Option<Instant>)> {
        by_kind!(
            self,
            raw => raw.poll_transmit(now).map(|(frame, expires)| (frame, Some(expires))),
            pdus => {
                let frame = pdus.transport_mut().poll_transmit(now);
                // a reception without an address for flow control ends here
                pdus.handle_events(now);
                frame.map(|frame| (frame, None))
            }
        )
    }

    /// A frame of [`CanChannel::poll_transmit`] could not be sent in time.
    pub(crate) fn handle_too_old(&mut self) {
        by_kind!(self, raw => raw.handle_too_old(), _pdus => {});
    }

    /// The next output for the operator.
    pub fn poll_output(&mut self) -> Option<Output> {
        by_kind!(self, raw => raw.poll_output(), pdus => pdus.poll_output())
    }

    /// Whether the channel sends, receives, awaits a response, or has PDUs that wait.
    pub(crate) fn is_busy(&self, now: Instant) -> bool {
        by_kind!(self, raw => raw.is_busy(now), pdus => pdus.is_busy())
    }

    /// Whether a question to the vehicle would come into the middle of an exchange, though new requests wait for the
    /// question. Long after they began to wait, only transfers count.
    pub(crate) fn is_in_exchange(&self, now: Instant, is_late: bool) -> bool {
        by_kind!(self, raw => raw.is_in_exchange(now), pdus => {
            pdus.is_transferring() || !is_late && pdus.is_exchanging()
        })
    }

    /// Sends what has waited for the policy.
    pub(crate) fn handle_policy_change(&mut self, now: Instant) {
        by_kind!(self, _ => {}, pdus => pdus.handle_events(now));
    }

    /// When [`CanChannel::is_busy`] becomes false by itself.
    pub(crate) fn busy_until(&self) -> Option<Instant> {
        by_kind!(self, raw => raw.busy_until(), _pdus => None)
    }

    /// Whether the channel is in the middle of an exchange with the ECU that listens to this identifier.
    pub(crate) fn is_busy_with(&self, request: CanId) -> bool {
        let is_to = |target: Option<EcuTarget>| target.is_some_and(|target| target.id == request);
        by_kind!(self, _ => false, pdus => is_to(pdus.transport().target()) && pdus.is_busy())
    }

    /// The ECU that gets TesterPresent on this channel, if the channel sends it to a single one.
    pub(crate) fn kept_alive(&self) -> Option<EcuTarget> {
        by_kind!(self, _ => None, pdus => pdus.transport().target().filter(|_| pdus.has_keep_alive()))
    }

    /// Adds what this channel is doing with the ECU to the reasons for which TesterPresent waits.
    pub(crate) fn hold_keep_alive(&self, target: EcuTarget, hold: &mut KeepAliveHold) {
        by_kind!(
            self,
            raw => hold.until = hold.until.max(raw.busy_until_with(target)),
            pdus => {
                let transport = pdus.transport();
                let is_same = transport.is_functional() || transport.target() == Some(target);
                hold.is_open_ended |= is_same && pdus.is_busy();
            }
        );
    }

    /// The outcome of opening the channel, if opening needs the ECU; returned once.
    pub(crate) fn poll_opened(&mut self) -> Option<Result<(), OpenFailure>> {
        by_kind!(self, _ => None, pdus => pdus.transport_mut().poll_opened())
    }

    /// The frame to send when the channel is closed.
    pub(crate) fn farewell(&self) -> Option<CanFrame> {
        by_kind!(self, _ => None, pdus => pdus.transport().farewell())
    }

    /// When [`CanChannel::handle_timeout`] is due.
    pub(crate) fn poll_timeout(&self, hold: KeepAliveHold) -> Option<Instant> {
        by_kind!(self, _ => None, pdus => pdus.poll_timeout_with(hold))
    }
}

impl<T: FrameTransport + ?Sized> PduChannel<T> {
    /// Handles a frame of another node, or an error frame.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if self.transport_mut().handle_frame(now, frame) {
            self.handle_events(now);
        }
    }

    /// The oldest frame without an outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        self.transport_mut().handle_transmitted(now);
        self.handle_events(now);
    }

    /// The oldest frame without an outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        self.transport_mut().handle_transmit_failed(now, failure);
        self.handle_events(now);
    }
}

/// Implements [`PduTransport`] for an ISO-TP endpoint.
macro_rules! isotp_transport {
    ($endpoint:ty) => {
        fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail> {
            <$endpoint>::send(self, now, pdu).map_err(|error| match error {
                SendError::Busy => SendFailedDetail::QueueFull,
                _ => SendFailedDetail::RefusedByPolicy,
            })
        }

        fn abort_send(&mut self) {
            <$endpoint>::abort_send(self);
        }

        fn poll_event(&mut self) -> Option<TransportEvent> {
            <$endpoint>::poll_event(self).map(TransportEvent::from)
        }

        fn handle_timeout(&mut self, now: Instant) {
            <$endpoint>::handle_timeout(self, now);
        }

        fn poll_timeout(&self) -> Option<Instant> {
            <$endpoint>::poll_timeout(self).map(|(at, _)| at)
        }

        fn handle_bus_off(&mut self, now: Instant) {
            <$endpoint>::handle_transmit_failed(self, now, SendFailure::BusOff);
        }
    };
}

/// Implements [`FrameTransport`] for an ISO-TP endpoint.
macro_rules! isotp_frame_transport {
    ($endpoint:ty) => {
        fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
            <$endpoint>::handle_frame(self, now, frame)
        }

        fn handle_transmitted(&mut self, now: Instant) {
            <$endpoint>::handle_transmitted(self, now);
        }

        fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
            <$endpoint>::handle_transmit_failed(self, now, failure);
        }

        fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
            <$endpoint>::poll_transmit(self, now)
        }
    };
}

impl PduTransport for Endpoint {
    isotp_transport!(Endpoint);

    fn is_receiving(&self) -> bool {
        Self::is_receiving(self)
    }
}

/// Requests of a functional endpoint are single frames, which disturb no reception.
impl PduTransport for FunctionalEndpoint {
    isotp_transport!(FunctionalEndpoint);
}

impl FrameTransport for Endpoint {
    isotp_frame_transport!(Endpoint);

    fn is_receiving_from(&self, frame: &CanFrame) -> bool {
        self.is_receiving() && self.config().addressing.accepts(frame)
    }

    fn target(&self) -> Option<EcuTarget> {
        Some(EcuTarget::of(&self.config().addressing))
    }

    fn may_be_answered_by(&self, frame: &CanFrame) -> bool {
        self.config().addressing.accepts(frame)
    }
}

impl FrameTransport for FunctionalEndpoint {
    isotp_frame_transport!(FunctionalEndpoint);

    fn is_functional(&self) -> bool {
        true
    }

    fn skip_flow_control(&mut self, now: Instant, frame: &CanFrame) {
        Self::skip_flow_control(self, now, frame);
    }
}

impl From<Event> for TransportEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::ReceptionStarted { .. } => Self::ReceptionStarted,
            Event::Received { address, pdu } => Self::Received { address: address.to_number(), pdu },
            Event::ReceiveFailed { failure, .. } => {
                let (detail, text) = receive_failed(failure);
                Self::ReceiveFailed { detail, text }
            }
            Event::Sent { elapsed } => Self::Sent { elapsed },
            Event::SendFailed { failure } => Self::SendFailed { detail: detail_of(failure) },
        }
    }
}
