//! Answers of the ECU: reception, assignment to a request, and timeouts.

use std::time::Instant;

use super::Endpoint;
use super::turn::{Exchange, TurnPhase};
use crate::protocol::kline::event::{Event, Failure, ReceiveFailure};
use crate::protocol::kline::message::Message;
use crate::protocol::kline::timing::LATENCY_ALLOWANCE;
use crate::protocol::uds::{
    NEGATIVE_RESPONSE, POSITIVE_OFFSET, RESPONSE_PENDING, START_COMMUNICATION, TESTER_PRESENT, is_response_to,
};

impl Endpoint {
    pub(super) fn handle_answer_byte(&mut self, now: Instant, byte: u8) {
        let p1 = now + self.timing().p1_max + LATENCY_ALLOWANCE;
        let (exchange, window, is_pending, is_answered) = match &mut self.phase {
            TurnPhase::Draining { until, .. } => {
                *until = p1;
                return;
            }
            TurnPhase::Awaiting { exchange, until, is_pending, is_answered } => {
                if let Exchange::Pdu { .. } = exchange {
                    self.events.push_back(Event::ReceptionStarted);
                }
                (*exchange, *until, *is_pending, *is_answered)
            }
            TurnPhase::Receiving { exchange, window, is_pending, is_answered, .. } => {
                (*exchange, *window, *is_pending, *is_answered)
            }
            _ => return,
        };
        self.phase = TurnPhase::Receiving { exchange, until: p1, window, is_pending, is_answered };
        match self.decoder.push(byte) {
            None => {}
            Some(Ok(message)) => {
                self.phase = TurnPhase::Awaiting { exchange, until: window, is_pending, is_answered };
                self.handle_answer(now, exchange, message);
            }
            Some(Err(error)) => {
                self.phase = TurnPhase::Draining { exchange, until: p1 };
                if let Exchange::Pdu { .. } = exchange {
                    self.events.push_back(Event::ReceiveFailed(error.into()));
                }
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, exchange: Exchange, message: Message) {
        if message.target().is_some_and(|target| target != self.config.tester) {
            // an answer to another tester
            return;
        }
        let source = message.source().unwrap_or(self.config.addressing.address());
        match exchange {
            Exchange::StartCommunication => self.handle_start_answer(now, &message.data),
            Exchange::Pdu { service } => {
                let is_pending = message.data.starts_with(&[NEGATIVE_RESPONSE, service, RESPONSE_PENDING]);
                self.handle_alive(now);
                self.events.push_back(Event::Received { source, pdu: message.data });
                let timing = self.timing();
                let until = if is_pending {
                    now + timing.p2_star + LATENCY_ALLOWANCE
                } else {
                    // more answers may follow, and no request may be sent earlier than this
                    now + timing.p3_min
                };
                self.phase = TurnPhase::Awaiting { exchange, until, is_pending, is_answered: !is_pending };
            }
            Exchange::TesterPresent => {
                self.handle_alive(now);
                if is_response_to(TESTER_PRESENT, &message.data) {
                    self.phase = TurnPhase::Idle;
                } else {
                    // a late answer to the operator's request
                    self.events.push_back(Event::Received { source, pdu: message.data });
                }
            }
            Exchange::StopCommunication => {
                self.phase = TurnPhase::Idle;
                self.finish_stop();
            }
            Exchange::Complement(_) => {}
        }
    }

    fn handle_start_answer(&mut self, now: Instant, data: &[u8]) {
        const POSITIVE: u8 = START_COMMUNICATION + POSITIVE_OFFSET;
        let checked = match data {
            [POSITIVE, first, second, ..] => self.check_key_bytes(*first, *second),
            [NEGATIVE_RESPONSE, START_COMMUNICATION, code, ..] => Err(Failure::Refused(*code)),
            _ => return,
        };
        match checked {
            // other ECUs with the function may answer too; the wait for them is that after any request
            Ok(key_bytes) => {
                self.handle_up(now, key_bytes);
                self.phase = TurnPhase::Idle;
            }
            Err(failure) => self.handle_initialisation_failed(failure),
        }
    }

    /// Takes note that the ECU has answered.
    fn handle_alive(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.alive_at = now;
            link.unanswered = 0;
        }
    }

    pub(super) fn handle_answer_timeout(&mut self, now: Instant) {
        match self.phase {
            TurnPhase::Awaiting { is_answered: true, .. } => self.phase = TurnPhase::Idle,
            TurnPhase::Awaiting { exchange, .. } => self.handle_no_answer(now, exchange, Failure::NoAnswer),
            TurnPhase::Receiving { exchange, .. } => {
                self.decoder.reset();
                if let Exchange::Pdu { .. } = exchange {
                    self.events.push_back(Event::ReceiveFailed(ReceiveFailure::Incomplete));
                }
                self.handle_no_answer(now, exchange, Failure::Disturbed);
            }
            TurnPhase::Draining { exchange, .. } => self.handle_no_answer(now, exchange, Failure::Disturbed),
            _ => {}
        }
    }

    /// Takes note that the answer is missing or incomplete.
    fn handle_no_answer(&mut self, now: Instant, exchange: Exchange, failure: Failure) {
        self.phase = TurnPhase::Idle;
        match exchange {
            Exchange::StartCommunication | Exchange::Complement(_) => {
                self.handle_initialisation_failed(failure)
            }
            Exchange::Pdu { .. } => {
                if failure == Failure::NoAnswer {
                    self.events.push_back(Event::NoAnswer);
                }
                self.suspect_loss(now);
            }
            Exchange::TesterPresent => self.handle_unanswered(now, failure),
            Exchange::StopCommunication => self.finish_stop(),
        }
    }
}
