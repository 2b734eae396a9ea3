//! The response that chained PDUs wait for (relay protocol, section 4).

use std::time::{Duration, Instant};

use crate::protocol::uds::{
    NEGATIVE_RESPONSE, POSITIVE_OFFSET, RESPONSE_PENDING, SESSION_CONTROL, suppresses_positive_response,
};

/// The times in which an ECU has to respond (ISO 14229-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResponseTiming {
    /// From the request to the response, or to response pending (P2).
    pub p2: Duration,
    /// From response pending to the response, or to the next response pending (P2*).
    pub p2_star: Duration,
}

/// The code of a request that failed without a negative response.
pub(super) const NO_RESPONSE: u8 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No PDU was sent yet, or the last one got its positive response.
    Answered,
    /// The PDU is being sent.
    Sending { service: u8, needs_no_response: bool },
    /// The response is due. The deadline does not apply while a response is being received. An ECU that needs not
    /// respond sends no positive response (ISO 14229-1, 8.2.2), and has succeeded at the deadline.
    Awaiting { service: u8, deadline: Instant, is_receiving: bool, needs_no_response: bool },
    /// The PDU failed, with the code of the negative response or [`NO_RESPONSE`].
    Failed { code: u8 },
}

/// Whether a PDU that is chained to the last request may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Permission {
    /// The last request got its positive response.
    Granted,
    /// The last request has no response yet.
    Pending,
    /// The last request failed with this code.
    Denied { code: u8 },
}

/// The last PDU that a channel sent, and the response to it.
///
/// A request fails by a negative response, by a deadline (P2, P2*), or because it was not sent. The methods that
/// find a failure return its code.
#[derive(Debug)]
pub(super) struct LastRequest {
    state: State,
    timing: ResponseTiming,
}

/// What the client adds to the times of the ECU for the way through network and bus (ΔP2 of ISO 14229-2).
const DELTA_P2: Duration = Duration::from_millis(500);

impl LastRequest {
    /// The state before the first PDU.
    pub(super) fn new(timing: ResponseTiming) -> Self {
        Self { state: State::Answered, timing }
    }

    /// Whether a chained PDU may be sent.
    pub(super) fn permission(&self) -> Permission {
        match self.state {
            State::Answered => Permission::Granted,
            State::Sending { .. } | State::Awaiting { .. } => Permission::Pending,
            State::Failed { code } => Permission::Denied { code },
        }
    }

    /// Whether the request is being sent.
    pub(super) fn is_sending(&self) -> bool {
        matches!(self.state, State::Sending { .. })
    }

    /// The channel begins to send a PDU.
    pub(super) fn begin(&mut self, pdu: &[u8]) {
        let service = pdu.first().copied().unwrap_or(0);
        self.state = State::Sending { service, needs_no_response: suppresses_positive_response(pdu) };
    }

    /// The request was sent on the bus. The response may take a longer time than P2 that was agreed upon.
    pub(super) fn handle_sent(&mut self, now: Instant, agreed_p2: Option<Duration>) {
        if let State::Sending { service, needs_no_response } = self.state {
            let p2 = agreed_p2.map_or(self.timing.p2, |agreed| agreed.max(self.timing.p2));
            let deadline = now + p2;
            self.state = State::Awaiting { service, deadline, is_receiving: false, needs_no_response };
        }
    }

    /// The request could not be sent.
    pub(super) fn handle_send_failed(&mut self) -> Option<u8> {
        self.is_sending().then(|| self.fail(NO_RESPONSE))
    }

    /// The reception of a response began, which ends P2.
    pub(super) fn handle_reception_started(&mut self) {
        if let State::Awaiting { is_receiving, .. } = &mut self.state {
            *is_receiving = true;
        }
    }

    /// The reception of a response failed: the deadline applies again.
    pub(super) fn handle_reception_failed(&mut self) {
        if let State::Awaiting { is_receiving, .. } = &mut self.state {
            *is_receiving = false;
        }
    }

    /// Handles a PDU of the ECU.
    pub(super) fn handle_response(&mut self, now: Instant, response: &[u8]) -> Option<u8> {
        self.handle_reception_failed();
        let (State::Sending { service, .. } | State::Awaiting { service, .. }) = self.state else {
            return None;
        };
        match response {
            [first, ..] if *first == service.wrapping_add(POSITIVE_OFFSET) => {
                self.learn_timing(response);
                self.state = State::Answered;
            }
            [NEGATIVE_RESPONSE, refused, RESPONSE_PENDING, ..] if *refused == service => {
                // the final response is sent also if the request suppresses it
                self.state = State::Awaiting {
                    service,
                    deadline: now + self.timing.p2_star,
                    is_receiving: false,
                    needs_no_response: false,
                };
            }
            [NEGATIVE_RESPONSE, refused, code, ..] if *refused == service => return Some(self.fail(*code)),
            _ => {}
        }
        None
    }

    /// Handles the deadline of [`LastRequest::poll_timeout`].
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<u8> {
        self.poll_timeout().filter(|deadline| *deadline <= now)?;
        if let State::Awaiting { needs_no_response: true, .. } = self.state {
            self.state = State::Answered;
            return None;
        }
        Some(self.fail(NO_RESPONSE))
    }

    /// Takes longer times of the ECU from the positive response to DiagnosticSessionControl: P2 in ms, P2* in 10 ms
    /// (ISO 14229-1, 10.2.3).
    fn learn_timing(&mut self, response: &[u8]) {
        const RESPONSE: u8 = SESSION_CONTROL + POSITIVE_OFFSET;
        let [RESPONSE, _session, p2_high, p2_low, star_high, star_low, ..] = *response else { return };
        let p2 = Duration::from_millis(u64::from(u16::from_be_bytes([p2_high, p2_low])));
        let p2_star = Duration::from_millis(10 * u64::from(u16::from_be_bytes([star_high, star_low])));
        self.timing.p2 = self.timing.p2.max(p2 + DELTA_P2);
        self.timing.p2_star = self.timing.p2_star.max(p2_star + DELTA_P2);
    }

    /// Whether the response to a request of this service is due.
    pub(super) fn is_pending_for(&self, service: u8) -> bool {
        matches!(self.state, State::Sending { service: sent, .. } | State::Awaiting { service: sent, .. } if sent == service)
    }

    /// When the response is overdue.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.state {
            State::Awaiting { deadline, is_receiving: false, .. } => Some(deadline),
            _ => None,
        }
    }

    fn fail(&mut self, code: u8) -> u8 {
        self.state = State::Failed { code };
        code
    }
}
