//! The stages of a scan.

use std::time::Instant;

use crate::vehicle::scan::report::EcuFound;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanStage {
    Listening {
        until: Instant,
    },
    /// Asks by OBD whether the vehicle stands.
    Motion,
    /// Asks by UDS whether the vehicle stands, if no ECU reported its speed by OBD.
    MotionByUds,
    Standard,
    /// Assigns answers to requests.
    Resolving,
    Extended,
    ExtendedAddresses,
    /// Asks an ECU that was found again, alone, because answers may have fitted by accident.
    Confirming {
        ecu: EcuFound,
        then: AfterConfirming,
    },
    Tp20,
    Tp20OtherForms,
    Finished,
}

/// The stage in which ECUs had to be confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AfterConfirming {
    Resolving,
    Tp20,
}

impl ScanStage {
    /// Whether one answer is expected, after which the next question follows.
    pub(super) fn asks_alone(self) -> bool {
        matches!(self, Self::Resolving | Self::Confirming { .. })
    }
}
