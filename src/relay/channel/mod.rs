//! Channels: what an operator opens on a bus, as pure state machines.
//!
//! The contract is that of the `isotp` module: `handle_*` in, `poll_*` out, time as an argument.

mod chain;
mod frame_transport;
mod kernel_isotp;
mod kline_transport;
mod pdu_channel;
mod raw_channel;
mod tp20_transport;

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::isotp::SendFailure;
use crate::relay::wire::codec::{EventCode, PduFlags, SendFailedDetail};

pub use frame_transport::{FrameTransport, OpenFailure};
pub use kernel_isotp::KernelIsotp;
pub use kline_transport::{KlineTransport, LinkChange, describe_failure};
pub use pdu_channel::{PduChannel, PduChannelSettings, PduTransport, TransportEvent};
pub use raw_channel::RawChannel;
pub use tp20_transport::Tp20Transport;

/// Why TesterPresent is sent no more.
const BATTERY_SPARED: &str = "the ignition is off: the battery is spared";

/// What a channel has to tell the operator.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// A frame that was on the bus.
    Frame(CanFrame),
    /// A PDU that an ECU sent.
    Pdu {
        /// Whose, as the relay protocol writes it: a CAN identifier, a DoIP or K-line address.
        address: u32,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// The ignition: on, off, or unknown.
    Terminal15(Option<bool>),
    /// Something that happened.
    Event {
        /// What.
        code: EventCode,
        /// More about it.
        detail: u16,
        /// A number that belongs to it.
        value: u32,
        /// Words for it.
        text: &'static str,
    },
    /// The bus, or what the channel needs of it, changed its state.
    BusState {
        /// The event's detail: 0 active, 1 passive, 2 off.
        detail: u16,
        /// Why.
        text: String,
    },
}

impl Output {
    /// The event that says why something was not sent.
    pub fn send_failed(detail: SendFailedDetail) -> Self {
        Self::Event { code: EventCode::SendFailed, detail: detail as u16, value: 0, text: describe(detail) }
    }
}

fn describe(detail: SendFailedDetail) -> &'static str {
    match detail {
        SendFailedDetail::FlowControlTimeout => "the ECU sent no flow control in time",
        SendFailedDetail::FlowControlOverflow => "the ECU cannot take a PDU of this length",
        SendFailedDetail::BusOff => "the bus is off",
        SendFailedDetail::NotAcknowledged => "no node acknowledged the frame",
        SendFailedDetail::QueueFull => "the channel's queue is full",
        SendFailedDetail::RefusedByPolicy => "this channel does not send such",
        SendFailedDetail::ChannelClosed => "the channel is not open",
        SendFailedDetail::TooOld => "it arrived too late to be sent",
    }
}

fn detail_of(failure: SendFailure) -> SendFailedDetail {
    match failure {
        SendFailure::FlowControlTimeout | SendFailure::WaitLimit | SendFailure::InvalidFlowStatus => {
            SendFailedDetail::FlowControlTimeout
        }
        SendFailure::Overflow => SendFailedDetail::FlowControlOverflow,
        SendFailure::BusOff => SendFailedDetail::BusOff,
        SendFailure::NotAcknowledged => SendFailedDetail::NotAcknowledged,
    }
}

/// A channel of any kind.
#[derive(Debug)]
pub enum Channel {
    /// Frames as they are.
    Raw(RawChannel),
    /// PDUs in frames.
    Pdu(Box<PduChannel<dyn FrameTransport>>),
}

impl Channel {
    /// A frame of another node, or an error frame.
    pub fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        match self {
            Self::Raw(channel) => channel.handle_frame(frame),
            Self::Pdu(channel) => channel.handle_frame(now, frame),
        }
    }

    /// A PDU of the operator.
    pub fn handle_pdu(&mut self, now: Instant, flags: PduFlags, data: &[u8]) {
        match self {
            Self::Raw(channel) => channel.refuse(),
            Self::Pdu(channel) => channel.handle_pdu(now, flags, data),
        }
    }

    /// A PDU of the operator that was refused before it came here: what is chained to it must not be sent.
    pub fn handle_refused_pdu(&mut self, flags: PduFlags) {
        if let Self::Pdu(channel) = self {
            channel.handle_refused_pdu(flags);
        }
    }

    /// Whether a PDU is on its way to the bus.
    pub fn is_sending(&self) -> bool {
        match self {
            Self::Raw(_) => false,
            Self::Pdu(channel) => channel.is_sending(),
        }
    }

    /// Whether a PDU is coming in from the ECU that takes flow control with this identifier, and it alone is heard here.
    pub fn is_receiving_from(&self, request: CanId) -> bool {
        matches!(self, Self::Pdu(channel) if channel.transport().is_receiving_from(request))
    }

    /// Whether this frame of the channel is flow control to one of the ECUs that a functional channel hears.
    pub fn is_functional_flow_control(&self, frame: &CanFrame) -> bool {
        matches!(self, Self::Pdu(channel) if channel.transport().is_functional_flow_control(frame))
    }

    /// The kernel's ISO-TP, if it carries this channel's PDUs.
    pub fn kernel(&self) -> Option<&KernelIsotp> {
        match self {
            Self::Raw(_) => None,
            Self::Pdu(channel) => channel.transport().kernel(),
        }
    }

    /// Changes it, and takes what it reports.
    pub fn with_kernel(&mut self, now: Instant, act: impl FnOnce(&mut KernelIsotp)) {
        if let Self::Pdu(channel) = self
            && let Some(kernel) = channel.transport_mut().kernel_mut()
        {
            act(kernel);
            channel.handle_events(now);
        }
    }

    /// A frame of the operator, to be sent before `expires`.
    pub fn handle_frame_to_send(&mut self, frame: CanFrame, expires: Instant) {
        match self {
            Self::Raw(channel) => channel.handle_frame_to_send(frame, expires),
            Self::Pdu(channel) => channel.refuse(),
        }
    }

    /// The oldest frame given out that has no outcome was acknowledged on the bus.
    pub fn handle_transmitted(&mut self, now: Instant) {
        match self {
            Self::Raw(_) => {}
            Self::Pdu(channel) => channel.handle_transmitted(now),
        }
    }

    /// The oldest frame given out that has no outcome will not be sent.
    pub fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        match self {
            Self::Raw(channel) => channel.handle_transmit_failed(failure),
            Self::Pdu(channel) => channel.handle_transmit_failed(now, failure),
        }
    }

    /// The bus went off: whatever waits is thrown away.
    pub fn handle_bus_off(&mut self, now: Instant) {
        match self {
            Self::Raw(channel) => channel.handle_bus_off(),
            Self::Pdu(channel) => channel.handle_bus_off(now),
        }
    }

    /// Received frames were lost in the adapter.
    pub fn handle_lost(&mut self, frames: u32) {
        match self {
            Self::Raw(channel) => channel.handle_lost(frames),
            Self::Pdu(channel) => {
                if let Some(kernel) = channel.transport_mut().kernel_mut() {
                    kernel.handle_lost();
                }
            }
        }
    }

    /// A deadline of [`Channel::poll_timeout`] has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Raw(_) => {}
            Self::Pdu(channel) => channel.handle_timeout(now),
        }
    }

    /// The next frame for the bus, and until when it may be sent.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<(CanFrame, Option<Instant>)> {
        match self {
            Self::Raw(channel) => channel.poll_transmit(now).map(|(frame, expires)| (frame, Some(expires))),
            Self::Pdu(channel) => channel.transport_mut().poll_transmit(now).map(|frame| (frame, None)),
        }
    }

    /// A frame given out was not sent in its time.
    pub fn handle_too_old(&mut self) {
        if let Self::Raw(channel) = self {
            channel.handle_too_old();
        }
    }

    /// The next thing to tell the operator.
    pub fn poll_output(&mut self) -> Option<Output> {
        match self {
            Self::Raw(channel) => channel.poll_output(),
            Self::Pdu(channel) => channel.poll_output(),
        }
    }

    /// Whether the channel is in the middle of something with the ECU that listens to this identifier.
    pub fn is_busy_with(&self, request: CanId) -> bool {
        matches!(self, Self::Pdu(channel) if channel.transport().request_id() == Some(request) && channel.is_busy())
    }

    /// What came of opening the channel, where that takes the ECU; told once.
    pub fn poll_opened(&mut self) -> Option<Result<(), OpenFailure>> {
        match self {
            Self::Raw(_) => None,
            Self::Pdu(channel) => channel.transport_mut().poll_opened(),
        }
    }

    /// The frame to send when the channel is closed.
    pub fn farewell(&self) -> Option<CanFrame> {
        match self {
            Self::Raw(_) => None,
            Self::Pdu(channel) => channel.transport().farewell(),
        }
    }

    /// When [`Channel::handle_timeout`] is due.
    pub fn poll_timeout(&self) -> Option<Instant> {
        match self {
            Self::Raw(_) => None,
            Self::Pdu(channel) => channel.poll_timeout(),
        }
    }
}
