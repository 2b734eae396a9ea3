//! What the answers of ECUs mean in each stage of a scan.

use std::time::Instant;

use connector_hal::can::{CanFrame, CanId};

use super::{MAX_DISCONNECTS, Scanner};
use crate::protocol::tp20::LogicalAddress;
use crate::vehicle::scan::can::answer::{fixed_addressing_answer, setup_answer, tp20_ecu};
use crate::vehicle::scan::can::plan::ScanProbe;
use crate::vehicle::scan::can::stage::ScanStage;
use crate::vehicle::scan::report::EcuFound;
use crate::vehicle::tester_traffic::is_obd_answer_id;

impl Scanner {
    pub(super) fn handle_answer(&mut self, now: Instant, answer: CanId) {
        if let ScanStage::Confirming { ecu, .. } = self.stage {
            if ecu.response == answer && ecu.extended_request_address.is_none() {
                self.handle_confirmed(now, ecu);
            }
            return;
        }
        if answer.is_extended() {
            match fixed_addressing_answer(answer, self.sent.answerable()) {
                Some(ecu) => self.add(ecu),
                // the answer names an ECU that was not asked
                None => self.proofs.doubt_if(is_obd_answer_id(answer)),
            }
            return;
        }
        match self.stage {
            ScanStage::Resolving
                if self.resolver.handle_answer_again(answer)
                    && self.expected.take_if(|id| *id == answer).is_some() =>
            {
                self.answers_until = Some(now);
                self.queue.clear();
            }
            ScanStage::Standard => {
                let requests: Vec<CanId> = self
                    .sent
                    .answerable()
                    .filter(|probe| matches!(probe, ScanProbe::TesterPresent { extended: None, .. }))
                    .map(|probe| probe.request())
                    .filter(|request| !request.is_extended())
                    .collect();
                if !requests.is_empty() {
                    self.resolver.handle_answer(answer, requests.into_iter());
                }
            }
            _ => {}
        }
    }

    pub(super) fn handle_extended_address_answer(&mut self, now: Instant, ecu: EcuFound) {
        match self.stage {
            ScanStage::ExtendedAddresses => self.add(ecu),
            ScanStage::Confirming { ecu: asked, .. } if asked == ecu => self.handle_confirmed(now, ecu),
            _ => {}
        }
    }

    /// The ECU that is being asked alone answered. Only the first answer after the question counts.
    fn handle_confirmed(&mut self, now: Instant, ecu: EcuFound) {
        let is_asked = self.sent.answerable().any(|probe| probe.request() == ecu.request);
        if !is_asked || self.expected.take().is_none() {
            return;
        }
        self.proofs.confirm(ecu);
        self.answers_until = Some(now);
    }

    pub(super) fn handle_setup_answer(&mut self, frame: &CanFrame) {
        let was_heard = self.noise.was_heard(frame.id());
        let Some(answer) = setup_answer(frame, self.sent.answerable(), was_heard) else { return };
        let is_disconnect = |probe: &&ScanProbe| matches!(probe, ScanProbe::Disconnect { .. });
        if let Some(request) = answer.opened
            && self.queue.iter().filter(is_disconnect).count() < MAX_DISCONNECTS
        {
            self.queue.push_front(ScanProbe::Disconnect { request });
        }
        self.cancel_setups(answer.ecu);
        self.add(tp20_ecu(answer.ecu));
    }

    /// Removes the channel set-ups to this ECU from the queue.
    pub(super) fn cancel_setups(&mut self, ecu: LogicalAddress) {
        self.queue.retain(|probe| !matches!(probe, ScanProbe::Setup { ecu: other, .. } if *other == ecu));
    }

    pub(super) fn add(&mut self, ecu: EcuFound) {
        self.found.entry((ecu.response, ecu.extended_request_address)).or_insert_with(|| {
            tracing::debug!(%ecu, "found an ECU");
            ecu
        });
    }
}
