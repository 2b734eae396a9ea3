//! The channels that an operator opens on a bus, as pure state machines.
//!
//! `handle_*` methods take input, `poll_*` methods return output, and time is an argument.

mod chain;
mod frame_transport;
mod kernel_isotp;
mod kline_transport;
mod output;
mod pdu_channel;
mod raw_channel;
mod tp20_transport;

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::isotp::SendFailure;
use crate::relay::wire::codec::PduFlags;

pub use frame_transport::{FrameTransport, OpenFailure};
pub use kernel_isotp::KernelIsotp;
pub use kline_transport::{KlineLinkChange, KlineTransport, describe_failure};
pub use output::{ChannelOutput, Output};
pub use pdu_channel::{PduChannel, PduChannelSettings, PduTransport, TransportEvent};
pub use raw_channel::RawChannel;
pub use tp20_transport::Tp20Transport;

/// A channel of a CAN bus.
#[derive(Debug)]
pub enum Channel {
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
            Channel::Raw($raw) => $of_raw,
            Channel::Pdu($pdus) => $of_pdus,
            Channel::Kernel($pdus) => $of_pdus,
        }
    };
}

impl Channel {
    /// Handles a frame of another node, or an error frame.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        by_kind!(self, raw => raw.handle_frame(frame), pdus => pdus.handle_frame(now, frame));
    }

    /// Sends a PDU of the operator.
    pub fn handle_pdu(&mut self, now: Instant, flags: PduFlags, data: &[u8]) {
        by_kind!(self, raw => raw.refuse(), pdus => pdus.handle_pdu(now, flags, data));
    }

    /// Breaks the chain behind a PDU of the operator that was refused before it reached the channel.
    pub fn handle_refused_pdu(&mut self, flags: PduFlags) {
        by_kind!(self, _ => {}, pdus => pdus.handle_refused_pdu(flags));
    }

    /// Whether a PDU is on its way to the bus.
    pub fn is_sending(&self) -> bool {
        by_kind!(self, _ => false, pdus => pdus.is_sending())
    }

    /// Whether the channel receives a PDU from the one ECU that takes flow control with this identifier.
    pub fn is_receiving_from(&self, request: CanId) -> bool {
        by_kind!(self, _ => false, pdus => pdus.transport().is_receiving_from(request))
    }

    /// Whether this frame of the channel is flow control to one of the ECUs of a functional channel.
    pub fn is_functional_flow_control(&self, frame: &CanFrame) -> bool {
        by_kind!(self, _ => false, pdus => pdus.transport().is_functional_flow_control(frame))
    }

    /// The kernel's ISO-TP, if it carries the PDUs of this channel.
    pub fn kernel(&self) -> Option<&KernelIsotp> {
        match self {
            Self::Kernel(channel) => Some(channel.transport()),
            Self::Raw(_) | Self::Pdu(_) => None,
        }
    }

    /// Acts on the kernel's ISO-TP, if it carries the PDUs of this channel, and handles its events.
    pub fn with_kernel(&mut self, now: Instant, act: impl FnOnce(&mut KernelIsotp)) {
        if let Self::Kernel(channel) = self {
            act(channel.transport_mut());
            channel.handle_events(now);
        }
    }

    /// Replaces the kernel's ISO-TP by the agent's own, if the kernel carries the PDUs of this channel.
    #[must_use]
    pub fn with_own_isotp(self, now: Instant) -> Self {
        match self {
            Self::Kernel(channel) => {
                let own: Box<dyn FrameTransport> = Box::new(channel.transport().own_endpoint());
                Self::Pdu(Box::new(channel.with_transport(own, now)))
            }
            other => other,
        }
    }

    /// Sends a frame of the operator before `expires`.
    pub fn handle_frame_to_send(&mut self, frame: CanFrame, expires: Instant) {
        by_kind!(self, raw => raw.handle_frame_to_send(frame, expires), pdus => pdus.refuse());
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
    pub fn handle_lost(&mut self, frames: u32) {
        match self {
            Self::Raw(channel) => channel.handle_lost(frames),
            Self::Pdu(_) => {}
            Self::Kernel(channel) => channel.transport_mut().handle_lost(),
        }
    }

    /// Allows or stops TesterPresent.
    pub fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        by_kind!(self, _ => {}, pdus => pdus.set_keep_alive(now, enabled));
    }

    /// Asks the ECU to return to its default session, if the operator made it leave that session.
    pub fn return_to_default_session(&mut self, now: Instant) {
        by_kind!(self, _ => {}, pdus => pdus.return_to_default_session(now));
    }

    /// Handles the deadline of [`Channel::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Instant) {
        by_kind!(self, _ => {}, pdus => pdus.handle_timeout(now));
    }

    /// The next frame for the bus, and until when it may be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(CanFrame, Option<Instant>)> {
        by_kind!(
            self,
            raw => raw.poll_transmit(now).map(|(frame, expires)| (frame, Some(expires))),
            pdus => pdus.transport_mut().poll_transmit(now).map(|frame| (frame, None))
        )
    }

    /// A frame of [`Channel::poll_transmit`] could not be sent in time.
    pub fn handle_too_old(&mut self) {
        by_kind!(self, raw => raw.handle_too_old(), _pdus => {});
    }

    /// The next output for the operator.
    pub fn poll_output(&mut self) -> Option<Output> {
        by_kind!(self, raw => raw.poll_output(), pdus => pdus.poll_output())
    }

    /// Whether the channel is in the middle of an exchange with the ECU that listens to this identifier.
    pub fn is_busy_with(&self, request: CanId) -> bool {
        by_kind!(self, _ => false, pdus => pdus.transport().request_id() == Some(request) && pdus.is_busy())
    }

    /// The outcome of opening the channel, if opening needs the ECU; returned once.
    pub fn poll_opened(&mut self) -> Option<Result<(), OpenFailure>> {
        by_kind!(self, _ => None, pdus => pdus.transport_mut().poll_opened())
    }

    /// The frame to send when the channel is closed.
    pub fn farewell(&self) -> Option<CanFrame> {
        by_kind!(self, _ => None, pdus => pdus.transport().farewell())
    }

    /// When [`Channel::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        by_kind!(self, _ => None, pdus => pdus.poll_timeout())
    }
}
