//! The stages of a scan: the questions of each, and the stage that follows.

use std::time::Instant;

use connector_hal::can::CanId;

use super::Scanner;
use crate::vehicle::scan::can::plan::{self, ScanProbe, SetupForm};
use crate::vehicle::scan::can::stage::{AfterConfirming, ScanStage};
use crate::vehicle::scan::outcome::ScanOutcome;
use crate::vehicle::scan::report::{EcuFound, ScanProtocol};
use crate::vehicle::scan::standing::SpeedSource;

impl Scanner {
    /// The stage's questions are asked and answered.
    pub(super) fn end_stage(&mut self, now: Instant) {
        match self.stage {
            ScanStage::Listening { .. } | ScanStage::Finished => {}
            ScanStage::Motion if self.speed_source == SpeedSource::Obd => self.end_motion(now),
            ScanStage::Motion => self.enter(now, ScanStage::MotionByUds),
            ScanStage::MotionByUds => self.end_motion(now),
            ScanStage::Standard => self.enter(now, ScanStage::Resolving),
            ScanStage::Resolving => self.resolve_next(now),
            ScanStage::Extended => self.enter(now, ScanStage::ExtendedAddresses),
            ScanStage::ExtendedAddresses => self.confirm_or_enter_tp20(now),
            ScanStage::Confirming { ecu, then } => self.end_confirming(now, ecu, then),
            ScanStage::Tp20 => {
                let finds_tp20 = self.found.values().any(|ecu| ecu.protocol == ScanProtocol::Tp20);
                // the rarer forms only where they are likely, or where nothing else was found
                if finds_tp20 || self.found.is_empty() {
                    self.enter(now, ScanStage::Tp20OtherForms);
                } else {
                    self.finish_plan();
                }
            }
            ScanStage::Tp20OtherForms => self.finish_plan(),
        }
    }

    /// Decides whether the bus may be scanned.
    fn end_motion(&mut self, now: Instant) {
        if !self.acknowledgement.has_node() {
            // the adapter refused the questions
            self.finish(ScanOutcome::NotAcknowledged);
        } else if self.standing.allows() {
            self.enter(now, ScanStage::Standard);
        } else {
            self.finish(ScanOutcome::MayMove);
        }
    }

    fn finish_plan(&mut self) {
        self.finish(if self.is_cut_short { ScanOutcome::OutOfTime } else { ScanOutcome::Done });
    }

    pub(super) fn enter(&mut self, now: Instant, stage: ScanStage) {
        self.stage = stage;
        self.entered_at = now;
        self.answers_until = None;
        self.sent.forget_recent();
        match stage {
            ScanStage::Motion => {
                self.speed_at = now + super::SPEED_EVERY;
                self.queue.extend(plan::speed());
            }
            ScanStage::MotionByUds => self.queue.extend(plan::speed_by_uds()),
            ScanStage::Standard => {
                let has_gmlan_traffic = self.noise.has_gmlan_traffic();
                let is_asked = |probe: &ScanProbe| !has_gmlan_traffic || !plan::is_gmlan(probe.request());
                self.queue.extend(plan::standard(&self.request.ranges).filter(is_asked));
            }
            ScanStage::Resolving => {
                let later =
                    self.pacing.pause().saturating_mul(plan::count_after_standard(&self.request.ranges));
                let until = self.deadline.checked_sub(later).unwrap_or(now);
                self.resolve_until = until.max(now + super::RESOLVING);
                self.resolve_next(now);
            }
            ScanStage::Extended => self.queue.extend(plan::extended()),
            ScanStage::ExtendedAddresses => {
                // an ECU with its own identifier would take these for other messages
                let is_taken =
                    |probe: &ScanProbe| self.found.values().any(|ecu| ecu.request == probe.request());
                let probes = plan::extended_addresses(&self.request.ranges);
                let probes: Vec<_> = probes.filter(|probe| !is_taken(probe)).collect();
                self.queue.extend(probes);
            }
            ScanStage::Confirming { ecu, .. } => {
                let (request, extended) = (ecu.request, ecu.extended_request_address);
                self.expected = Some(ecu.response);
                self.queue.push_back(ScanProbe::TesterPresent { request, extended });
            }
            ScanStage::Tp20 => self.queue.extend(plan::tp20(&[SetupForm::Transmit])),
            ScanStage::Tp20OtherForms => {
                let found: Vec<CanId> = self.found.values().map(|ecu| ecu.response).collect();
                let is_new = |probe: &ScanProbe| match probe {
                    ScanProbe::Setup { ecu, .. } => !found.contains(&ecu.setup_response_id()),
                    _ => true,
                };
                self.queue.extend(plan::tp20(&[SetupForm::Both, SetupForm::Neither]).filter(is_new));
            }
            ScanStage::Listening { .. } | ScanStage::Finished => {}
        }
        self.queue.retain(|probe| self.noise.allows(probe));
    }

    /// Asks the next question that assigns an answer to a request; without one, the stage is over.
    fn resolve_next(&mut self, now: Instant) {
        self.answers_until = None;
        self.sent.forget_recent();
        let question = self.resolver.next_question();
        let is_late = self.resolve_until <= now;
        // an answer that is left may belong to no request
        self.proofs.doubt_if(self.resolver.has_stray() || is_late && question.is_some());
        self.keep_resolved();
        if let Some(ecu) = self.proofs.unconfirmed(self.found.values()) {
            self.resolver.postpone();
            return self.enter(now, ScanStage::Confirming { ecu, then: AfterConfirming::Resolving });
        }
        match question {
            Some(question) if !is_late => {
                self.expected = Some(question.answer);
                let probes = question.requests.iter();
                self.queue.extend(
                    probes.map(|request| ScanProbe::TesterPresent { request: *request, extended: None }),
                );
            }
            left => {
                self.is_cut_short |= left.is_some();
                self.expected = None;
                self.enter(now, ScanStage::Extended);
            }
        }
    }

    /// Makes the ECUs found with 11-bit identifiers those that the resolver knows.
    fn keep_resolved(&mut self) {
        let is_resolvers = |ecu: &EcuFound| {
            ecu.protocol == ScanProtocol::Isotp
                && !ecu.response.is_extended()
                && ecu.extended_request_address.is_none()
        };
        let resolved: Vec<_> =
            self.resolver.resolved().map(|(of, answer)| EcuFound::isotp(of, answer)).collect();
        self.found.retain(|_, ecu| !is_resolvers(ecu) || resolved.contains(ecu));
        resolved.into_iter().for_each(|ecu| self.add(ecu));
    }

    fn confirm_or_enter_tp20(&mut self, now: Instant) {
        let stage = match self.proofs.unconfirmed(self.found.values()) {
            Some(ecu) => ScanStage::Confirming { ecu, then: AfterConfirming::Tp20 },
            None => ScanStage::Tp20,
        };
        self.enter(now, stage);
    }

    fn end_confirming(&mut self, now: Instant, ecu: EcuFound, then: AfterConfirming) {
        if self.expected.take().is_some() {
            tracing::debug!(%ecu, "did not answer again");
            self.found.retain(|_, found| *found != ecu);
            if ecu.extended_request_address.is_none() {
                self.resolver.retract(ecu.response);
            }
        }
        match then {
            AfterConfirming::Resolving => {
                self.stage = ScanStage::Resolving;
                self.resolve_next(now);
            }
            AfterConfirming::Tp20 => self.confirm_or_enter_tp20(now),
        }
    }

    /// Whether the question must not be asked: another node uses its identifier, or the identifier is known to
    /// be that of an ECU's answers, on which no ECU is asked.
    pub(super) fn is_needless(&self, probe: ScanProbe) -> bool {
        let is_plain = matches!(probe, ScanProbe::TesterPresent { extended: None, .. });
        let is_answer = self.stage == ScanStage::Standard && is_plain && self.resolver.knows(probe.request());
        is_answer || !self.noise.allows(&probe)
    }
}
