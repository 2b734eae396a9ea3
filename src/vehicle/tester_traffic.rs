//! Signs of another tester on a CAN bus: requests, and responses to requests that the agent did not send.

use connector_hal::can::{CanFrame, CanId};

use crate::protocol::isotp::NPdu;

/// Set in the first byte of a response, and clear in that of a request (ISO 14229-1).
const RESPONSE_BIT: u8 = 0x40;
/// The address of an external tester (ISO 15765-4).
const TESTER: u32 = 0xF1;

/// Whether only testers send with this identifier (ISO 15765-4).
pub(crate) fn is_obd_request_id(id: CanId) -> bool {
    let raw = id.raw();
    match id.is_extended() {
        true => raw & 0xFF == TESTER && (raw & !0xFFFF == 0x18DA_0000 || raw >> 8 == 0x0018_DB33),
        false => raw == 0x7DF || raw & !0x7 == 0x7E0,
    }
}

/// Whether ECUs answer OBD requests with this identifier (ISO 15765-4).
pub(crate) fn is_obd_answer_id(id: CanId) -> bool {
    match id.is_extended() {
        true => id.raw() & 0xFFFF_FF00 == 0x18DA_F100,
        false => (0x7E8..=0x7EF).contains(&id.raw()),
    }
}

/// Whether a frame has the content of a tester's frames: the beginning of a request, or flow control. The content
/// counts because some vehicles use diagnostic identifiers for other messages.
pub(crate) fn is_request(frame: &CanFrame) -> bool {
    match n_pdu(frame) {
        Some(NPdu::SingleFrame { data } | NPdu::FirstFrame { data, .. }) => {
            data.first().is_some_and(|service| service & RESPONSE_BIT == 0)
        }
        Some(NPdu::FlowControl { .. }) => true,
        Some(NPdu::ConsecutiveFrame { .. }) | None => false,
    }
}

/// Whether a frame has the content of the beginning of a response.
pub(crate) fn is_response(frame: &CanFrame) -> bool {
    match n_pdu(frame) {
        Some(NPdu::SingleFrame { data } | NPdu::FirstFrame { data, .. }) => {
            data.first().is_some_and(|service| service & RESPONSE_BIT != 0)
        }
        _ => false,
    }
}

/// Whether a frame has an identifier of OBD and the content of the middle of a transfer: a consecutive frame, or flow
/// control. With `is_ours`, a response may be one to the agent. Other identifiers do not count, because some vehicles use
/// them for messages that look alike.
pub(crate) fn continues_foreign_transfer(frame: &CanFrame, is_ours: bool) -> bool {
    let is_foreign = is_obd_request_id(frame.id()) || !is_ours && is_obd_answer_id(frame.id());
    is_foreign && matches!(n_pdu(frame), Some(NPdu::ConsecutiveFrame { .. } | NPdu::FlowControl { .. }))
}

fn n_pdu(frame: &CanFrame) -> Option<NPdu<'_>> {
    NPdu::decode(frame.data(), 0).ok().filter(|_| frame.is_data())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(data: &[u8]) -> CanFrame {
        CanFrame::new(CanId::standard_truncated(0x7E0), data).unwrap()
    }

    #[test]
    fn the_identifiers_of_testers_are_those_of_obd() {
        let is = |id: u32| is_obd_request_id(CanId::try_from(id).unwrap());
        assert!([0x7DF, 0x7E0, 0x7E7, 0x18DB_33F1, 0x18DA_10F1].into_iter().all(is));
        assert!(
            ![0x7DE, 0x7E8, 0x24B, 0x730, 0x18DA_F110, 0x18DB_33F2, 0x18DB_32F1, 0x8000_07DF]
                .into_iter()
                .any(is)
        );
    }

    #[test]
    fn requests_and_responses_are_distinguished_from_other_content() {
        for request in [&[2, 0x3E, 0x80][..], &[0x10, 20, 0x2E, 0xF1, 0x90, 1, 2, 3], &[0x30, 0, 0]] {
            assert!(is_request(&frame(request)) && !is_response(&frame(request)), "{request:02X?}");
        }
        for response in [&[3, 0x7F, 0x22, 0x78][..], &[0x10, 20, 0x62, 0xF1, 0x90, 1, 2, 3], &[2, 0x7E, 0]] {
            assert!(is_response(&frame(response)) && !is_request(&frame(response)), "{response:02X?}");
        }
        for other in [&[][..], &[0; 8], &[0xA5; 8], &[0x21, 1, 2, 3, 4, 5, 6, 7], &[9, 1, 2, 3, 4, 5, 6, 7]] {
            assert!(!is_request(&frame(other)) && !is_response(&frame(other)), "{other:02X?}");
        }
        assert!(!is_request(&CanFrame::new_remote(CanId::standard_truncated(0x7E0), 8).unwrap()));
    }
}
