//! Which PDUs and frames of the operator begin or continue the programming of an ECU, by the policy's table of services.

use connector_hal::can::CanFrame;

use crate::policy::Class;
use crate::policy::services::{classify, classify_start};

/// RoutineControl, and StartRoutineByLocalIdentifier of ISO 14230-3.
pub(super) const ROUTINE_CONTROL: u8 = 0x31;
/// WriteMemoryByAddress can replace software, and SecuredDataTransmission can contain any service (ISO 14229-1). The policy
/// allows both at any voltage; an ECU of the wrong vehicle must not receive them.
const MAY_PROGRAM: [u8; 2] = [0x3D, 0x84];

/// Whether this PDU asks for a programming service, or for one that may program.
pub(super) fn is_programming(pdu: &[u8]) -> bool {
    classify(pdu).class == Class::Programming
        || pdu.first().is_some_and(|service| MAY_PROGRAM.contains(service))
}

/// Whether this PDU, or a PDU with this start, may ask for a programming service.
pub(super) fn may_be_programming(pdu: &[u8], is_start: bool) -> bool {
    is_programming(pdu) || is_start && classify_start(pdu).class == Class::Programming
}

/// Whether this PDU starts, stops or asks for a routine that erases memory or checks programming dependencies.
pub(super) fn is_programming_routine(pdu: &[u8]) -> bool {
    pdu.first() == Some(&ROUTINE_CONTROL) && classify(pdu).class == Class::Programming
}

/// Whether this frame is a single or first frame of ISO-TP that asks for a programming service. A raw channel does not
/// say whether an address byte comes first, so that both readings count.
pub(super) fn is_programming_frame(frame: &CanFrame) -> bool {
    let data = frame.data();
    [Some(data), data.get(1..)]
        .into_iter()
        .flatten()
        .any(|n_pdu| pdu_start(n_pdu).is_some_and(is_programming))
}

/// The first bytes of the PDU that begins with this single or first frame of ISO-TP (ISO 15765-2, 9.6).
pub(super) fn pdu_start(n_pdu: &[u8]) -> Option<&[u8]> {
    match n_pdu {
        // a first frame with a length of 32 bits
        [0x10, 0x00, _, _, _, _, pdu @ ..] => Some(pdu),
        // CAN FD: the length is in the second byte
        [0x00, _, pdu @ ..] | [0x01..=0x0F, pdu @ ..] | [0x10..=0x1F, _, pdu @ ..] => Some(pdu),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use connector_hal::can::CanId;

    use super::*;

    const PROGRAMMING: [&[u8]; 19] = [
        &[0x10, 0x02],
        &[0x10, 0x82],
        &[0x10, 0x85],
        &[0x31, 0x01, 0xFF, 0x00, 0x44],
        &[0x31, 0x01, 0xFF, 0x01],
        &[0x31, 0x03, 0xFF, 0x02],
        &[0x31, 0x81, 0xFF, 0x00],
        &[0x34, 0x00, 0x44],
        &[0x35],
        &[0x36, 0x01, 0xAA],
        &[0x37],
        &[0x38, 0x01],
        &[0x34],
        &[0x31, 0xC4],
        &[0x31, 0xC5, 0, 0],
        &[0x31, 0xE0, 0],
        &[0x3D, 0x14, 0, 0],
        &[0x84, 0, 0],
        &[0xA5, 0x01],
    ];
    const OTHERS: [&[u8]; 14] = [
        &[],
        &[0x10],
        &[0x10, 0x01],
        &[0x10, 0x03],
        &[0x31, 0x01],
        &[0x31, 0x01, 0xFF, 0x03],
        &[0x31, 0x01, 0x02, 0x03],
        &[0x22, 0xF1, 0x90],
        &[0x3E, 0x80],
        &[0x39],
        &[0x3B, 0x90, 0],
        &[0x2E, 0xF1, 0x5A],
        &[0x31, 0x01, 0xC4, 0x00],
        &[0x31, 0x21],
    ];

    #[test]
    fn the_table_of_programming_services_covers_uds_kwp_and_gmlan() {
        for pdu in PROGRAMMING {
            assert!(is_programming(pdu), "{pdu:02X?}");
        }
        for pdu in OTHERS {
            assert!(!is_programming(pdu), "{pdu:02X?}");
        }
    }

    #[test]
    fn a_single_or_first_frame_is_classified_by_its_pdu_with_and_without_address() {
        let frame = |data: &[u8]| CanFrame::new(CanId::standard(0x7E0).unwrap(), data).unwrap();
        assert!(is_programming_frame(&frame(&[0x02, 0x10, 0x02, 0xCC])));
        assert!(is_programming_frame(&frame(&[0x10, 0x0B, 0x34, 0x00, 0x44])));
        assert!(is_programming_frame(&frame(&[0x12, 0x02, 0x10, 0x02])));
        assert!(is_programming_frame(&frame(&[0x10, 0x00, 0x00, 0x01, 0x00, 0x00, 0x36, 0x01])));
        assert!(is_programming_frame(&frame(&[0x40, 0x10, 0x0B, 0x34, 0x00])));
        for other in
            [&[0x21, 0x34][..], &[0x30, 0, 0], &[0x02, 0x10, 0x03], &[0x12, 0x02, 0x10, 0x03], &[0x10], &[]]
        {
            assert!(!is_programming_frame(&frame(other)), "{other:02X?}");
        }
    }
}
