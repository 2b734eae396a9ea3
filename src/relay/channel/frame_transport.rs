//! Transports of PDUs over CAN frames, among them the agent's own ISO-TP.

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::output::detail_of;
use super::pdu_channel::{PduChannel, PduTransport, TransportEvent};
use crate::protocol::isotp::{Endpoint, Event, FunctionalEndpoint, ReceiveFailure, SendError, SendFailure};
use crate::relay::wire::codec::SendFailedDetail;

/// A transport of PDUs over CAN frames.
pub trait FrameTransport: PduTransport {
    /// Handles a frame of another node, or an error frame. Returns whether this transport uses the frame.
    fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool;

    /// The oldest frame without an outcome was acknowledged on the bus.
    fn handle_transmitted(&mut self, now: Instant);

    /// The oldest frame without an outcome will not be sent.
    fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure);

    /// The next frame for the bus.
    fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame>;

    /// Whether a PDU is being received from the one ECU of this transport, and that ECU takes flow control
    /// with this identifier.
    fn is_receiving_from(&self, _request: CanId) -> bool {
        false
    }

    /// Whether this frame of the transport is flow control to one of several ECUs.
    fn is_functional_flow_control(&self, _frame: &CanFrame) -> bool {
        false
    }

    /// The identifier of the requests, if the transport has a single one.
    fn request_id(&self) -> Option<CanId> {
        None
    }

    /// The outcome of setting up the transport's connection to the ECU, if it has one; returned once.
    fn poll_opened(&mut self) -> Option<Result<(), OpenFailure>> {
        None
    }

    /// The frame that ends the connection to the ECU, to be sent when the transport is closed.
    fn farewell(&self) -> Option<CanFrame> {
        None
    }
}

/// Why a transport could not set up its connection to the ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFailure {
    /// Whether the ECU refused the connection.
    pub is_refusal: bool,
    /// A description in words.
    pub text: &'static str,
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

    fn is_receiving_from(&self, request: CanId) -> bool {
        self.is_receiving() && self.config().addressing.transmit_id() == request
    }

    fn request_id(&self) -> Option<CanId> {
        Some(self.config().addressing.transmit_id())
    }
}

impl FrameTransport for FunctionalEndpoint {
    isotp_frame_transport!(FunctionalEndpoint);

    fn is_functional_flow_control(&self, frame: &CanFrame) -> bool {
        self.config().transmit != frame.id()
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

/// The detail of the event `receive-failed`, and its description in words.
pub(super) fn receive_failed(failure: ReceiveFailure) -> (u16, &'static str) {
    match failure {
        ReceiveFailure::ConsecutiveFrameTimeout => (1, "the next consecutive frame did not come (N_Cr)"),
        ReceiveFailure::WrongSequenceNumber => (2, "a consecutive frame was missing"),
        ReceiveFailure::TooLong => (3, "the PDU is longer than allowed"),
        ReceiveFailure::NotAcknowledged => (1, "the flow control was not acknowledged on the bus (N_Ar)"),
        ReceiveFailure::Interrupted => (2, "the ECU began another PDU before this one was complete"),
    }
}
