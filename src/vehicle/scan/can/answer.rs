//! Frames that answer the questions of a scan.

use connector_hal::can::{CanFrame, CanId};

use super::plan::ScanProbe;
use crate::protocol::isotp::NPdu;
use crate::protocol::tp20::{LogicalAddress, SETUP_ID, SetupMessage, SetupOpcode};
use crate::protocol::uds::{NEGATIVE_RESPONSE, POSITIVE_OFFSET, TESTER_PRESENT};
use crate::vehicle::scan::report::{EcuFound, ScanProtocol};
use crate::vehicle::scan::standing::Motion;
use crate::vehicle::tester_traffic::is_obd_answer_id;

/// The logical address of testers (SAE J2819).
const TESTER: u8 = 0;
/// The identifiers with which ECUs send on the TP2.0 channels that a scan opens.
const TP20_CHANNELS: std::ops::RangeInclusive<u32> = 0x300..=0x30F;

/// Whether this is an ECU's answer to TesterPresent: the response, or any refusal, in a single frame (ISO
/// 15765-2).
pub(super) fn is_tester_present_answer(data: &[u8]) -> bool {
    match single_frame(data) {
        Some([service] | [service, _]) => *service == TESTER_PRESENT + POSITIVE_OFFSET,
        Some([NEGATIVE_RESPONSE, TESTER_PRESENT, _]) => true,
        _ => false,
    }
}

/// What the frame reports about the vehicle's motion, if that was asked.
pub(super) fn motion(frame: &CanFrame, mut asked: impl Iterator<Item = ScanProbe>) -> Option<Motion> {
    let motion = single_frame(frame.data()).and_then(Motion::parse)?;
    let was_asked = asked.any(|probe| matches!(probe, ScanProbe::Motion { .. }));
    (is_obd_answer_id(frame.id()) && was_asked).then_some(motion)
}

/// Whether the frame can be a reaction of an ECU to a question of the scan, by its identifier or its form.
pub(super) fn is_diagnostic(frame: &CanFrame) -> bool {
    let id = frame.id();
    let data = frame.data();
    let is_response = |pdu: &[u8]| {
        let service = pdu.first().copied().unwrap_or_default();
        service == NEGATIVE_RESPONSE
            || service == TESTER_PRESENT + POSITIVE_OFFSET
            || Motion::parse(pdu).is_some()
    };
    let is_single = |data: &[u8]| single_frame(data).is_some_and(is_response);
    let is_channel = !id.is_extended() && TP20_CHANNELS.contains(&id.raw());
    is_obd_answer_id(id)
        || is_channel
        || is_single(data)
        || data.get(1..).is_some_and(is_single)
        || SetupMessage::decode(data).is_some_and(|_| frame.len() == 7)
}

/// The PDU of a single frame (ISO 15765-2, 9.6.2).
fn single_frame(data: &[u8]) -> Option<&[u8]> {
    match NPdu::decode(data, 0) {
        Ok(NPdu::SingleFrame { data }) => Some(data),
        _ => None,
    }
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
                .into_iter()
                // ECUs that send long FD frames only
                .chain([
                    &[0, 2, 0x7E, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
                    &[0, 3, 0x7F, 0x3E, 0x11, 0, 0, 0, 0, 0, 0, 0],
                ])
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
    }

    #[test]
    fn frames_that_answer_a_question_are_no_traffic_of_the_vehicle() {
        let frame = |id: u32, data: &[u8]| CanFrame::new(CanId::standard_truncated(id), data).unwrap();
        for (id, data) in [
            (0x7E8, &[0x10, 0x14, 0x49, 2][..]),
            (0x51D, &[2, 0x7E, 0, 0xAA]),
            (0x51D, &[3, 0x7F, 0x01, 0x11]),
            (0x51D, &[4, 0x62, 0xF4, 0x0D, 0]),
            (0x612, &[0xF1, 2, 0x7E, 0]),
            (0x201, &[0, 0xD0, 0, 3, 0x40, 7, 1]),
            (0x301, &[0xA8]),
        ] {
            assert!(is_diagnostic(&frame(id, data)), "{id:X} {data:02X?}");
        }
        for (id, data) in [(0x51D, &[][..]), (0x51D, &[0; 8]), (0x640, &[2, 0x3E, 0]), (0x400, &[1, 2, 3, 4])]
        {
            assert!(!is_diagnostic(&frame(id, data)), "{id:X} {data:02X?}");
        }
    }
}
