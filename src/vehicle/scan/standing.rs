//! The evidence that a vehicle stands: what its ECUs report about speed and engine speed (SAE J1979, ISO
//! 15031-5; SAE J1979-2 by UDS).

/// The request for the vehicle's speed by OBD.
pub(super) const SPEED: [u8; 2] = [0x01, 0x0D];
/// The request for the engine's speed by OBD.
pub(super) const ENGINE_SPEED: [u8; 2] = [0x01, 0x0C];
/// The request for the vehicle's speed by UDS.
pub(super) const SPEED_BY_UDS: [u8; 3] = [0x22, 0xF4, 0x0D];
/// The request for the engine's speed by UDS.
pub(super) const ENGINE_SPEED_BY_UDS: [u8; 3] = [0x22, 0xF4, 0x0C];

/// What an ECU reports about the vehicle's motion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Motion {
    /// The speed is above 0 km/h.
    Moves,
    /// The speed is 0 km/h, or the ignition is on and the engine is off.
    Stands,
    /// The engine runs, which says nothing about the speed.
    EngineRuns,
}

impl Motion {
    /// Reads a response to one of the requests of this module; `None` for any other PDU.
    pub(super) fn parse(pdu: &[u8]) -> Option<Self> {
        match *pdu {
            [0x41, 0x0D, speed, ..] | [0x62, 0xF4, 0x0D, speed, ..] => {
                Some(if speed == 0 { Self::Stands } else { Self::Moves })
            }
            [0x41, 0x0C, high, low, ..] | [0x62, 0xF4, 0x0C, high, low, ..] => {
                Some(if (high, low) == (0, 0) { Self::Stands } else { Self::EngineRuns })
            }
            _ => None,
        }
    }
}

/// How the ECUs of a CAN bus report the vehicle's speed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum SpeedSource {
    /// No ECU reported it.
    #[default]
    None,
    Obd,
    Uds,
}

impl SpeedSource {
    /// A single frame with a report of the vehicle's motion came. OBD counts more than UDS.
    pub(super) fn handle_answer(&mut self, frame: &[u8]) {
        match frame {
            [_, 0x41, 0x0D, ..] => *self = Self::Obd,
            [_, 0x62, 0xF4, 0x0D, ..] if *self == Self::None => *self = Self::Uds,
            _ => {}
        }
    }
}

/// Whether a bus may be scanned, by what is known about the vehicle's motion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Standing {
    has_consent: bool,
    is_reported: bool,
    /// Other nodes send on the bus without being asked, so it is more than a bench with an ECU.
    is_in_use: bool,
}

impl Standing {
    /// `has_consent`: a person made sure that the vehicle stands.
    pub(super) fn new(has_consent: bool) -> Self {
        Self { has_consent, is_reported: false, is_in_use: false }
    }

    pub(super) fn handle_in_use(&mut self) {
        self.is_in_use = true;
    }

    pub(super) fn handle_motion(&mut self, motion: Motion) {
        self.is_reported |= motion == Motion::Stands;
    }

    pub(super) fn allows(self) -> bool {
        self.has_consent || self.is_reported || !self.is_in_use
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_in_use_is_scanned_with_evidence_or_consent_only() {
        assert!(Standing::new(false).allows(), "a silent bus");
        let mut unknown = Standing::new(false);
        unknown.handle_in_use();
        assert!(!unknown.allows());
        unknown.handle_motion(Motion::EngineRuns);
        assert!(!unknown.allows());
        unknown.handle_motion(Motion::Stands);
        assert!(unknown.allows());
        let mut consented = Standing::new(true);
        consented.handle_in_use();
        assert!(consented.allows());
    }

    #[test]
    fn speed_and_engine_speed_are_read_by_obd_and_uds() {
        for (pdu, motion) in [
            (&[0x41, 0x0D, 0][..], Some(Motion::Stands)),
            (&[0x41, 0x0D, 17], Some(Motion::Moves)),
            (&[0x62, 0xF4, 0x0D, 1], Some(Motion::Moves)),
            (&[0x41, 0x0C, 0, 0], Some(Motion::Stands)),
            (&[0x41, 0x0C, 0x0C, 0], Some(Motion::EngineRuns)),
            (&[0x62, 0xF4, 0x0C, 0, 1], Some(Motion::EngineRuns)),
            (&[0x41, 0x0D], None),
            (&[0x7F, 0x01, 0x11], None),
        ] {
            assert_eq!(Motion::parse(pdu), motion, "{pdu:02X?}");
        }
    }
}
