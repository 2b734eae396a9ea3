//! Asking one DoIP gateway for the VIN by `22 F190` (ISO 14229-1, C.1).

use std::time::{Duration, Instant};

use crate::protocol::vin::{Vin, VinError};
use crate::vehicle::vin::answer::{Service, VinAnswer};

/// The pause before a busy gateway is asked again: P2, the time in which an ECU handles a request (ISO
/// 14229-2).
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A question to one gateway: a pure state machine.
///
/// A busy gateway is asked again until the caller's budget ends: over Ethernet, the repetitions burden no
/// vehicle bus.
#[derive(Debug)]
pub(super) struct GatewayQuestion {
    phase: QuestionPhase,
    was_busy: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum QuestionPhase {
    /// Routing is not active.
    Inactive,
    /// The question is sent at this time.
    Due(Instant),
    /// The question is being sent.
    Sending,
    /// The gateway has the question, and the answer is awaited.
    Asked,
}

/// The reason why a gateway's final answer contains no VIN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoVinReason {
    /// A positive answer without a VIN.
    #[error("the answer to 22 F190 contains no VIN: {0}")]
    NoVin(#[from] VinError),
    /// A negative answer, with its response code.
    #[error("the answer to 22 F190 is negative: 0x{0:02X}")]
    Refused(u8),
}

impl Default for GatewayQuestion {
    fn default() -> Self {
        Self { phase: QuestionPhase::Inactive, was_busy: false }
    }
}

impl GatewayQuestion {
    /// Whether the question is sent.
    pub(super) fn is_asked(&self) -> bool {
        matches!(self.phase, QuestionPhase::Sending | QuestionPhase::Asked) || self.was_busy
    }

    /// Whether the gateway's last answer was "busy".
    pub(super) fn was_busy(&self) -> bool {
        self.was_busy
    }

    /// Routing is active: the question is due immediately.
    pub(super) fn handle_active(&mut self, now: Instant) {
        *self = Self { phase: QuestionPhase::Due(now), was_busy: false };
    }

    /// The connection is lost.
    pub(super) fn handle_lost(&mut self) {
        *self = Self::default();
    }

    /// The gateway has the question: it acknowledged or answered it.
    pub(super) fn handle_sent(&mut self) {
        if self.phase == QuestionPhase::Sending {
            self.phase = QuestionPhase::Asked;
        }
    }

    /// A diagnostic message of the gateway arrived. Returns the final answer; `None` while one is still expected.
    pub(super) fn handle_response(&mut self, now: Instant, pdu: &[u8]) -> Option<Result<Vin, NoVinReason>> {
        if self.phase != QuestionPhase::Asked && !self.was_busy {
            tracing::debug!("ignored a message that came before the question");
            return None;
        }
        match VinAnswer::parse(pdu) {
            VinAnswer::Vin(Service::Uds, vin) => Some(Ok(vin)),
            VinAnswer::NoVin(Service::Uds, error) => Some(Err(error.into())),
            VinAnswer::Refused(Service::Uds, code) => Some(Err(NoVinReason::Refused(code))),
            VinAnswer::Busy(Service::Uds) => {
                *self = Self { phase: QuestionPhase::Due(now + BUSY_PAUSE), was_busy: true };
                None
            }
            VinAnswer::Pending(Service::Uds) => {
                self.was_busy = false;
                None
            }
            _ => None,
        }
    }

    /// The request to send now.
    pub(super) fn poll_transmit(&mut self, now: Instant) -> Option<&'static [u8]> {
        match self.phase {
            QuestionPhase::Due(at) if at <= now => {
                self.phase = QuestionPhase::Sending;
                Some(Service::Uds.request())
            }
            _ => None,
        }
    }

    /// The time of the next call of [`GatewayQuestion::poll_transmit`].
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        match self.phase {
            QuestionPhase::Due(at) => Some(at),
            QuestionPhase::Inactive | QuestionPhase::Sending | QuestionPhase::Asked => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIN: &str = "1M8GDM9AXKP042788";
    const READ_VIN: &[u8] = &[0x22, 0xF1, 0x90];

    fn asked(now: Instant) -> GatewayQuestion {
        let mut question = GatewayQuestion::default();
        question.handle_active(now);
        assert_eq!(question.poll_transmit(now), Some(READ_VIN));
        question.handle_sent();
        question
    }

    fn answer_to(data: &[u8]) -> Option<Result<Vin, NoVinReason>> {
        let now = Instant::now();
        asked(now).handle_response(now, &[&[0x62, 0xF1, 0x90], data].concat())
    }

    #[test]
    fn the_question_is_sent_once_routing_is_active() {
        let now = Instant::now();
        let mut question = GatewayQuestion::default();
        assert_eq!((question.poll_transmit(now), question.poll_timeout()), (None, None));
        question.handle_active(now);
        assert_eq!(question.poll_timeout(), Some(now));
        assert_eq!(question.poll_transmit(now), Some(READ_VIN));
        assert_eq!((question.poll_transmit(now), question.poll_timeout()), (None, None));
    }

    #[test]
    fn a_padded_vin_is_a_vin() {
        for padding in [0x00, 0xFF, b' '] {
            for (before, after) in [(0, 0), (0, 3), (3, 0), (2, 2)] {
                let data = [&vec![padding; before], VIN.as_bytes(), &vec![padding; after]].concat();
                assert_eq!(answer_to(&data), Some(Ok(VIN.parse().unwrap())), "{data:02X?}");
            }
        }
        let with_length = [&[17], VIN.as_bytes()].concat();
        assert_eq!(answer_to(&with_length), Some(Ok(VIN.parse().unwrap())));
    }

    #[test]
    fn a_placeholder_is_not_a_vin() {
        assert_eq!(answer_to(&[b'0'; 17]), Some(Err(VinError::Placeholder.into())));
        assert_eq!(answer_to(&[0; 17]), Some(Err(VinError::Empty.into())));
        assert!(matches!(answer_to(&[0xFF; 17]), Some(Err(NoVinReason::NoVin(_)))));
    }

    #[test]
    fn a_busy_gateway_is_asked_again_after_a_pause_until_it_answers() {
        let mut now = Instant::now();
        let mut question = asked(now);
        for _ in 0..20 {
            assert_eq!(question.handle_response(now, &[0x7F, 0x22, 0x21]), None);
            assert_eq!(question.poll_timeout(), Some(now + BUSY_PAUSE));
            assert_eq!(question.poll_transmit(now + BUSY_PAUSE / 2), None);
            assert!(question.was_busy());
            now += BUSY_PAUSE;
            assert_eq!(question.poll_transmit(now), Some(READ_VIN));
            assert_eq!((question.poll_transmit(now), question.poll_timeout()), (None, None));
        }
        let positive = [&[0x62, 0xF1, 0x90], VIN.as_bytes()].concat();
        assert_eq!(question.handle_response(now, &positive), Some(Ok(VIN.parse().unwrap())));
    }

    #[test]
    fn a_lost_connection_cancels_the_repetition() {
        let now = Instant::now();
        let mut question = asked(now);
        question.handle_response(now, &[0x7F, 0x22, 0x21]);
        question.handle_lost();
        assert_eq!((question.poll_transmit(now + BUSY_PAUSE), question.poll_timeout()), (None, None));
    }

    #[test]
    fn an_answer_before_the_question_does_not_count() {
        let now = Instant::now();
        let positive = [&[0x62, 0xF1, 0x90], VIN.as_bytes()].concat();
        let mut question = GatewayQuestion::default();
        assert_eq!(question.handle_response(now, &positive), None);
        question.handle_active(now);
        for early in [&positive[..], &[0x7F, 0x22, 0x31]] {
            assert_eq!(question.handle_response(now, early), None, "{early:02X?}");
        }
        assert_eq!(question.poll_transmit(now), Some(READ_VIN));
        // this answer may have come before the question reached the gateway
        assert_eq!(question.handle_response(now, &positive), None);
        question.handle_sent();
        // an answer that comes during the pause after "busy" is one to the question
        question.handle_response(now, &[0x7F, 0x22, 0x21]);
        assert_eq!(question.handle_response(now, &positive), Some(Ok(VIN.parse().unwrap())));
    }

    #[test]
    fn response_pending_and_answers_to_other_requests_are_not_final() {
        let now = Instant::now();
        for pdu in [&[0x7F, 0x22, 0x78][..], &[0x7F, 0x3E, 0x21], &[0x62, 0xF1, 0x87, 1], &[0x7E, 0], &[]] {
            let mut question = asked(now);
            assert_eq!(question.handle_response(now, pdu), None, "{pdu:02X?}");
            assert_eq!(question.poll_timeout(), None, "{pdu:02X?}");
        }
        let refused = asked(now).handle_response(now, &[0x7F, 0x22, 0x31]);
        assert_eq!(refused, Some(Err(NoVinReason::Refused(0x31))));
    }
}
