//! What other nodes send without being asked: identifiers that the scan does not use, and frames that
//! only look like answers.

use std::collections::BTreeSet;

use connector_hal::can::{CanFrame, CanId};

use super::answer::{is_diagnostic, is_tester_present_answer};
use super::plan::{ScanProbe, is_gmlan};
use crate::protocol::tp20::{LogicalAddress, SetupMessage};

/// The most identifiers that are kept; a bus has fewer. All 2048 of 11 bits have room.
const MAX_HEARD: usize = 4096;

/// The identifiers that were heard without being asked.
#[derive(Debug, Default)]
pub(super) struct Noise {
    heard: BTreeSet<CanId>,
    /// Identifiers of frames that look like answers to TesterPresent.
    answers: BTreeSet<CanId>,
    /// Identifiers of frames that look like answers to a TP2.0 channel set-up.
    setups: BTreeSet<CanId>,
}

impl Noise {
    /// A frame came before the first question.
    pub(super) fn handle_frame(&mut self, frame: &CanFrame) {
        let id = frame.id();
        if self.heard.len() >= MAX_HEARD {
            return;
        }
        self.heard.insert(id);
        if is_tester_present_answer(frame.data()) {
            self.answers.insert(id);
        }
        if frame.len() == 7 && SetupMessage::decode(frame.data()).is_some() {
            self.setups.insert(id);
        }
    }

    /// A frame came after the first question.
    pub(super) fn handle_later_frame(&mut self, frame: &CanFrame) {
        if !is_diagnostic(frame) && self.heard.len() < MAX_HEARD {
            self.heard.insert(frame.id());
        }
    }

    /// This ECU must not be asked for a TP2.0 channel.
    pub(super) fn exclude_tp20(&mut self, ecu: LogicalAddress) {
        self.setups.insert(ecu.setup_response_id());
    }

    pub(super) fn was_heard(&self, id: CanId) -> bool {
        self.heard.contains(&id)
    }

    /// Whether a frame with this identifier can be an answer to TesterPresent.
    pub(super) fn allows_answer(&self, id: CanId) -> bool {
        !self.answers.contains(&id)
    }

    pub(super) fn has_gmlan_traffic(&self) -> bool {
        self.heard.iter().any(|id| is_gmlan(*id))
    }

    /// Whether no other node uses the identifiers of a question.
    pub(super) fn allows(&self, probe: &ScanProbe) -> bool {
        match probe {
            ScanProbe::Motion { .. } => true,
            ScanProbe::Setup { ecu, .. } => {
                !self.was_heard(probe.request()) && !self.setups.contains(&ecu.setup_response_id())
            }
            ScanProbe::TesterPresent { .. } | ScanProbe::Disconnect { .. } => {
                !self.was_heard(probe.request())
            }
        }
    }
}
