//! What the transport of a PDU channel reports: responses of the ECU, and the outcome of what was sent.

use std::time::{Duration, Instant};

use super::{Origin, PduChannel};
use crate::protocol::uds;
use crate::relay::channel::output::{Output, describe};
use crate::relay::channel::transport::{PduTransport, TransportEvent};
use crate::relay::wire::codec::{EventCode, SendFailedDetail};

impl<T: PduTransport + ?Sized> PduChannel<T> {
    /// Handles the events of the transport. Call it after each call to the transport.
    pub(crate) fn handle_events(&mut self, now: Instant) {
        while let Some(event) = self.transport.poll_event() {
            match event {
                TransportEvent::ReceptionStarted => self.last.handle_reception_started(),
                TransportEvent::ReceptionDropped => self.last.handle_reception_failed(),
                TransportEvent::Received { pdu, .. } if self.is_for_keep_alive(now, &pdu) => {
                    tracing::trace!("an ECU answered the connector's own TesterPresent");
                }
                TransportEvent::Received { pdu, .. } if self.own.is_answered_by(now, &pdu, &self.last) => {
                    self.report_response(now, &pdu);
                    self.own.handle_answer(pdu);
                }
                TransportEvent::Received { address, pdu } => {
                    self.report_response(now, &pdu);
                    let failed = self.last.handle_response(now, &pdu);
                    self.outputs.push_back(Output::Pdu { address, data: pdu });
                    if let Some(code) = failed {
                        self.break_chain(code);
                    }
                }
                TransportEvent::ReceiveFailed { detail, text } => {
                    self.last.handle_reception_failed();
                    let code = EventCode::ReceiveFailed;
                    self.outputs.push_back(Output::event(code, detail, 0, text));
                }
                TransportEvent::Sent { elapsed } => self.handle_sent(now, elapsed),
                TransportEvent::SendFailed { detail } => self.handle_send_failed(detail),
                TransportEvent::ConnectionLost { detail, text } => {
                    let code = EventCode::KeepAliveFailed;
                    let detail = detail as u16;
                    self.outputs.push_back(Output::event(code, detail, 0, text));
                }
            }
        }
        self.start_next(now);
    }

    fn report_response(&self, now: Instant, response: &[u8]) {
        if let Some(policy) = &self.policy {
            policy.handle_response(now, response);
        }
    }

    /// Whether this PDU answers a TesterPresent that the connector has sent by itself. The operator must not get an
    /// answer to a request that the operator did not send.
    fn is_for_keep_alive(&self, now: Instant, pdu: &[u8]) -> bool {
        self.keep_alive.expects_answer(now)
            && uds::is_response_to(uds::TESTER_PRESENT, pdu)
            && !self.last.is_pending_for(uds::TESTER_PRESENT)
    }

    /// Whether the operator awaits a response of this service.
    pub(crate) fn awaits(&self, service: u8) -> bool {
        self.last.is_pending_for(service)
    }

    fn handle_sent(&mut self, now: Instant, elapsed: Duration) {
        self.keep_alive.postpone(now);
        if self.sending == Some(Origin::KeepAlive) {
            self.keep_alive.handle_sent(now);
        }
        if self.sending == Some(Origin::Question) {
            self.own.handle_sent(now);
        }
        if let Some(Origin::Operator { confirm }) = self.sending.take() {
            if confirm {
                let value = u32::try_from(elapsed.as_micros()).unwrap_or(u32::MAX);
                self.outputs.push_back(Output::event(EventCode::Sent, 0, value, ""));
            }
            self.last.handle_sent(now, self.transport.agreed_p2());
        }
    }

    pub(super) fn handle_send_failed(&mut self, detail: SendFailedDetail) {
        let Some(origin) = self.sending.take() else { return };
        let text = self.transport.failure_text().unwrap_or_else(|| describe(detail).to_owned());
        let code = match origin {
            // the question stays without an answer
            Origin::Question => return,
            Origin::KeepAlive => EventCode::KeepAliveFailed,
            Origin::Operator { .. } => EventCode::SendFailed,
        };
        self.outputs.push_back(Output::event(code, detail as u16, 0, text));
        if matches!(origin, Origin::Operator { .. }) {
            self.handle_request_not_sent();
        }
    }
}
