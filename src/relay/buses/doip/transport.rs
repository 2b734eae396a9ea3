//! DoIP as a transport of PDUs: diagnostic messages on a connection that several channels share.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{Event, SendError, SendFailure, SendId};
use crate::protocol::doip::{DiagnosticNackCode, HeaderNackCode};
use crate::protocol::uds::is_response_to;
use crate::relay::channel::{PduTransport, TransportEvent};
use crate::relay::wire::codec::SendFailedDetail;

/// The time that a PDU waits for a connection that is being established again: as long as for an
/// acknowledgement (A_DoIP_Diagnostic_Message, ISO 13400-2), so that an operator hears of a PDU within the
/// usual time.
const WAIT_FOR_CONNECTION: Duration = Duration::from_secs(2);

/// The transport of one channel over a DoIP connection.
#[derive(Debug)]
pub(super) struct DoipTransport {
    target: LogicalAddress,
    max_pdu: usize,
    /// The PDU that the connection has not taken yet, and the time since which it waits.
    waiting: Option<(Vec<u8>, Instant)>,
    sent: Option<SendId>,
    /// The service of the last request.
    service: Option<u8>,
    events: VecDeque<TransportEvent>,
    failure: Option<SendFailure>,
}

impl DoipTransport {
    pub(super) fn new(target: LogicalAddress, max_pdu: usize) -> Self {
        Self {
            target,
            max_pdu,
            waiting: None,
            sent: None,
            service: None,
            events: VecDeque::new(),
            failure: None,
        }
    }

    /// The address of the ECU.
    pub(super) fn target(&self) -> LogicalAddress {
        self.target
    }

    /// Sends the PDU that waits, if the connection takes it. Returns whether anything changed.
    pub(super) fn transmit(
        &mut self,
        send: impl FnOnce(LogicalAddress, &[u8]) -> Result<SendId, SendError>,
    ) -> bool {
        let Some((pdu, since)) = self.waiting.take() else { return false };
        match send(self.target, &pdu) {
            Ok(id) => {
                self.sent = Some(id);
                self.service = pdu.first().copied();
                true
            }
            Err(SendError::Full | SendError::NotActive) => {
                self.waiting = Some((pdu, since));
                false
            }
            Err(SendError::Length { .. }) => {
                self.fail(SendFailedDetail::FlowControlOverflow);
                true
            }
        }
    }

    /// Handles an event of the connection. Returns whether it concerns this channel.
    pub(super) fn handle_event(&mut self, event: &Event) -> bool {
        match event {
            Event::Sent { id, elapsed } if self.sent == Some(*id) => {
                self.sent = None;
                self.events.push_back(TransportEvent::Sent { elapsed: *elapsed });
                true
            }
            Event::SendFailed { id, failure } if self.sent == Some(*id) => {
                self.sent = None;
                tracing::debug!(ecu = %self.target, %failure, "a diagnostic message was not sent");
                self.fail(detail_of(*failure));
                self.failure = Some(*failure);
                true
            }
            Event::Received { source, data } if self.receives(*source, data) => {
                let address = u32::from(source.get());
                self.events.push_back(TransportEvent::Received { address, pdu: data.clone() });
                true
            }
            _ => false,
        }
    }

    /// Whether the channel receives a message. A channel to a group of ECUs receives all responses to its
    /// last request; a channel to one ECU receives all messages of that ECU.
    fn receives(&self, source: LogicalAddress, data: &[u8]) -> bool {
        if !self.target.is_functional() {
            return source == self.target;
        }
        self.service.is_some_and(|service| is_response_to(service, data))
    }

    fn fail(&mut self, detail: SendFailedDetail) {
        self.failure = None;
        self.events.push_back(TransportEvent::SendFailed { detail });
    }
}

impl PduTransport for DoipTransport {
    fn send(&mut self, now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail> {
        if pdu.is_empty() {
            return Err(SendFailedDetail::RefusedByPolicy);
        }
        if pdu.len() > self.max_pdu {
            return Err(SendFailedDetail::FlowControlOverflow);
        }
        self.waiting = Some((pdu.to_vec(), now));
        Ok(())
    }

    fn failure_text(&self) -> Option<String> {
        self.failure.map(|failure| failure.to_string())
    }

    fn abort_send(&mut self) {
        self.waiting = None;
        self.sent = None;
    }

    fn poll_event(&mut self) -> Option<TransportEvent> {
        self.events.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.waiting = None;
            self.fail(SendFailedDetail::BusOff);
        }
    }

    fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.as_ref().map(|(_, since)| *since + WAIT_FOR_CONNECTION)
    }

    fn handle_bus_off(&mut self, _now: Instant) {
        if self.waiting.take().is_some() | self.sent.take().is_some() {
            self.fail(SendFailedDetail::BusOff);
        }
    }
}

/// The detail of the relay protocol for a DoIP failure.
fn detail_of(failure: SendFailure) -> SendFailedDetail {
    match failure {
        SendFailure::Nack(DiagnosticNackCode::MessageTooLarge)
        | SendFailure::HeaderNack(HeaderNackCode::MessageTooLarge) => SendFailedDetail::FlowControlOverflow,
        SendFailure::Nack(DiagnosticNackCode::OutOfMemory)
        | SendFailure::HeaderNack(HeaderNackCode::OutOfMemory) => SendFailedDetail::QueueFull,
        SendFailure::Nack(DiagnosticNackCode::InvalidSourceAddress) => SendFailedDetail::RefusedByPolicy,
        SendFailure::Nack(_) | SendFailure::HeaderNack(_) | SendFailure::NotAcknowledged => {
            SendFailedDetail::NotAcknowledged
        }
        SendFailure::ConnectionLost => SendFailedDetail::BusOff,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENGINE: LogicalAddress = LogicalAddress::new(0x4020);
    const OTHER: LogicalAddress = LogicalAddress::new(0x4021);

    fn received(source: LogicalAddress, data: &[u8]) -> Event {
        Event::Received { source, data: data.to_vec() }
    }

    #[test]
    fn a_channel_to_a_group_receives_every_response_to_its_request_and_nothing_else() {
        let mut transport = DoipTransport::new(LogicalAddress::new(0xE400), 4095);
        assert!(!transport.handle_event(&received(ENGINE, &[0x62, 0xF1, 0x90])));
        transport.waiting = Some((vec![0x22, 0xF1, 0x90], Instant::now()));
        // the identifier is arbitrary, because none is compared
        let mut connection = crate::protocol::doip::connection::Connection::new(
            crate::protocol::doip::connection::ConnectionSettings::new(LogicalAddress::new(0x0E80)),
            Instant::now(),
        );
        assert!(!transport.transmit(|target, data| connection.send(target, data)));
        transport.service = Some(0x22);
        assert!(transport.handle_event(&received(ENGINE, &[0x62, 0xF1, 0x90])));
        assert!(transport.handle_event(&received(OTHER, &[0x7F, 0x22, 0x78])));
        assert!(!transport.handle_event(&received(OTHER, &[0x76, 0x01])));
        assert!(!transport.handle_event(&received(OTHER, &[])));
    }

    #[test]
    fn a_channel_to_an_ecu_receives_only_its_messages() {
        let mut transport = DoipTransport::new(ENGINE, 4095);
        assert!(transport.handle_event(&received(ENGINE, &[0x7E, 0x00])));
        assert!(!transport.handle_event(&received(OTHER, &[0x7E, 0x00])));
        let Some(TransportEvent::Received { address, .. }) = transport.poll_event() else { panic!() };
        assert_eq!(address, 0x4020);
    }

    #[test]
    fn a_pdu_waits_two_seconds_for_the_connection() {
        let now = Instant::now();
        let mut transport = DoipTransport::new(ENGINE, 4095);
        transport.send(now, &[0x3E, 0x00]).unwrap();
        transport.handle_timeout(now + WAIT_FOR_CONNECTION - Duration::from_millis(1));
        assert_eq!(transport.poll_event(), None);
        transport.handle_timeout(now + WAIT_FOR_CONNECTION);
        let detail = SendFailedDetail::BusOff;
        assert_eq!(transport.poll_event(), Some(TransportEvent::SendFailed { detail }));
        assert_eq!(transport.send(now, &[]), Err(SendFailedDetail::RefusedByPolicy));
        assert_eq!(transport.send(now, &[0; 4096]), Err(SendFailedDetail::FlowControlOverflow));
    }

    #[test]
    fn every_refusal_is_described_with_its_code() {
        for (failure, text) in [
            (SendFailure::Nack(0x03.into()), "unknown target address (0x03)"),
            (SendFailure::Nack(0x1F.into()), "(0x1F)"),
            (SendFailure::HeaderNack(0x02.into()), "message too large (0x02)"),
            (SendFailure::HeaderNack(0x77.into()), "(0x77)"),
        ] {
            let mut transport = DoipTransport::new(ENGINE, 4095);
            transport.failure = Some(failure);
            let described = transport.failure_text().unwrap();
            assert!(described.starts_with("the gateway ") && described.contains(text), "{described}");
        }
    }

    #[test]
    fn every_refusal_has_its_detail() {
        for (code, detail) in [
            (0x02, SendFailedDetail::RefusedByPolicy),
            (0x03, SendFailedDetail::NotAcknowledged),
            (0x04, SendFailedDetail::FlowControlOverflow),
            (0x05, SendFailedDetail::QueueFull),
            (0x06, SendFailedDetail::NotAcknowledged),
            (0x08, SendFailedDetail::NotAcknowledged),
        ] {
            assert_eq!(detail_of(SendFailure::Nack(code.into())), detail, "{code}");
        }
        assert_eq!(detail_of(SendFailure::ConnectionLost), SendFailedDetail::BusOff);
    }
}
