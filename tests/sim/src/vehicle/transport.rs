//! An ECU as a node of a CAN bus: its responder behind ISO-TP (ISO 15765-2), without any I/O.

use std::time::Instant;

use connector_agent::protocol::isotp::{
    Addressing, Config, Endpoint, Event, FrameSize, NPdu, Padding, SendFailure, SeparationTime,
};
use connector_hal::can::{CanFilter, CanFrame, CanId};

use super::catalogue::EcuAddress;
use super::ecu::{EcuStatus, Responder, Target};

/// The OBD functional request identifier with 11 bits, received by the ECUs at 0x7E0…0x7E7 (ISO 15765-4,
/// 10.3).
const OBD_FUNCTIONAL_11: CanId = CanId::standard_truncated(0x7DF);
/// The OBD functional request identifier with 29 bits, received by the ECUs at 0x18DAxxF1.
const OBD_FUNCTIONAL_29: CanId = CanId::extended_truncated(0x18DB_33F1);

/// ISO-TP parameters of an ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransportConfig {
    /// The kind of frames that the ECU sends.
    pub frame_size: FrameSize,
    /// The padding of short frames.
    pub padding: Padding,
    /// BS of its flow controls.
    pub block_size: u8,
    /// STmin of its flow controls.
    pub st_min: SeparationTime,
    /// The longest PDU that the ECU sends or receives.
    pub max_pdu: usize,
}

impl Default for TransportConfig {
    /// Classic frames padded with 0xAA; whole PDUs without a pause.
    fn default() -> Self {
        Self {
            frame_size: FrameSize::Classic,
            padding: Padding::Enabled(0xAA),
            block_size: 0,
            st_min: SeparationTime(0),
            max_pdu: 4095,
        }
    }
}

/// The functional identifier that the OBD standard assigns to an ECU with this address.
pub(super) fn obd_functional(address: &EcuAddress) -> Option<CanId> {
    let id = address.request;
    match (address.extended, id.is_extended(), id.raw()) {
        (None, false, 0x7E0..=0x7E7) => Some(OBD_FUNCTIONAL_11),
        (None, true, raw) if raw & 0xFFFF_00FF == 0x18DA_00F1 => Some(OBD_FUNCTIONAL_29),
        _ => None,
    }
}

/// An ECU on a CAN bus.
///
/// After every `handle_*`, call `poll_transmit` until it returns `None`, then `poll_timeout`.
pub(super) trait CanNode: Send {
    /// The ECU's identifiers.
    fn address(&self) -> EcuAddress;
    /// Filters for the frames that the ECU needs.
    fn filters(&self) -> Vec<CanFilter>;
    /// Handles a frame from the bus, whose end was at `now`.
    fn handle_frame(&mut self, now: Instant, frame: &CanFrame);
    /// Reports that the oldest frame without outcome was transmitted.
    fn handle_transmitted(&mut self, now: Instant);
    /// Reports that the oldest frame without outcome will not be sent; with [`SendFailure::BusOff`], that
    /// none will.
    fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure);
    /// Handles expired deadlines.
    fn handle_timeout(&mut self, now: Instant);
    /// Returns the next frame to send. Report the outcome of each, in this order.
    fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame>;
    /// The time of the next call of `handle_timeout`.
    fn poll_timeout(&self) -> Option<Instant>;
    /// The ECU's state, if it may have changed since the last call.
    fn poll_status(&mut self) -> Option<EcuStatus>;
}

/// An ECU behind ISO-TP on the bus.
pub(super) struct Node {
    address: EcuAddress,
    functional: Vec<CanId>,
    endpoint: Endpoint,
    responder: Box<dyn Responder>,
}

impl Node {
    /// Creates an ECU that receives on its request identifier and on the functional ones.
    pub(crate) fn new(
        address: EcuAddress,
        functional: Vec<CanId>,
        config: &TransportConfig,
        responder: Box<dyn Responder>,
    ) -> Self {
        // from the ECU's side: it transmits with the tool's response identifier
        let addressing = match address.extended {
            Some(byte) => Addressing::extended(address.response, address.request, byte, byte),
            None => Addressing::normal(address.response, address.request),
        };
        let endpoint = Endpoint::new(Config {
            frame_size: config.frame_size,
            padding: config.padding,
            block_size: config.block_size,
            st_min: config.st_min,
            max_pdu: config.max_pdu,
            ..Config::new(addressing)
        });
        Self { address, functional, endpoint, responder }
    }

    /// Passes requests to the responder and responses to the transport until both are empty.
    fn settle(&mut self, now: Instant) {
        loop {
            if let Some(event) = self.endpoint.poll_event() {
                match event {
                    Event::ReceptionStarted { .. } => self.responder.handle_reception_started(now),
                    Event::Received { pdu, .. } => {
                        self.responder.handle_request(now, Target::Physical, &pdu);
                    }
                    Event::ReceiveFailed { failure, .. } => {
                        tracing::debug!(ecu = %self.address, %failure, "abandoned an incomplete request");
                        self.responder.handle_reception_failed(now);
                    }
                    Event::Sent { .. } => self.responder.handle_response_done(now, true),
                    Event::SendFailed { failure } => {
                        tracing::debug!(ecu = %self.address, %failure, "cannot send a response");
                        self.responder.handle_response_done(now, false);
                    }
                }
            } else if !self.endpoint.is_sending()
                && let Some(response) = self.responder.poll_response()
            {
                if let Err(error) = self.endpoint.send(now, &response) {
                    tracing::warn!(ecu = %self.address, %error, "the transport rejects a response");
                    self.responder.handle_response_done(now, false);
                }
            } else {
                return;
            }
        }
    }
}

impl CanNode for Node {
    fn address(&self) -> EcuAddress {
        self.address
    }

    fn filters(&self) -> Vec<CanFilter> {
        std::iter::once(self.address.request)
            .chain(self.functional.iter().copied())
            .map(CanFilter::exactly)
            .collect()
    }

    fn handle_frame(&mut self, now: Instant, frame: &CanFrame) {
        if frame.is_data() && self.functional.contains(&frame.id()) {
            // functional requests are single frames (ISO 15765-2, 10.1)
            if let Ok(NPdu::SingleFrame { data }) = NPdu::decode(frame.data(), 0) {
                self.responder.handle_request(now, Target::Functional, data);
            }
        } else {
            self.endpoint.handle_frame(now, frame);
        }
        self.settle(now);
    }

    fn handle_transmitted(&mut self, now: Instant) {
        self.endpoint.handle_transmitted(now);
        self.settle(now);
    }

    fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        self.endpoint.handle_transmit_failed(now, failure);
        self.settle(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.endpoint.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.endpoint.handle_timeout(now);
        }
        if self.responder.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.responder.handle_timeout(now);
        }
        self.settle(now);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        self.endpoint.poll_transmit(now)
    }

    fn poll_timeout(&self) -> Option<Instant> {
        let endpoint = self.endpoint.poll_timeout().map(|(at, _)| at);
        endpoint.into_iter().chain(self.responder.poll_timeout().map(|(at, _)| at)).min()
    }

    fn poll_status(&mut self) -> Option<EcuStatus> {
        self.responder.poll_status()
    }
}
