//! AccessTimingParameters (ISO 14230-2, 5.4), by which tester and ECU agree upon other times.

use super::Endpoint;
use crate::protocol::kline::timing::TimingParameters;
use crate::protocol::uds::{ACCESS_TIMING_PARAMETERS, POSITIVE_OFFSET};

/// Sets the times of the key bytes.
const SET_DEFAULT: u8 = 0x01;
/// Reads the times that are in use.
const READ_ACTIVE: u8 = 0x02;
/// Sets the times in the request.
const SET_GIVEN: u8 = 0x03;

/// Returns the times that a PDU sets.
pub(super) fn requested(pdu: &[u8]) -> Option<TimingParameters> {
    match pdu {
        [ACCESS_TIMING_PARAMETERS, SET_GIVEN, times @ ..] => {
            (*times).try_into().ok().map(TimingParameters::new)
        }
        _ => None,
    }
}

impl Endpoint {
    /// Uses the times that the ECU uses after this answer.
    pub(super) fn follow_timing_parameters(&mut self, answer: &[u8]) {
        const POSITIVE: u8 = ACCESS_TIMING_PARAMETERS + POSITIVE_OFFSET;
        let Some(link) = &mut self.link else { return };
        match answer {
            [POSITIVE, SET_DEFAULT, ..] => link.timing = link.default_timing,
            [POSITIVE, READ_ACTIVE, times @ ..] => {
                if let Ok(times) = (*times).try_into() {
                    link.timing = link.timing.with(TimingParameters::new(times));
                }
            }
            [POSITIVE, SET_GIVEN, ..] => {
                if let Some(times) = self.requested_timing.take() {
                    link.timing = link.timing.with(times);
                }
            }
            _ => {}
        }
    }
}
