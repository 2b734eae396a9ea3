//! The ECUs' side of a recording, replayed with the recorded timing.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use connector_hal::can::CanId;

use super::steps::ToolStep;
use crate::vehicle::ecu::{EcuStatus, Nrc, Responder, ScriptProgress, Target, Timer};

/// Limit of the answers that wait for their time or for the transport; more are lost, and counted.
const MAX_DUE: usize = 64;

#[derive(Debug, Clone)]
struct ReplayStep {
    target: Target,
    request: Vec<u8>,
    /// The answers, with their delays after the request's end.
    answers: Vec<(Duration, Vec<u8>)>,
    played: bool,
}

/// An ECU that gives its recorded answers, with their recorded delays.
///
/// It expects requests in the recorded order; it answers a request out of order too, and counts it. It
/// refuses a request that is not in the recording with requestSequenceError, and counts it. TesterPresent
/// without response and functional requests that are not in the recording get no answer, and are not
/// counted.
#[derive(Debug)]
pub struct RecordedEcu {
    steps: Vec<ReplayStep>,
    /// The index after the physical step played last.
    next: usize,
    due: VecDeque<(Instant, Vec<u8>)>,
    responses: VecDeque<Vec<u8>>,
    status: EcuStatus,
    changed: bool,
}

impl RecordedEcu {
    /// The ECU with these identifiers.
    pub(super) fn new(steps: &[ToolStep], request: CanId, response: CanId) -> Self {
        let steps: Vec<ReplayStep> = steps
            .iter()
            .map(|step| {
                let answers = step.answers.iter().filter(|answer| answer.response_id == response);
                ReplayStep {
                    target: step.target,
                    request: step.pdu.clone(),
                    answers: answers.map(|answer| (answer.delay, answer.pdu.clone())).collect(),
                    played: false,
                }
            })
            .zip(steps)
            .filter(|(step, recorded)| match step.target {
                Target::Physical => recorded.request_id == request,
                Target::Functional => !step.answers.is_empty(),
            })
            .map(|(step, _)| step)
            .collect();
        let script = Some(ScriptProgress { played: 0, total: steps.len() });
        let status = EcuStatus { script, ..EcuStatus::default() };
        Self { steps, next: 0, due: VecDeque::new(), responses: VecDeque::new(), status, changed: true }
    }

    /// Finds the step of a request: the next one, otherwise a later one, otherwise one that was already
    /// played.
    fn find(&mut self, target: Target, pdu: &[u8]) -> Option<usize> {
        let from = if target == Target::Physical { self.next } else { 0 };
        let matches = |step: &ReplayStep| step.target == target && step.request == pdu;
        let ahead = self.steps.iter().skip(from).position(|step| matches(step) && !step.played);
        if let Some(ahead) = ahead {
            let index = from + ahead;
            let skipped = self.steps.iter().take(index).skip(from).any(|step| step.target == target);
            if target == Target::Physical && skipped {
                self.status.anomalies.unrecorded_requests += 1;
            }
            return Some(index);
        }
        let again = self.steps.iter().rposition(matches)?;
        if target == Target::Physical {
            self.status.anomalies.unrecorded_requests += 1;
        }
        Some(again)
    }

    fn play(&mut self, now: Instant, index: usize) {
        let Some(step) = self.steps.get_mut(index) else { return };
        if !step.played {
            step.played = true;
            if let Some(script) = &mut self.status.script {
                script.played += 1;
            }
        }
        if step.target == Target::Physical {
            self.next = index + 1;
        }
        if self.due.len() + self.responses.len() + step.answers.len() > MAX_DUE {
            self.status.anomalies.lost_responses += step.answers.len() as u64;
            return;
        }
        self.due.extend(step.answers.iter().map(|(delay, answer)| (now + *delay, answer.clone())));
        self.due.make_contiguous().sort_by_key(|(at, _)| *at);
    }
}

impl Responder for RecordedEcu {
    fn handle_reception_started(&mut self, _now: Instant) {}

    fn handle_reception_failed(&mut self, _now: Instant) {
        self.changed = true;
        self.status.anomalies.broken_receptions += 1;
    }

    fn handle_request(&mut self, now: Instant, target: Target, pdu: &[u8]) {
        self.changed = true;
        self.status.requests += 1;
        let is_tester_present = pdu == [0x3E, 0x80];
        self.status.tester_presents += u64::from(is_tester_present);
        if target == Target::Physical && !self.due.is_empty() && !is_tester_present {
            // the tool did not wait for the answers that it waited for in the recording
            self.status.anomalies.requests_while_busy += 1;
            self.due.clear();
        }
        match self.find(target, pdu) {
            Some(index) => self.play(now, index),
            None if target == Target::Functional || is_tester_present => {}
            None => {
                self.status.anomalies.unrecorded_requests += 1;
                if let Some(service) = pdu.first().filter(|_| self.responses.len() < MAX_DUE) {
                    self.due.push_back((now, Nrc::RequestSequenceError.response(*service)));
                }
            }
        }
    }

    fn handle_response_done(&mut self, _now: Instant, sent: bool) {
        self.changed |= !sent;
        self.status.anomalies.lost_responses += u64::from(!sent);
    }

    fn handle_timeout(&mut self, now: Instant) {
        while self.due.front().is_some_and(|(at, _)| *at <= now) {
            let Some((_, response)) = self.due.pop_front() else { return };
            self.changed = true;
            self.status.responses += 1;
            let pending = matches!(*response, [0x7F, _, code] if code == Nrc::ResponsePending.code());
            self.status.pending_responses += u64::from(pending);
            self.responses.push_back(response);
        }
    }

    fn poll_response(&mut self) -> Option<Vec<u8>> {
        self.responses.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, Timer)> {
        self.due.front().map(|(at, _)| (*at, Timer::Processing))
    }

    fn poll_status(&mut self) -> Option<EcuStatus> {
        std::mem::take(&mut self.changed).then(|| self.status.clone())
    }
}
