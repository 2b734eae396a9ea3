//! Inputs and outputs under control of the tester (services 2F and 30): they are returned to the ECU when the vehicle
//! moves.

use super::intent::IntentTarget;

const CONTROL_BY_IDENTIFIER: u8 = 0x2F;
const CONTROL_BY_LOCAL_IDENTIFIER: u8 = 0x30;
/// inputOutputControlParameter returnControlToECU (ISO 14229-1, E.1).
const RETURN_CONTROL: u8 = 0x00;
/// The most controls at a time; the oldest is forgotten, and the ECU returns it when its session ends.
const MAX_CONTROLS: usize = 32;

/// A request that returns an input or output to its ECU, or ends the session in which it was controlled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Return {
    /// The bus's number within the connection.
    pub bus: usize,
    /// The ECU.
    pub target: IntentTarget,
    bytes: [u8; 4],
    len: usize,
}

impl Return {
    /// The request.
    pub fn request(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

/// All inputs and outputs under control, in the order in which they were taken.
#[derive(Debug, Default)]
pub(super) struct Controls(Vec<Return>);

impl Controls {
    /// Handles a request that goes out.
    pub(super) fn handle_sent(&mut self, bus: usize, target: IntentTarget, request: &[u8]) {
        let (returned, parameter) = match *request {
            [CONTROL_BY_IDENTIFIER, high, low, parameter, ..] => {
                let bytes = [CONTROL_BY_IDENTIFIER, high, low, RETURN_CONTROL];
                (Return { bus, target, bytes, len: 4 }, parameter)
            }
            [CONTROL_BY_LOCAL_IDENTIFIER, identifier, parameter, ..] => {
                let bytes = [CONTROL_BY_LOCAL_IDENTIFIER, identifier, RETURN_CONTROL, 0];
                (Return { bus, target, bytes, len: 3 }, parameter)
            }
            // an ECU returns everything when its session or its link ends
            [0x10, 0x01 | 0x81, ..] | [0x11, ..] | [0x20, ..] | [0x82] => {
                return self.0.retain(|control| (control.bus, control.target) != (bus, target));
            }
            _ => return,
        };
        self.0.retain(|control| *control != returned);
        if parameter != RETURN_CONTROL {
            if self.0.len() >= MAX_CONTROLS {
                self.0.remove(0);
            }
            self.0.push(returned);
        }
    }

    /// Returns the requests that return everything: one for each input or output, then the default session for each ECU.
    pub(super) fn take_returns(&mut self) -> Vec<Return> {
        let controls = std::mem::take(&mut self.0);
        let mut returns = controls.clone();
        for control in &controls {
            let end = match control.bytes {
                [CONTROL_BY_LOCAL_IDENTIFIER, ..] => [0x10, 0x81, 0, 0],
                _ => [0x10, 0x01, 0, 0],
            };
            let end = Return { bytes: end, len: 2, ..*control };
            if !returns.contains(&end) {
                returns.push(end);
            }
        }
        returns
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECU: IntentTarget = IntentTarget::Address(0x10);

    #[test]
    fn what_is_under_control_is_returned_and_then_the_session_ends() {
        let mut controls = Controls::default();
        controls.handle_sent(0, ECU, &[0x2F, 0x01, 0x02, 0x03, 0xFF]);
        controls.handle_sent(0, ECU, &[0x2F, 0x01, 0x03, 0x03, 0xFF]);
        controls.handle_sent(0, ECU, &[0x2F, 0x01, 0x02, 0x03, 0x00]);
        controls.handle_sent(1, ECU, &[0x30, 0x07, 0x07]);
        controls.handle_sent(0, ECU, &[0x2F, 0x01, 0x03, 0x00]);
        let requests: Vec<_> =
            controls.take_returns().iter().map(|r| (r.bus, r.request().to_vec())).collect();
        assert_eq!(
            requests,
            [
                (0, vec![0x2F, 0x01, 0x02, 0x00]),
                (1, vec![0x30, 0x07, 0x00]),
                (0, vec![0x10, 0x01]),
                (1, vec![0x10, 0x81])
            ]
        );
        assert!(controls.take_returns().is_empty());
    }

    #[test]
    fn the_end_of_a_session_returns_everything_of_its_ecu() {
        let mut controls = Controls::default();
        controls.handle_sent(0, ECU, &[0x2F, 0x01, 0x02, 0x03, 0xFF]);
        controls.handle_sent(0, IntentTarget::Address(0x11), &[0x10, 0x01]);
        assert_eq!(controls.0.len(), 1);
        controls.handle_sent(0, ECU, &[0x10, 0x01]);
        assert!(controls.take_returns().is_empty());
    }

    #[test]
    fn the_number_of_controls_is_bounded() {
        let mut controls = Controls::default();
        for low in 0..=255 {
            controls.handle_sent(0, ECU, &[0x2F, 0x01, low, 0x03]);
        }
        assert_eq!(controls.0.len(), MAX_CONTROLS);
    }
}
