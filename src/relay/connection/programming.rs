//! Which PDUs and frames of the operator begin or continue the programming of an ECU: one table (ISO 14229-1,
//! ISO 14230-3, and GMW 3110 for GMLAN).

use connector_hal::can::CanFrame;

/// DiagnosticSessionControl, and its programming sessions: that of UDS, and that of ISO 14230-3.
const SESSION_CONTROL: u8 = 0x10;
const PROGRAMMING_SESSIONS: [u8; 2] = [0x02, 0x85];
/// RoutineControl, and the routines that erase memory or check programming dependencies.
pub(super) const ROUTINE_CONTROL: u8 = 0x31;
const PROGRAMMING_ROUTINES: [[u8; 2]; 3] = [[0xFF, 0x00], [0xFF, 0x01], [0xFF, 0x02]];
/// StartRoutineByLocalIdentifier of ISO 14230-3, which leaves the numbers to the manufacturers: those in use for erasing
/// and checking flash memory. As sub-functions of UDS, which they would be, they are reserved.
const PROGRAMMING_LOCAL_ROUTINES: [u8; 4] = [0xC4, 0xC5, 0xE0, 0xE1];
/// The bit that suppresses the positive response.
const SUPPRESS: u8 = 0x80;

/// Whether this PDU asks for a programming service.
pub(super) fn is_programming(pdu: &[u8]) -> bool {
    match pdu {
        [SESSION_CONTROL, session, ..] => {
            PROGRAMMING_SESSIONS.contains(session) || PROGRAMMING_SESSIONS.contains(&(session & !SUPPRESS))
        }
        [ROUTINE_CONTROL, ..] => is_programming_routine(pdu),
        // RequestDownload, RequestUpload, TransferData, RequestTransferExit, RequestFileTransfer (in ISO 14230-3
        // StartRoutineByAddress, which runs what was downloaded)
        [0x34..=0x38, ..] => true,
        // WriteMemoryByAddress
        [0x3D, ..] => true,
        // SecuredDataTransmission, whose content may be any service
        [0x84, ..] => true,
        // ProgrammingMode of GMLAN
        [0xA5, ..] => true,
        _ => false,
    }
}

/// Whether this PDU starts, stops or asks for a routine that erases memory or checks programming dependencies.
pub(super) fn is_programming_routine(pdu: &[u8]) -> bool {
    match pdu {
        [ROUTINE_CONTROL, local, ..] if PROGRAMMING_LOCAL_ROUTINES.contains(local) => true,
        [ROUTINE_CONTROL, _, high, low, ..] => PROGRAMMING_ROUTINES.contains(&[*high, *low]),
        _ => false,
    }
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
