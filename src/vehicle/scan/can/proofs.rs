//! Whether the answers of ECUs prove them.
//!
//! Usually, an ECU is proved by one answer to a request that was sent alone, or by an answer that names the
//! request. On a bus where some node answers at random, such an answer can come by accident; there, an ECU must
//! answer once more.

use std::collections::BTreeSet;

use crate::vehicle::scan::report::{EcuFound, ScanProtocol};

#[derive(Debug, Default)]
pub(super) struct Proofs {
    is_doubtful: bool,
    /// The ECUs that answered once more.
    confirmed: BTreeSet<EcuFound>,
}

impl Proofs {
    /// Some node answers what it was not asked, if `is_strange`.
    pub(super) fn doubt_if(&mut self, is_strange: bool) {
        self.is_doubtful |= is_strange;
    }

    /// The ECU answered once more, alone.
    pub(super) fn confirm(&mut self, ecu: EcuFound) {
        self.confirmed.insert(ecu);
    }

    pub(super) fn is_confirmed(&self, ecu: &EcuFound) -> bool {
        self.confirmed.contains(ecu)
    }

    /// Whether the ECU is proved. A TP2.0 channel is granted by name, for one ECU.
    pub(super) fn suffice(&self, ecu: &EcuFound) -> bool {
        !self.is_doubtful || ecu.protocol == ScanProtocol::Tp20 || self.is_confirmed(ecu)
    }

    /// An ECU that is not proved.
    pub(super) fn unconfirmed<'a>(&self, mut found: impl Iterator<Item = &'a EcuFound>) -> Option<EcuFound> {
        found.find(|ecu| !self.suffice(ecu)).copied()
    }
}
