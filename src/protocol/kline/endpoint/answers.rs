//! Answers: put together, told apart, and missed.

use std::time::Instant;

use super::{Endpoint, Job, Phase};
use crate::protocol::kline::event::{Event, Failure, ReceiveFailure};
use crate::protocol::kline::message::Message;
use crate::protocol::kline::timing::LATENCY_ALLOWANCE;

const NEGATIVE_RESPONSE: u8 = 0x7F;
const RESPONSE_PENDING: u8 = 0x78;
const POSITIVE_OFFSET: u8 = 0x40;

impl Endpoint {
    pub(super) fn handle_answer_byte(&mut self, now: Instant, byte: u8) {
        let p1 = now + self.timing().p1_max + LATENCY_ALLOWANCE;
        let (job, window, is_pending, is_answered) = match &mut self.phase {
            Phase::Draining { until, .. } => {
                *until = p1;
                return;
            }
            Phase::Awaiting { job, until, is_pending, is_answered } => {
                if let Job::Pdu { .. } = job {
                    self.events.push_back(Event::ReceptionStarted);
                }
                (*job, *until, *is_pending, *is_answered)
            }
            Phase::Receiving { job, window, is_pending, is_answered, .. } => {
                (*job, *window, *is_pending, *is_answered)
            }
            _ => return,
        };
        self.phase = Phase::Receiving { job, until: p1, window, is_pending, is_answered };
        match self.decoder.push(byte) {
            None => {}
            Some(Ok(message)) => {
                self.phase = Phase::Awaiting { job, until: window, is_pending, is_answered };
                self.handle_answer(now, job, message);
            }
            Some(Err(error)) => {
                self.phase = Phase::Draining { job, until: p1 };
                if let Job::Pdu { .. } = job {
                    self.events.push_back(Event::ReceiveFailed(error.into()));
                }
            }
        }
    }

    fn handle_answer(&mut self, now: Instant, job: Job, message: Message) {
        if message.target().is_some_and(|target| target != self.config.tester) {
            // between others
            return;
        }
        let source = message.source().unwrap_or(self.config.addressing.address());
        match job {
            Job::StartCommunication => self.handle_start_answer(now, &message.data),
            Job::Pdu { service } => {
                let is_pending = message.data.starts_with(&[NEGATIVE_RESPONSE, service, RESPONSE_PENDING]);
                self.handle_life(now);
                self.events.push_back(Event::Received { source, pdu: message.data });
                let timing = self.timing();
                let until = if is_pending {
                    now + timing.p2_star + LATENCY_ALLOWANCE
                } else {
                    // there may be more answers; and nothing may be sent earlier anyway
                    now + timing.p3_min
                };
                self.phase = Phase::Awaiting { job, until, is_pending, is_answered: !is_pending };
            }
            Job::TesterPresent => {
                self.handle_life(now);
                if is_answer_to(super::TESTER_PRESENT, &message.data) {
                    self.phase = Phase::Idle;
                } else {
                    // late, and the operator's
                    self.events.push_back(Event::Received { source, pdu: message.data });
                }
            }
            Job::StopCommunication => {
                self.phase = Phase::Idle;
                self.finish_stop();
            }
            Job::Complement(_) => {}
        }
    }

    fn handle_start_answer(&mut self, now: Instant, data: &[u8]) {
        const POSITIVE: u8 = super::START_COMMUNICATION + POSITIVE_OFFSET;
        let checked = match data {
            [POSITIVE, first, second, ..] => self.check_key_bytes(*first, *second),
            [NEGATIVE_RESPONSE, super::START_COMMUNICATION, code, ..] => Err(Failure::Refused(*code)),
            _ => return,
        };
        match checked {
            // other ECUs of a function may answer too, and are waited for as after any request
            Ok(key_bytes) => {
                self.handle_up(now, key_bytes);
                self.phase = Phase::Idle;
            }
            Err(failure) => self.handle_initialisation_failed(failure),
        }
    }

    /// The ECU is there.
    fn handle_life(&mut self, now: Instant) {
        if let Some(link) = &mut self.link {
            link.alive_at = now;
            link.unanswered = 0;
        }
    }

    pub(super) fn handle_answer_timeout(&mut self, now: Instant) {
        match self.phase {
            Phase::Awaiting { is_answered: true, .. } => self.phase = Phase::Idle,
            Phase::Awaiting { job, .. } => self.handle_no_answer(now, job, Failure::NoAnswer),
            Phase::Receiving { job, .. } => {
                self.decoder.reset();
                if let Job::Pdu { .. } = job {
                    self.events.push_back(Event::ReceiveFailed(ReceiveFailure::Incomplete));
                }
                self.handle_no_answer(now, job, Failure::Disturbed);
            }
            Phase::Draining { job, .. } => self.handle_no_answer(now, job, Failure::Disturbed),
            _ => {}
        }
    }

    /// The answer did not come, or not whole.
    fn handle_no_answer(&mut self, now: Instant, job: Job, failure: Failure) {
        self.phase = Phase::Idle;
        match job {
            Job::StartCommunication | Job::Complement(_) => self.handle_initialisation_failed(failure),
            Job::Pdu { .. } => {
                if failure == Failure::NoAnswer {
                    self.events.push_back(Event::NoAnswer);
                }
                self.doubt(now);
            }
            Job::TesterPresent => self.handle_unanswered(now, failure),
            Job::StopCommunication => self.finish_stop(),
        }
    }
}

fn is_answer_to(service: u8, data: &[u8]) -> bool {
    match data {
        [NEGATIVE_RESPONSE, about, ..] => *about == service,
        [first, ..] => *first == service + POSITIVE_OFFSET,
        [] => false,
    }
}
