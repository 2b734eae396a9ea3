//! TP2.0 as a transport of PDUs over CAN frames.

use std::collections::VecDeque;
use std::time::Instant;

use connector_hal::can::CanFrame;

use super::output::KeepAliveStop;
use super::transport::{FrameTransport, OpenFailure, PduTransport, TransportEvent};
use crate::protocol::isotp::SendFailure;
use crate::protocol::tp20::{Channel, ChannelConfig, CloseReason, Event, ReceiveFailure, SendError};
use crate::protocol::uds;
use crate::relay::wire::codec::SendFailedDetail;

/// A TP2.0 channel to one ECU. Its channel test keeps the channel open.
#[derive(Debug)]
pub(crate) struct Tp20Transport {
    channel: Channel,
    /// Whether the ECU has opened the channel once.
    was_opened: bool,
    opened: Option<Result<(), OpenFailure>>,
    events: VecDeque<TransportEvent>,
}

impl Tp20Transport {
    /// A transport that begins to set up its channel.
    pub(crate) fn new(config: ChannelConfig) -> Self {
        let mut channel = Channel::new(config);
        channel.open();
        Self { channel, was_opened: false, opened: None, events: VecDeque::new() }
    }

    fn collect(&mut self) {
        while let Some(event) = self.channel.poll_event() {
            let event = match event {
                Event::Opened => {
                    if !std::mem::replace(&mut self.was_opened, true) {
                        self.opened = Some(Ok(()));
                    }
                    continue;
                }
                Event::ReceptionStarted => TransportEvent::ReceptionStarted,
                Event::Received { pdu } => {
                    TransportEvent::Received { address: self.channel.receive_id().to_number(), pdu }
                }
                Event::ReceiveFailed { failure } => {
                    let (detail, text) = receive_failed(failure);
                    TransportEvent::ReceiveFailed { detail, text }
                }
                Event::Sent { elapsed } => TransportEvent::Sent { elapsed },
                Event::SendFailed { reason } => TransportEvent::SendFailed { detail: detail_of(reason) },
                Event::Closed { reason: CloseReason::Requested } => continue,
                Event::Closed { reason } if !self.was_opened => {
                    let is_refusal = matches!(reason, CloseReason::Refused(_));
                    self.opened = Some(Err(OpenFailure { is_refusal, text: reason.describe() }));
                    continue;
                }
                Event::Closed { reason } => {
                    TransportEvent::ConnectionLost { detail: detail_of(reason), text: reason.describe() }
                }
            };
            self.events.push_back(event);
        }
    }
}

impl PduTransport for Tp20Transport {
    fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail> {
        self.channel.send(now, pdu).map_err(|error| match error {
            SendError::Busy => SendFailedDetail::QueueFull,
            SendError::Closed => SendFailedDetail::ChannelClosed,
            SendError::Empty | SendError::TooLong { .. } => SendFailedDetail::RefusedByPolicy,
        })
    }

    fn abort_send(&mut self) {
        self.channel.abort_send();
        self.collect();
    }

    fn poll_event(&mut self) -> Option<TransportEvent> {
        self.collect();
        self.events.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) {
        self.channel.handle_timeout(now);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.channel.poll_timeout().map(|(at, _)| at)
    }

    fn handle_bus_off(&mut self, now: Instant) {
        self.channel.handle_transmit_failed(now, CloseReason::BusOff);
    }

    fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>) {
        let was_open = self.channel.is_open();
        self.channel.set_kept(now, stop.is_none());
        if let Some(stop) = stop.filter(|_| was_open) {
            let detail = SendFailedDetail::RefusedByPolicy;
            self.events.push_back(TransportEvent::ConnectionLost { detail, text: stop.text() });
        }
    }

    fn is_receiving(&self) -> bool {
        self.channel.is_receiving()
    }

    /// TesterPresent without a response (ISO 14230-3), because ECUs speak KWP2000 over TP2.0.
    fn tester_present(&self) -> &'static [u8] {
        &uds::KWP_TESTER_PRESENT_UNANSWERED
    }

    /// StartDiagnosticSession with the standard session of KWP2000. An ECU that speaks UDS takes it as its
    /// default session.
    fn default_session(&self) -> &'static [u8] {
        &[uds::SESSION_CONTROL, uds::KWP_STANDARD_SESSION]
    }
}

impl FrameTransport for Tp20Transport {
    fn handle_frame(&mut self, now: Instant, frame: &CanFrame) -> bool {
        self.channel.handle_frame(now, frame)
    }

    fn handle_transmitted(&mut self, now: Instant) {
        self.channel.handle_transmitted(now);
    }

    fn handle_transmit_failed(&mut self, now: Instant, failure: SendFailure) {
        let reason = match failure {
            SendFailure::BusOff => CloseReason::BusOff,
            _ => CloseReason::NotAcknowledged,
        };
        self.channel.handle_transmit_failed(now, reason);
    }

    fn poll_transmit(&mut self, now: Instant) -> Option<CanFrame> {
        self.channel.poll_transmit(now)
    }

    fn poll_opened(&mut self) -> Option<Result<(), OpenFailure>> {
        self.collect();
        self.opened.take()
    }

    fn farewell(&self) -> Option<CanFrame> {
        self.channel.farewell()
    }
}

fn detail_of(reason: CloseReason) -> SendFailedDetail {
    match reason {
        CloseReason::SetupTimeout
        | CloseReason::NoParameters
        | CloseReason::NoAck
        | CloseReason::NotReady
        | CloseReason::NoTestAnswer => SendFailedDetail::FlowControlTimeout,
        CloseReason::BusOff => SendFailedDetail::BusOff,
        CloseReason::NotAcknowledged => SendFailedDetail::NotAcknowledged,
        CloseReason::Requested
        | CloseReason::ByPeer
        | CloseReason::Restarted
        | CloseReason::Refused(_)
        | CloseReason::ReceptionStopped
        | CloseReason::Silence => SendFailedDetail::ChannelClosed,
    }
}

fn receive_failed(failure: ReceiveFailure) -> (u16, &'static str) {
    match failure {
        ReceiveFailure::Timeout => (1, "the next data frame did not come"),
        ReceiveFailure::WrongLength => (2, "the PDU is shorter than announced"),
        ReceiveFailure::TooLong => (3, "the PDU is longer than allowed"),
        ReceiveFailure::Closed => (1, "the channel closed before the PDU was complete"),
    }
}
