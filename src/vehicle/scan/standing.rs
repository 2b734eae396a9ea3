//! The evidence that a vehicle stands: the speed that its ECUs report (SAE J1979, ISO 15031-5; SAE J1979-2 by UDS).

/// The request for the vehicle's speed by OBD.
pub(super) const SPEED: [u8; 2] = [0x01, 0x0D];
/// The request for the vehicle's speed by UDS.
pub(super) const SPEED_BY_UDS: [u8; 3] = [0x22, 0xF4, 0x0D];

/// What an ECU reports about the vehicle's motion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Motion {
    /// The speed is above 0 km/h.
    Moves,
    /// The speed is 0 km/h.
    Stands,
}

impl Motion {
    /// Reads a response to one of the requests of this module; `None` for any other PDU.
    pub(super) fn parse(pdu: &[u8]) -> Option<Self> {
        match *pdu {
            [0x41, 0x0D, speed, ..] | [0x62, 0xF4, 0x0D, speed, ..] => {
                Some(if speed == 0 { Self::Stands } else { Self::Moves })
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
}

impl Standing {
    /// `has_consent`: a person made sure that the vehicle stands.
    pub(super) fn new(has_consent: bool) -> Self {
        Self { has_consent, is_reported: false }
    }

    pub(super) fn handle_motion(&mut self, motion: Motion) {
        self.is_reported |= motion == Motion::Stands;
    }

    pub(super) fn allows(self) -> bool {
        self.has_consent || self.is_reported
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bus_is_scanned_with_evidence_or_consent_only() {
        let mut unknown = Standing::new(false);
        assert!(!unknown.allows());
        unknown.handle_motion(Motion::Moves);
        assert!(!unknown.allows());
        unknown.handle_motion(Motion::Stands);
        assert!(unknown.allows());
        assert!(Standing::new(true).allows());
    }

    #[test]
    fn the_vehicles_speed_is_read_by_obd_and_uds_and_the_engines_says_nothing() {
        for (pdu, motion) in [
            (&[0x41, 0x0D, 0][..], Some(Motion::Stands)),
            (&[0x41, 0x0D, 17], Some(Motion::Moves)),
            (&[0x62, 0xF4, 0x0D, 1], Some(Motion::Moves)),
            (&[0x62, 0xF4, 0x0D, 0], Some(Motion::Stands)),
            (&[0x41, 0x0C, 0, 0], None),
            (&[0x62, 0xF4, 0x0C, 0, 0], None),
            (&[0x41, 0x0D], None),
            (&[0x7F, 0x01, 0x11], None),
        ] {
            assert_eq!(Motion::parse(pdu), motion, "{pdu:02X?}");
        }
    }
}
