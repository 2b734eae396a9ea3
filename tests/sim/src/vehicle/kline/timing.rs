//! AccessTimingParameters (ISO 14230-2, 5.4).

use std::time::Duration;

use super::config::KlineEcuConfig;
use super::ecu::MS;

/// The times that a tester must keep, and may change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    pub(super) p3_min: Duration,
    pub(super) p4_min: Duration,
}

impl Limits {
    pub(super) const NORMAL: Self =
        Self { p3_min: Duration::from_millis(55), p4_min: Duration::from_millis(5) };
}

/// The normal times: P2 25 to 50 ms, P3 55 ms to 5 s, P4 from 5 ms.
const NORMAL: [u8; 5] = [0x32, 0x02, 0x6E, 0x14, 0x0A];

/// The times that an ECU uses, in the units of the service.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    active: [u8; 5],
    /// The ECU's own P2, which it has with the normal times.
    own_p2: Option<Duration>,
}

impl Default for Times {
    fn default() -> Self {
        Self { active: NORMAL, own_p2: None }
    }
}

impl Times {
    /// Answers the service with these parameters. The times change with the next request.
    pub(super) fn answer(&mut self, parameters: &[u8]) -> Vec<u8> {
        match *parameters {
            [0x00] => vec![0xC3, 0x00, 0x00, 0x01, 0x00, 0x01, 0x00],
            [0x01] => {
                self.active = NORMAL;
                vec![0xC3, 0x01]
            }
            [0x02] => [&[0xC3, 0x02][..], &self.active].concat(),
            [0x03, p2_min, p2_max, p3_min, p3_max, p4_min] => {
                self.active = [p2_min, p2_max, p3_min, p3_max, p4_min];
                vec![0xC3, 0x03]
            }
            _ => vec![0x7F, 0x83, 0x12],
        }
    }

    /// Applies the times: the ECU answers a millisecond before P2max, or after its own P2 if it has the normal
    /// times.
    pub(super) fn apply(&mut self, config: &mut KlineEcuConfig, limits: &mut Limits) {
        let [_, p2_max, p3_min, p3_max, p4_min] = self.active;
        let own_p2 = *self.own_p2.get_or_insert(config.p2);
        config.p2 = if self.active == NORMAL { own_p2 } else { 25 * MS * u32::from(p2_max) - MS };
        config.p3_max = 250 * MS * u32::from(p3_max);
        *limits = Limits { p3_min: MS / 2 * u32::from(p3_min), p4_min: MS / 2 * u32::from(p4_min) };
    }
}
