//! Answers of the ECU: reception, assignment to a request, and timeouts.

use std::time::{Duration, Instant};

use super::Endpoint;
use super::turn::{Exchange, TurnPhase, Wait};
use crate::protocol::kline::config::MAX_P2;
use crate::protocol::kline::event::{Event, Failure};
use crate::protocol::kline::message::Message;
use crate::protocol::kline::receiver::Lost;
use crate::protocol::kline::timing::LATENCY_ALLOWANCE;
use crate::protocol::uds::{
    NEGATIVE_RESPONSE, OBD_VEHICLE_INFORMATION, POSITIVE_OFFSET, RESPONSE_PENDING, START_COMMUNICATION,
    is_response_to,
};

/// Number of answers to something else that give the ECU more time for its answer. A late answer or two are
/// usual; an ECU that sends without requests must not keep the line for ever.
const MAX_UNRELATED: u32 = 4;

impl Endpoint {
    pub(super) fn handle_answer_byte(&mut self, now: Instant, byte: u8) {
        if self.has_unread_events() {
            return;
        }
        let wait = match self.phase {
            TurnPhase::Awaiting(wait) => {
                self.report_pdu(wait.exchange, Event::ReceptionStarted);
                wait
            }
            TurnPhase::Receiving { wait, .. } => wait,
            _ => return,
        };
        self.receiver.push(byte);
        self.phase = TurnPhase::Awaiting(wait);
        self.handle_received(now);
        if !self.receiver.is_empty()
            && let TurnPhase::Awaiting(wait) = self.phase
        {
            let until = now + self.timing().p1_max + LATENCY_ALLOWANCE;
            self.phase = TurnPhase::Receiving { wait, until };
        }
    }

    /// Handles the messages that the receiver has found, until one of them ends the turn.
    fn handle_received(&mut self, now: Instant) {
        while let TurnPhase::Awaiting(wait) = self.phase {
            match self.receiver.poll() {
                Some(Ok(message)) => self.handle_answer(now, wait, message),
                Some(Err(Lost { failure, heard })) => {
                    self.report_pdu(wait.exchange, Event::ReceiveFailed(failure));
                    let disturbed = wait.disturbed.or(Some(heard));
                    self.phase = TurnPhase::Awaiting(Wait { disturbed, ..wait });
                }
                None => return,
            }
        }
        self.receiver.reset();
    }

    /// Pushes an event if the exchange is that of a PDU.
    fn report_pdu(&mut self, exchange: Exchange, event: Event) {
        if let Exchange::Pdu { .. } = exchange {
            self.events.push_back(event);
        }
    }

    /// Returns the time in which an answer begins.
    pub(crate) fn p2_window(&self) -> Duration {
        self.config.p2.map_or(self.timing().p2_max, |p2| p2.min(MAX_P2)) + LATENCY_ALLOWANCE
    }

    fn handle_answer(&mut self, now: Instant, wait: Wait, message: Message) {
        if message.target().is_some_and(|target| target != self.config.tester) {
            self.events.push_back(Event::OtherTester);
            self.report_pdu(wait.exchange, Event::ReceptionDropped);
            return;
        }
        let source = message.source().unwrap_or(self.config.addressing.address());
        if let Exchange::StartCommunication = wait.exchange {
            return self.handle_start_answer(now, &message.data);
        }
        self.handle_alive(now);
        let is_answer = is_response_to(wait.exchange.service(), &message.data);
        let next = match wait.exchange {
            _ if !is_answer => self.after_unrelated(now, wait),
            Exchange::Pdu { service } => self.after_answer(now, wait, service, source, &message.data),
            // the pause before the next turn is also the wait for the answers of other ECUs
            _ => {
                self.phase = TurnPhase::Idle;
                if wait.exchange == Exchange::StopCommunication {
                    self.finish_stop();
                }
                return;
            }
        };
        // an answer to something else may be a late one to the operator's request
        if !is_answer || matches!(wait.exchange, Exchange::Pdu { .. }) {
            self.events.push_back(Event::Received { source, pdu: message.data });
        }
        self.phase = TurnPhase::Awaiting(next);
    }

    /// Returns the wait after a message that answers something else.
    fn after_unrelated(&self, now: Instant, wait: Wait) -> Wait {
        let unrelated = wait.unrelated + 1;
        let until = if unrelated > MAX_UNRELATED { wait.until } else { now + self.p2_window() };
        Wait { until: until.max(wait.until), unrelated, ..wait }
    }

    /// Returns the wait after an answer to the PDU.
    fn after_answer(&mut self, now: Instant, wait: Wait, service: u8, source: u8, data: &[u8]) -> Wait {
        self.follow_timing_parameters(data);
        if data.starts_with(&[NEGATIVE_RESPONSE, service, RESPONSE_PENDING]) {
            if !self.pending.contains(&source) {
                self.pending.push(source);
            }
            let until = (now + self.timing().p2_star + LATENCY_ALLOWANCE).max(wait.until);
            return Wait { until, is_pending: true, ..wait };
        }
        self.pending.retain(|pending| *pending != source);
        let is_pending = !self.pending.is_empty();
        let until = match service {
            _ if is_pending => wait.until,
            // a longer answer comes in several messages
            OBD_VEHICLE_INFORMATION => now + self.p2_window(),
            // more ECUs may answer, and no request may be sent earlier than this
            _ => now + self.timing().p3_min,
        };
        Wait { until, is_pending, is_answered: true, ..wait }
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
    pub(super) fn handle_alive(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.alive_at = now;
            link.unanswered = 0;
        }
    }

    pub(super) fn handle_answer_timeout(&mut self, now: Instant) {
        match self.phase {
            TurnPhase::Receiving { wait, .. } => {
                self.receiver.handle_silence(wait.exchange.service());
                self.phase = TurnPhase::Awaiting(wait);
                let before = self.events.len();
                self.handle_received(now);
                if self.events.len() == before {
                    self.report_pdu(wait.exchange, Event::ReceptionDropped);
                }
            }
            TurnPhase::Awaiting(wait) => self.handle_answers_over(now, wait),
            _ => {}
        }
    }

    /// Ends the wait for answers.
    fn handle_answers_over(&mut self, now: Instant, wait: Wait) {
        self.phase = TurnPhase::Idle;
        match wait.exchange {
            Exchange::StartCommunication | Exchange::Complement(_) => {
                self.handle_initialisation_failed(wait.failure())
            }
            Exchange::Pdu { .. } => {
                if !wait.is_answered && wait.disturbed.is_none() {
                    self.events.push_back(Event::NoAnswer);
                }
                // an ECU that answers something else is there
                if !wait.is_heard() {
                    self.suspect_loss(now);
                }
                self.events.push_back(Event::AnswersOver);
            }
            Exchange::TesterPresent if wait.is_heard() => {}
            Exchange::TesterPresent => self.handle_unanswered(now, wait.failure()),
            Exchange::StopCommunication => self.finish_stop(),
        }
    }
}
