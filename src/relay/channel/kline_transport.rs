//! PDUs over an ISO 14230 link.

use std::collections::VecDeque;
use std::time::Instant;

use super::output::BATTERY_SPARED;
use super::pdu_channel::{PduTransport, TransportEvent};
use crate::protocol::kline::{Endpoint, Event, Failure, KeyBytes, ReceiveFailure, SendError};
use crate::protocol::uds;
use crate::relay::wire::codec::SendFailedDetail;

/// What became of the link below a channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LinkChange {
    /// It is set up.
    Up(KeyBytes),
    /// It could not be set up, or is lost.
    Down(Failure),
}

/// A link to one ECU; the bus moves the endpoint along, since its line is shared.
#[derive(Debug)]
pub struct KlineTransport {
    endpoint: Endpoint,
    changes: VecDeque<LinkChange>,
    is_line_lost: bool,
    /// Whether TesterPresent is sent on it.
    is_kept_alive: bool,
    /// The operator knows that it is not.
    is_end_told: bool,
}

impl KlineTransport {
    /// A transport over this link.
    pub fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            changes: VecDeque::new(),
            is_line_lost: false,
            is_kept_alive: true,
            is_end_told: false,
        }
    }

    /// The link.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The same, to be moved along.
    pub fn endpoint_mut(&mut self) -> &mut Endpoint {
        &mut self.endpoint
    }

    /// What became of the link, once the channel has taken the transport's events.
    pub fn poll_change(&mut self) -> Option<LinkChange> {
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
                    self.changes.push_back(LinkChange::Up(key_bytes));
                    continue;
                }
                Event::Down(failure) => {
                    self.changes.push_back(LinkChange::Down(failure));
                    continue;
                }
                // the chain has a deadline of its own for an answer that does not come
                Event::NoAnswer | Event::Stopped => continue,
                Event::ReceptionStarted => TransportEvent::ReceptionStarted,
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

    fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        self.endpoint.set_keep_alive(now, enabled);
        self.is_kept_alive = enabled;
        self.is_end_told &= !enabled;
    }

    // the bus keeps the endpoint's time
    fn handle_timeout(&mut self, _now: Instant) {}

    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    fn handle_bus_off(&mut self, _now: Instant) {
        self.endpoint.handle_line_lost();
        self.is_line_lost = true;
    }

    fn is_receiving(&self) -> bool {
        self.endpoint.is_receiving()
    }

    fn tester_present(&self) -> &'static [u8] {
        &uds::KWP_TESTER_PRESENT
    }
}

impl KlineTransport {
    /// Tells once that a link which is set up will end, for want of TesterPresent.
    fn poll_keep_alive_end(&mut self) -> Option<TransportEvent> {
        let is_news = !self.is_kept_alive && self.endpoint.is_up();
        if !is_news || std::mem::replace(&mut self.is_end_told, true) {
            return None;
        }
        Some(TransportEvent::ConnectionLost {
            detail: SendFailedDetail::RefusedByPolicy,
            text: BATTERY_SPARED,
        })
    }

    /// The line is there again: the link is set up anew.
    pub fn handle_line_back(&mut self) {
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

/// A failure in words that need no memory.
pub fn describe_failure(failure: Failure) -> &'static str {
    match failure {
        Failure::NoEcho => "our own bytes do not come back from the K-line",
        Failure::Collision { .. } => "our own bytes come back as others from the K-line",
        Failure::NoAnswer => "the ECU does not answer",
        Failure::Disturbed => "the ECU's answer is disturbed",
        Failure::Synchronisation(_) => "the synchronisation byte is not 0x55: is the bit rate right?",
        Failure::KeyBytes(_) => "the ECU's key bytes are not of ISO 14230",
        Failure::OtherKeyBytes(_) => "the ECU's key bytes are not the channel's keyword",
        Failure::Address(_) => "the ECU confirmed another address",
        Failure::Refused(_) => "the ECU refused StartCommunication",
        Failure::TooLong(_) => "the ECU cannot take a PDU of this length",
        Failure::NotKeptAlive => "the K-line was not free for TesterPresent: the ECU's session is over",
        Failure::Aborted => "it was taken back",
    }
}
