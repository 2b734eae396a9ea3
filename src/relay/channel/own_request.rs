//! A request of the connector itself on a channel of the operator, whose answer the operator does not get.

use std::time::{Duration, Instant};

use super::last_request::LastRequest;
use crate::protocol::uds::{self, NEGATIVE_RESPONSE, RESPONSE_PENDING};

/// How long the PDUs of the operator wait for the answer to the connector's request after it was sent: most ECUs answer
/// within P2, which is 50 ms, and a gateway adds its own time.
const HOLD: Duration = Duration::from_millis(250);
/// How long an answer after that still belongs to the connector's request: P2* (ISO 14229-2).
const LATE: Duration = uds::P2_STAR;
/// The services whose response repeats two bytes of the request (ISO 14229-1, 11.2, 11.7 and 13.2).
const WITH_IDENTIFIER: [u8; 3] = [0x22, 0x2E, 0x2F];

/// A request of the connector itself.
#[derive(Debug)]
struct OwnQuestion {
    service: u8,
    /// What a positive response repeats.
    echo: Vec<u8>,
    answer: Option<Vec<u8>>,
    /// Whether the request ends by itself, and holds back the operator's PDUs.
    is_brief: bool,
    /// Since when the request is with the ECU.
    sent: Option<Instant>,
    is_answered: bool,
}

impl OwnQuestion {
    fn new(request: &[u8], is_brief: bool) -> Option<Self> {
        let (service, rest) = request.split_first()?;
        let repeated = if WITH_IDENTIFIER.contains(service) { 2 } else { 1 };
        let echo = rest.get(..repeated).unwrap_or(rest).to_vec();
        Some(Self { service: *service, echo, answer: None, is_brief, sent: None, is_answered: false })
    }

    fn is_answered_by(&self, now: Instant, pdu: &[u8]) -> bool {
        if !self.is_brief {
            return true;
        }
        let is_late = self.sent.is_none_or(|sent| now.saturating_duration_since(sent) > LATE);
        match pdu {
            [NEGATIVE_RESPONSE, ..] => !is_late && !self.is_answered,
            // a response of KWP2000 may repeat less
            [_, rest @ ..] => !is_late && rest.iter().zip(&self.echo).all(|(is, asked)| is == asked),
            [] => false,
        }
    }
}

/// The last request of the connector itself on a channel.
#[derive(Debug, Default)]
pub(crate) struct OwnRequest {
    question: Option<OwnQuestion>,
    /// Until when the operator's PDUs wait for the answer.
    held_until: Option<Instant>,
}

impl OwnRequest {
    /// Handles a request that is on its way. A brief one ends by itself; the other kind ends with [`OwnRequest::end`].
    pub(super) fn begin(&mut self, request: &[u8], is_brief: bool) {
        self.question = OwnQuestion::new(request, is_brief);
    }

    /// Handles the transmission of the request.
    pub(super) fn handle_sent(&mut self, now: Instant) {
        if let Some(question) = &mut self.question {
            question.sent = Some(now);
            self.held_until = question.is_brief.then_some(now + HOLD);
        }
    }

    /// Whether this PDU answers the request, and no request of the operator to the same service.
    pub(super) fn is_answered_by(&self, now: Instant, pdu: &[u8], last: &LastRequest) -> bool {
        self.question.as_ref().is_some_and(|question| {
            uds::is_response_to(question.service, pdu)
                && !last.is_pending_for(question.service)
                && question.is_answered_by(now, pdu)
        })
    }

    /// Handles an answer.
    pub(super) fn handle_answer(&mut self, pdu: Vec<u8>) {
        let Some(question) = &mut self.question else { return };
        if !matches!(pdu.as_slice(), [NEGATIVE_RESPONSE, _, RESPONSE_PENDING, ..]) {
            question.is_answered = true;
            self.held_until = None;
        }
        question.answer = Some(pdu);
    }

    /// The newest answer.
    pub(crate) fn take_answer(&mut self) -> Option<Vec<u8>> {
        self.question.as_mut().and_then(|question| question.answer.take())
    }

    /// No answer is expected any more.
    pub(crate) fn end(&mut self) {
        *self = Self::default();
    }

    /// Handles the passing of time.
    pub(super) fn handle_timeout(&mut self, now: Instant) {
        self.held_until.take_if(|until| *until <= now);
    }

    /// Until when the operator's PDUs wait for the answer.
    pub(super) fn held_until(&self) -> Option<Instant> {
        self.held_until
    }
}
