//! What other nodes send without being asked: identifiers that the scan does not use, and frames that
//! only look like answers.

use std::collections::{BTreeMap, BTreeSet};

use connector_hal::can::{CanFrame, CanId};

use super::answer::{is_diagnostic, is_tester_present_answer};
use super::plan::{ScanProbe, is_gmlan};
use crate::protocol::tp20::{LogicalAddress, SetupMessage};
use crate::vehicle::tester_traffic::is_obd_answer_id;

/// The most identifiers that are kept; a bus has fewer. All 2048 of 11 bits have room.
const MAX_HEARD: usize = 4096;

/// After the first question, an identifier that is heard unasked as often as this is one of the vehicle's own
/// messages. A single frame may be an ECU's unusual reaction to a question.
const UNASKED_ENOUGH: u8 = 3;

/// The identifiers that were heard without being asked.
#[derive(Debug, Default)]
pub(super) struct Noise {
    heard: BTreeSet<CanId>,
    /// Identifiers of frames since the first question that answer none, and how often they were heard.
    unasked: BTreeMap<CanId, u8>,
    /// Identifiers of frames that look like answers to TesterPresent.
    answers: BTreeSet<CanId>,
    /// Identifiers of frames that look like answers to a TP2.0 channel set-up.
    setups: BTreeSet<CanId>,
}

impl Noise {
    /// A frame came before the first question. Returns whether it shows that the bus is in use; an ECU's
    /// answer to another tester does not.
    pub(super) fn handle_frame(&mut self, frame: &CanFrame) -> bool {
        let id = frame.id();
        let is_in_use = !is_obd_answer_id(id);
        if self.heard.len() >= MAX_HEARD {
            return is_in_use;
        }
        self.heard.insert(id);
        if is_tester_present_answer(frame.data()) {
            self.answers.insert(id);
        }
        if frame.len() == 7 && SetupMessage::decode(frame.data()).is_some() {
            self.setups.insert(id);
        }
        is_in_use
    }

    /// A frame came after the first question. Returns whether it shows that the bus is in use.
    pub(super) fn handle_later_frame(&mut self, frame: &CanFrame) -> bool {
        let id = frame.id();
        if is_diagnostic(frame) || self.unasked.len() >= MAX_HEARD && !self.unasked.contains_key(&id) {
            return false;
        }
        self.heard.insert(id);
        let count = self.unasked.entry(id).or_default();
        *count = count.saturating_add(1);
        *count >= UNASKED_ENOUGH
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
