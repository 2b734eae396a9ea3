//! Frames that answer the questions of a scan.

use connector_hal::can::{CanFrame, CanId};

use super::plan::ScanProbe;
use crate::protocol::tp20::{LogicalAddress, SETUP_ID, SetupMessage, SetupOpcode};
use crate::protocol::uds::{NEGATIVE_RESPONSE, POSITIVE_OFFSET, TESTER_PRESENT};
use crate::vehicle::scan::report::{EcuFound, ScanProtocol};

/// The logical address of testers (SAE J2819).
const TESTER: u8 = 0;

/// Whether this is an ECU's answer to TesterPresent: the response, or any refusal, in a single frame (ISO
/// 15765-2).
pub(super) fn is_tester_present_answer(data: &[u8]) -> bool {
    match data {
        [1 | 2, service, ..] => *service == TESTER_PRESENT + POSITIVE_OFFSET,
        [3, NEGATIVE_RESPONSE, TESTER_PRESENT, _, ..] => true,
        _ => false,
    }
}

/// The speed in an OBD answer to PID 0D, in km/h.
fn speed(data: &[u8]) -> Option<u8> {
    match data {
        [3, 0x41, 0x0D, speed, ..] => Some(*speed),
        _ => None,
    }
}

/// Whether the frame reports by OBD that the vehicle moves, and that was asked.
pub(super) fn reports_movement(frame: &CanFrame, mut asked: impl Iterator<Item = ScanProbe>) -> bool {
    let id = frame.id();
    let is_obd = match id.is_extended() {
        true => id.raw() & 0xFFFF_FF00 == 0x18DA_F100,
        false => (0x7E8..=0x7EF).contains(&id.raw()),
    };
    is_obd
        && asked.any(|probe| matches!(probe, ScanProbe::Speed { .. }))
        && speed(frame.data()).is_some_and(|speed| speed > 0)
}

/// The ECU whose answer to TesterPresent has this 29-bit identifier, which names the ECU (normal fixed
/// addressing).
pub(super) fn fixed_addressing_answer(
    answer: CanId,
    mut asked: impl Iterator<Item = ScanProbe>,
) -> Option<EcuFound> {
    let address = answer.raw() & 0xFF;
    let request = CanId::extended_truncated(0x18DA_00F1 | address << 8);
    let was_asked = asked.any(|probe| probe == ScanProbe::TesterPresent { request, extended: None });
    (answer.raw() & 0xFFFF_FF00 == 0x18DA_F100 && was_asked).then(|| EcuFound::isotp(request, answer))
}

/// The ECU whose answer to TesterPresent begins with an extended address.
pub(super) fn extended_address_answer(
    frame: &CanFrame,
    mut asked: impl Iterator<Item = ScanProbe>,
) -> Option<EcuFound> {
    let (&first, rest) = frame.data().split_first()?;
    if !is_tester_present_answer(rest) {
        return None;
    }
    let response = frame.id();
    // the answer begins with the ECU's address, or with the tester's, and then its identifier ends with the
    // ECU's
    let fits = |address: u8| first == address || first == 0xF1 && response.raw() & 0xFF == u32::from(address);
    let (request, address) = asked.find_map(|probe| match probe {
        ScanProbe::TesterPresent { request, extended: Some(address) } if fits(address) => {
            Some((request, address))
        }
        _ => None,
    })?;
    (!response.is_extended() && response != request).then_some(EcuFound {
        request,
        response,
        extended_request_address: Some(address),
        extended_response_address: Some(first),
        protocol: ScanProtocol::Isotp,
    })
}

/// An ECU's answer to a TP2.0 channel set-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct SetupAnswer {
    pub(super) ecu: LogicalAddress,
    /// The identifier on which the ECU expects frames of the channel, if the ECU opened one.
    pub(super) opened: Option<CanId>,
}

/// Reads the answer to a TP2.0 channel set-up. `was_heard`: other nodes use the answer's identifier too.
pub(super) fn setup_answer(
    frame: &CanFrame,
    mut asked: impl Iterator<Item = ScanProbe>,
    was_heard: bool,
) -> Option<SetupAnswer> {
    let message = SetupMessage::decode(frame.data()).filter(|_| frame.len() == 7)?;
    let (probe, ecu) = asked.find_map(|probe| match probe {
        ScanProbe::Setup { ecu, .. } if ecu.setup_response_id() == frame.id() => Some((probe, ecu)),
        _ => None,
    })?;
    // where other nodes use the identifier, an answer must name the channel that was asked for
    let is_answer = match message.opcode {
        SetupOpcode::Request => false,
        _ if !was_heard => true,
        SetupOpcode::Positive => message.destination == TESTER && probe.is_granted_by(&message),
        SetupOpcode::Negative(_) => false,
    };
    let opened = message.transmit.filter(|_| message.opcode == SetupOpcode::Positive);
    is_answer.then_some(SetupAnswer { ecu, opened })
}

/// The ECU that answers TP2.0 channel set-ups at this logical address.
pub(super) fn tp20_ecu(ecu: LogicalAddress) -> EcuFound {
    EcuFound { protocol: ScanProtocol::Tp20, ..EcuFound::isotp(SETUP_ID, ecu.setup_response_id()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_distinguished_from_other_frames() {
        for answer in
            [&[2, 0x7E, 0, 0xAA, 0xAA][..], &[1, 0x7E], &[3, 0x7F, 0x3E, 0x12], &[3, 0x7F, 0x3E, 0x78]]
        {
            assert!(is_tester_present_answer(answer), "{answer:02X?}");
        }
        for other in [
            &[][..],
            &[2, 0x3E, 0],
            &[3, 0x7E, 0, 0],
            &[3, 0x7F, 0x10, 0x12],
            &[3, 0x7F, 0x3E],
            &[0x10, 8, 0x7E, 0],
            &[0x7E, 0],
        ] {
            assert!(!is_tester_present_answer(other), "{other:02X?}");
        }
        assert_eq!(speed(&[3, 0x41, 0x0D, 17, 0]), Some(17));
        assert_eq!(speed(&[4, 0x41, 0x0C, 17, 0]), None);
    }
}
