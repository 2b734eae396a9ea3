//! An ISO 14230 link as a transport of PDUs.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::output::KeepAliveStop;
use super::transport::{PduTransport, TransportEvent};
use crate::protocol::kline::{Endpoint, Event, Failure, KeyBytes, ReceiveFailure, SendError};
use crate::protocol::uds;
use crate::relay::wire::codec::SendFailedDetail;

/// A change of the link below a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KlineLinkChange {
    /// The link is set up.
    Up(KeyBytes),
    /// The link could not be set up, or is lost.
    Down(Failure),
}

/// A link to one ECU. The bus drives the endpoint, because several links share its line.
#[derive(Debug)]
pub(crate) struct KlineTransport {
    endpoint: Endpoint,
    changes: VecDeque<KlineLinkChange>,
    is_line_lost: bool,
    /// Why no TesterPresent is sent over the link.
    keep_alive_stop: Option<KeepAliveStop>,
    /// Whether the operator was notified that TesterPresent is stopped.
    is_end_reported: bool,
}

impl KlineTransport {
    /// A transport over this link.
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            changes: VecDeque::new(),
            is_line_lost: false,
            keep_alive_stop: None,
            is_end_reported: false,
        }
    }

    /// The endpoint of the link.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The endpoint of the link, for the bus that drives it.
    pub(crate) fn endpoint_mut(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// The next change of the link. Call it after the channel has handled the events of the transport.
    pub(crate) fn poll_change(&mut self) -> Option<KlineLinkChange> {
        self.changes.pop_front()
    }
}

impl PduTransport for KlineTransport {
    fn send(&mut self, _now: Instant, pdu: &[u8]) -> Result<(), SendFailedDetail> {
        self.endpoint.send(pdu).map_err(|error| match error {
            SendError::Busy => SendFailedDetail::QueueFull,
            SendError::TooLong(_) => SendFailedDetail::RefusedByPolicy,
        })
    }

    fn abort_send(&mut self) {
        self.endpoint.abort_send();
    }

    fn poll_event(&mut self) -> Option<TransportEvent> {
        loop {
            let Some(event) = self.endpoint.poll_event() else { return self.poll_keep_alive_end() };
            return Some(match event {
                Event::Up(key_bytes) => {
                    self.changes.push_back(KlineLinkChange::Up(key_bytes));
                    continue;
                }
                Event::Down(failure) => {
                    self.changes.push_back(KlineLinkChange::Down(failure));
                    continue;
                }
                // the chain has its own deadline for a missing answer
                Event::NoAnswer | Event::AnswersOver | Event::OtherTester | Event::Stopped => continue,
                Event::ReceptionStarted => TransportEvent::ReceptionStarted,
                Event::ReceptionDropped => TransportEvent::ReceptionDropped,
                Event::Received { source, pdu } => TransportEvent::Received { address: source.into(), pdu },
                Event::ReceiveFailed(ReceiveFailure::Incomplete) => {
                    TransportEvent::ReceiveFailed { detail: 1, text: "the next byte did not come (P1)" }
                }
                Event::ReceiveFailed(ReceiveFailure::Message(_)) => {
                    TransportEvent::ReceiveFailed { detail: 2, text: "the message is disturbed (checksum)" }
                }
                Event::Sent { elapsed } => TransportEvent::Sent { elapsed },
                Event::SendFailed(failure) => {
                    let detail =
                        if self.is_line_lost { SendFailedDetail::BusOff } else { detail_of(failure) };
                    TransportEvent::SendFailed { detail }
                }
            });
        }
    }

    fn set_keep_alive(&mut self, now: Instant, stop: Option<KeepAliveStop>) {
        self.endpoint.set_keep_alive(now, stop.is_none());
        self.keep_alive_stop = stop;
        self.is_end_reported &= stop.is_some();
    }

    // the bus handles the deadlines of the endpoint
    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_bus_off(&mut self, _now: Instant) {
        self.endpoint.handle_line_lost();
        self.is_line_lost = true;
    }

    fn agreed_p2(&self) -> Option<Duration> {
        Some(self.endpoint.p2_window())
    }

    fn is_receiving(&self) -> bool {
        self.endpoint.is_receiving()
    }

    fn tester_present(&self) -> &'static [u8] {
        &uds::KWP_TESTER_PRESENT
    }
}

impl KlineTransport {
    /// Reports once that a link will end because TesterPresent is stopped.
    fn poll_keep_alive_end(&mut self) -> Option<TransportEvent> {
        let stop = self.keep_alive_stop.filter(|_| self.endpoint.is_up())?;
        if std::mem::replace(&mut self.is_end_reported, true) {
            return None;
        }
        Some(TransportEvent::ConnectionLost { detail: SendFailedDetail::RefusedByPolicy, text: stop.text() })
    }

    /// The line is back: the link is set up again.
    pub(crate) fn handle_line_back(&mut self) {
        self.is_line_lost = false;
        self.endpoint.connect();
    }
}

fn detail_of(failure: Failure) -> SendFailedDetail {
    match failure {
        Failure::OtherKeyBytes(_) | Failure::KeyBytes(_) | Failure::TooLong(_) => {
            SendFailedDetail::RefusedByPolicy
        }
        _ => SendFailedDetail::NotAcknowledged,
    }
}

/// A description of a failure, as a static string.
pub(crate) fn describe_failure(failure: Failure) -> &'static str {
    match failure {
        Failure::NoEcho => "the K-line does not echo the connector's bytes",
        Failure::Collision { .. } => "the K-line echoes bytes that the connector did not send",
        Failure::NoAnswer => "the ECU does not answer",
        Failure::Disturbed(_) => "the ECU's answer is disturbed",
        Failure::Incomplete(_) => "the ECU stopped in the middle of the initialisation",
        Failure::LineInUse => "the line is in use by another tester",
        Failure::Synchronisation(_) => "the synchronisation byte is not 0x55: check the bit rate",
        Failure::KeyBytes(_) => "the ECU's key bytes are not of ISO 14230",
        Failure::OtherKeyBytes(_) => "the ECU's key bytes are not the channel's keyword",
        Failure::Address(_) => "the ECU confirmed another address",
        Failure::Refused(_) => "the ECU refused StartCommunication",
        Failure::TooLong(_) => "the ECU cannot take a PDU of this length",
        Failure::NotKeptAlive => {
            "the K-line was not free for TesterPresent: communication with the ECU has ended"
        }
        Failure::Aborted => "the request was cancelled",
    }
}
