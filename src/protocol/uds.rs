//! Services, response codes and default timing of UDS (ISO 14229) and KWP2000 (ISO 14230-3).

use std::time::Duration;

/// First byte of a negative response; the refused service and the response code follow (ISO 14229-1, 8.4).
pub(crate) const NEGATIVE_RESPONSE: u8 = 0x7F;
/// Difference between the service of a request and that of its positive response.
pub(crate) const POSITIVE_OFFSET: u8 = 0x40;
/// Bit of a sub-function that asks the ECU not to send a positive response (ISO 14229-1, 8.2.2).
pub(crate) const SUPPRESS_POSITIVE_RESPONSE: u8 = 0x80;

/// Response code busyRepeatRequest: the ECU did nothing, and the tester may ask again (ISO 14229-1, annex A).
pub(crate) const BUSY_REPEAT_REQUEST: u8 = 0x21;
/// Response code requestCorrectlyReceived-ResponsePending: the final response follows within P2*
/// (ISO 14229-1, annex A).
pub(crate) const RESPONSE_PENDING: u8 = 0x78;

/// DiagnosticSessionControl (ISO 14229-1, 10.2).
pub(crate) const SESSION_CONTROL: u8 = 0x10;
/// Sub-function of DiagnosticSessionControl for the default session.
pub(crate) const DEFAULT_SESSION: u8 = 0x01;
/// Sub-function of KWP2000's StartDiagnosticSession for the standard session.
pub(crate) const KWP_STANDARD_SESSION: u8 = 0x81;

/// ReadDataByIdentifier (ISO 14229-1, 11.2).
pub(crate) const READ_DATA_BY_IDENTIFIER: u8 = 0x22;
/// Data identifier 0xF190, the VIN, as its two bytes (ISO 14229-1, C.1).
pub(crate) const VIN_IDENTIFIER: [u8; 2] = [0xF1, 0x90];
/// Request for the VIN.
pub(crate) const READ_VIN: [u8; 3] = [READ_DATA_BY_IDENTIFIER, VIN_IDENTIFIER[0], VIN_IDENTIFIER[1]];
/// First bytes of the positive response to [`READ_VIN`]; the VIN follows.
pub(crate) const READ_VIN_RESPONSE: [u8; 3] =
    [READ_DATA_BY_IDENTIFIER + POSITIVE_OFFSET, VIN_IDENTIFIER[0], VIN_IDENTIFIER[1]];

/// TesterPresent (ISO 14229-1, 10.7; ISO 14230-3, 6.4).
pub(crate) const TESTER_PRESENT: u8 = 0x3E;
/// TesterPresent that the ECU answers.
pub(crate) const TESTER_PRESENT_ANSWERED: [u8; 2] = [TESTER_PRESENT, 0x00];
/// TesterPresent that the ECU does not answer.
pub(crate) const TESTER_PRESENT_SUPPRESSED: [u8; 2] = [TESTER_PRESENT, SUPPRESS_POSITIVE_RESPONSE];
/// TesterPresent of KWP2000, which the ECU answers.
pub(crate) const KWP_TESTER_PRESENT: [u8; 1] = [TESTER_PRESENT];
/// TesterPresent of KWP2000 with responseRequired "no" (ISO 14230-3, 6.4), which the ECU does not answer.
pub(crate) const KWP_TESTER_PRESENT_UNANSWERED: [u8; 2] = [TESTER_PRESENT, 0x02];

/// StartCommunication of KWP2000 on a K-line (ISO 14230-2, 5.2).
pub(crate) const START_COMMUNICATION: u8 = 0x81;
/// StopCommunication of KWP2000 on a K-line (ISO 14230-2, 5.3).
pub(crate) const STOP_COMMUNICATION: u8 = 0x82;

/// Mode 01 of OBD: current data (SAE J1979, 6.1).
pub(crate) const OBD_CURRENT_DATA: u8 = 0x01;
/// Mode 09 of OBD, whose longer answers come in several messages on a K-line (SAE J1979, 6.9).
pub(crate) const OBD_VEHICLE_INFORMATION: u8 = 0x09;

/// AccessTimingParameters of KWP2000 on a K-line (ISO 14230-2, 5.4).
pub(crate) const ACCESS_TIMING_PARAMETERS: u8 = 0x83;

/// P2: the time an ECU has for the first frame of its response (ISO 14229-2; P2CAN of ISO 15765-4).
pub(crate) const P2: Duration = Duration::from_millis(50);
/// P2*: the time an ECU has for the final response after response pending (ISO 14229-2).
pub(crate) const P2_STAR: Duration = Duration::from_secs(5);

/// Returns whether `request` asks the ECU not to send a positive response: bit 7 of the sub-function, in a service that
/// has sub-functions (ISO 14229-1, 8.2.2).
pub(crate) fn suppresses_positive_response(request: &[u8]) -> bool {
    const WITH_SUB_FUNCTION: [u8; 13] =
        [0x10, 0x11, 0x19, 0x27, 0x28, 0x29, 0x2C, 0x31, 0x3E, 0x83, 0x85, 0x86, 0x87];
    matches!(request, [service, sub_function, ..]
        if WITH_SUB_FUNCTION.contains(service) && sub_function & SUPPRESS_POSITIVE_RESPONSE != 0)
}

/// Returns whether `pdu` is a positive or negative response to this service.
pub(crate) fn is_response_to(service: u8, pdu: &[u8]) -> bool {
    match pdu {
        [NEGATIVE_RESPONSE, refused, ..] => *refused == service,
        [first, ..] => *first == service.wrapping_add(POSITIVE_OFFSET),
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_positive_or_negative_response_names_its_service() {
        assert!(is_response_to(TESTER_PRESENT, &[0x7E, 0x00]));
        assert!(is_response_to(TESTER_PRESENT, &[0x7F, 0x3E, 0x12]));
        assert!(is_response_to(READ_DATA_BY_IDENTIFIER, &READ_VIN_RESPONSE));
        assert!(!is_response_to(READ_DATA_BY_IDENTIFIER, &[0x7F, 0x3E, 0x12]));
        assert!(!is_response_to(READ_DATA_BY_IDENTIFIER, &[0x7F]));
        assert!(!is_response_to(READ_DATA_BY_IDENTIFIER, &READ_VIN));
        assert!(!is_response_to(READ_DATA_BY_IDENTIFIER, &[]));
    }
}
