//! Whether the answers of ECUs prove them.
//!
//! Usually, an ECU is proved by one answer to a request that was sent alone, or by an answer that names the
//! request. On a bus where some node answers at random, such an answer can come by accident; there, an ECU must
//! answer three times more.

use std::collections::BTreeMap;

use crate::vehicle::scan::report::{EcuFound, ScanProtocol};

/// The number of further answers that prove an ECU on a bus where some node answers at random: if the node uses 16
/// identifiers, three such accidents follow each other once in 4096 times.
const CONFIRMATIONS: u8 = 3;

#[derive(Debug, Default)]
pub(super) struct Proofs {
    is_doubtful: bool,
    /// The number of further answers of each ECU.
    confirmed: BTreeMap<EcuFound, u8>,
}

impl Proofs {
    /// Some node answers what it was not asked, if `is_strange`.
    pub(super) fn doubt_if(&mut self, is_strange: bool) {
        self.is_doubtful |= is_strange;
    }

    /// The ECU answered once more, alone.
    pub(super) fn confirm(&mut self, ecu: EcuFound) {
        let answers = self.confirmed.entry(ecu).or_default();
        *answers = answers.saturating_add(1);
    }

    /// Whether the ECU is proved. A TP2.0 channel is granted by name, for one ECU.
    pub(super) fn suffice(&self, ecu: &EcuFound) -> bool {
        !self.is_doubtful
            || ecu.protocol == ScanProtocol::Tp20
            || self.confirmed.get(ecu) >= Some(&CONFIRMATIONS)
    }

    /// An ECU that is not proved.
    pub(super) fn unconfirmed<'a>(&self, mut found: impl Iterator<Item = &'a EcuFound>) -> Option<EcuFound> {
        found.find(|ecu| !self.suffice(ecu)).copied()
    }
}
