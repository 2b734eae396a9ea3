//! The response that chained PDUs wait for (relay protocol, section 4).

use std::time::{Duration, Instant};

use crate::protocol::uds::{NEGATIVE_RESPONSE, P2_STAR, POSITIVE_OFFSET, RESPONSE_PENDING};

/// The code of a request that failed without a negative response.
pub(super) const NO_RESPONSE: u8 = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// No PDU was sent yet, or the last one got its positive response.
    Answered,
    /// The PDU is being sent.
    Sending { service: u8 },
    /// The response is due. The deadline does not apply while a response is being received.
    Awaiting { service: u8, deadline: Instant, is_receiving: bool },
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
    p2: Duration,
}

impl LastRequest {
    /// The state before the first PDU. P2 is the time that a response may take.
    pub(super) fn new(p2: Duration) -> Self {
        Self { state: State::Answered, p2 }
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
        self.state = State::Sending { service: pdu.first().copied().unwrap_or(0) };
    }

    /// The request was sent on the bus. The response may take a longer time than P2 that was agreed upon.
    pub(super) fn handle_sent(&mut self, now: Instant, agreed_p2: Option<Duration>) {
        if let State::Sending { service } = self.state {
            let p2 = agreed_p2.map_or(self.p2, |agreed| agreed.max(self.p2));
            self.state = State::Awaiting { service, deadline: now + p2, is_receiving: false };
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
        let (State::Sending { service } | State::Awaiting { service, .. }) = self.state else { return None };
        match response {
            [first, ..] if *first == service.wrapping_add(POSITIVE_OFFSET) => self.state = State::Answered,
            [NEGATIVE_RESPONSE, refused, RESPONSE_PENDING, ..] if *refused == service => {
                self.state = State::Awaiting { service, deadline: now + P2_STAR, is_receiving: false };
            }
            [NEGATIVE_RESPONSE, refused, code, ..] if *refused == service => return Some(self.fail(*code)),
            _ => {}
        }
        None
    }

    /// Handles the deadline of [`LastRequest::poll_timeout`].
    pub(super) fn handle_timeout(&mut self, now: Instant) -> Option<u8> {
        let is_due = self.poll_timeout().is_some_and(|deadline| deadline <= now);
        is_due.then(|| self.fail(NO_RESPONSE))
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
