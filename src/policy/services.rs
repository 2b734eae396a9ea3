//! The tables of diagnostic services: ISO 14229-1 (UDS), ISO 14230-3 (KWP2000) and SAE J1979 (OBD).
//!
//! The three standards share most numbers. Where two of them give one number different meanings, the table has the more
//! dangerous one, so that the class does not depend on the protocol of a bus.

use crate::protocol::uds::{NEGATIVE_RESPONSE, POSITIVE_OFFSET, SUPPRESS_POSITIVE_RESPONSE};

use super::class::Class;
use super::class::Class::{Intrusive, Programming, Read, Session};

/// One row of the tables.
#[derive(Debug, Clone, Copy)]
pub struct DiagnosticService {
    /// The service identifier, SID.
    pub id: u8,
    /// The name in the standard; where standards differ, that of ISO 14229-1 comes first.
    pub name: &'static str,
    /// The class of requests that match none of the exceptions.
    pub class: Class,
    /// The fewest bytes of a request that an ECU accepts, with the SID.
    pub min_length: usize,
    /// Requests of this service that have a class of their own.
    pub exceptions: &'static [Exception],
}

/// Requests of a service that have a class of their own.
#[derive(Debug, Clone, Copy)]
pub struct Exception {
    /// The requests.
    pub part: Part,
    /// Their name.
    pub name: &'static str,
    /// Their class.
    pub class: Class,
    /// Whether they are allowed whatever holds: they end what an earlier request began.
    pub always: bool,
}

/// A part of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every request.
    Any,
    /// The sub-function in the second byte, without its bit 7.
    SubFunction(u8),
    /// The second byte as it is.
    SecondByte(u8),
    /// The routine identifier in the third and fourth byte (ISO 14229-1, 14.2).
    Routine(u16),
}

impl Part {
    /// The number of bytes of a request up to the end of the part.
    fn end(self) -> usize {
        match self {
            Self::Any => 1,
            Self::SubFunction(_) | Self::SecondByte(_) => 2,
            Self::Routine(_) => 4,
        }
    }

    fn matches(self, request: &[u8]) -> bool {
        match (self, request) {
            (Self::Any, _) => true,
            (Self::SubFunction(wanted), [_, sub_function, ..]) => {
                sub_function & !SUPPRESS_POSITIVE_RESPONSE == wanted
            }
            (Self::SecondByte(wanted), [_, byte, ..]) => *byte == wanted,
            (Self::Routine(wanted), [_, _, high, low, ..]) => u16::from_be_bytes([*high, *low]) == wanted,
            _ => false,
        }
    }
}

const fn service(id: u8, name: &'static str, class: Class, min_length: usize) -> DiagnosticService {
    DiagnosticService { id, name, class, min_length, exceptions: &[] }
}

const fn with(mut row: DiagnosticService, exceptions: &'static [Exception]) -> DiagnosticService {
    row.exceptions = exceptions;
    row
}

const fn exception(part: Part, name: &'static str, class: Class) -> Exception {
    Exception { part, name, class, always: false }
}

const fn always(part: Part, name: &'static str) -> Exception {
    Exception { part, name, class: Read, always: true }
}

/// SAE J1979 (ISO 15031-5), services 01 to 0A.
pub const OBD: [DiagnosticService; 10] = [
    service(0x01, "RequestCurrentPowertrainDiagnosticData", Read, 2),
    service(0x02, "RequestPowertrainFreezeFrameData", Read, 3),
    service(0x03, "RequestEmissionRelatedDTCs", Read, 1),
    service(0x04, "ClearEmissionRelatedDiagnosticInformation", Intrusive, 1),
    service(0x05, "RequestOxygenSensorMonitoringTestResults", Read, 2),
    service(0x06, "RequestOnBoardMonitoringTestResults", Read, 2),
    service(0x07, "RequestPendingDTCs", Read, 1),
    service(0x08, "RequestControlOfOnBoardSystem", Intrusive, 2),
    service(0x09, "RequestVehicleInformation", Read, 2),
    service(0x0A, "RequestPermanentDTCs", Read, 1),
];

/// ISO 14229-1 and ISO 14230-3.
pub const DIAGNOSTICS: [DiagnosticService; 45] = [
    with(
        service(0x10, "DiagnosticSessionControl", Session, 2),
        &[
            always(Part::SubFunction(0x01), "defaultSession, or standardSession of KWP2000"),
            exception(Part::SubFunction(0x02), "programmingSession", Programming),
            exception(Part::SecondByte(0x85), "ECUProgrammingMode of KWP2000", Programming),
        ],
    ),
    service(0x11, "ECUReset", Intrusive, 2),
    service(0x12, "ReadFreezeFrameData (KWP2000)", Read, 2),
    service(0x13, "ReadDiagnosticTroubleCodes (KWP2000)", Read, 1),
    service(0x14, "ClearDiagnosticInformation", Intrusive, 3),
    service(0x17, "ReadStatusOfDTC (KWP2000)", Read, 2),
    service(0x18, "ReadDTCByStatus (KWP2000)", Read, 2),
    service(0x19, "ReadDTCInformation", Read, 2),
    service(0x1A, "ReadEcuIdentification (KWP2000)", Read, 2),
    with(
        service(0x20, "StopDiagnosticSession (KWP2000)", Read, 1),
        &[always(Part::Any, "every request: it ends a session")],
    ),
    service(0x21, "ReadDataByLocalIdentifier (KWP2000)", Read, 2),
    service(0x22, "ReadDataByIdentifier", Read, 3),
    service(0x23, "ReadMemoryByAddress", Read, 4),
    service(0x24, "ReadScalingDataByIdentifier", Read, 3),
    service(0x26, "SetDataRates (KWP2000)", Intrusive, 2),
    service(0x27, "SecurityAccess", Intrusive, 2),
    service(0x28, "CommunicationControl", Intrusive, 2),
    service(0x29, "Authentication", Intrusive, 2),
    service(0x2A, "ReadDataByPeriodicIdentifier", Intrusive, 2),
    service(0x2C, "DynamicallyDefineDataIdentifier", Intrusive, 2),
    service(0x2E, "WriteDataByIdentifier", Intrusive, 4),
    service(0x2F, "InputOutputControlByIdentifier", Intrusive, 4),
    service(0x30, "InputOutputControlByLocalIdentifier (KWP2000)", Intrusive, 3),
    with(
        service(0x31, "RoutineControl, or StartRoutineByLocalIdentifier of KWP2000", Intrusive, 2),
        &[
            exception(Part::Routine(0xFF00), "eraseMemory", Programming),
            exception(Part::Routine(0xFF01), "checkProgrammingDependencies", Programming),
            exception(
                Part::Routine(0xFF02),
                "eraseMirrorMemoryDTCs, or a routine of programming",
                Programming,
            ),
            // ISO 14230-3 leaves local identifiers to the manufacturers; as sub-functions of UDS, these are reserved
            exception(Part::SecondByte(0xC4), "eraseFlash (KWP2000)", Programming),
            exception(Part::SecondByte(0xC5), "checkFlash (KWP2000)", Programming),
            exception(Part::SecondByte(0xE0), "eraseFlash (KWP2000)", Programming),
            exception(Part::SecondByte(0xE1), "checkFlash (KWP2000)", Programming),
        ],
    ),
    service(0x32, "StopRoutineByLocalIdentifier (KWP2000)", Intrusive, 2),
    service(0x33, "RequestRoutineResultsByLocalIdentifier (KWP2000)", Intrusive, 2),
    service(0x34, "RequestDownload", Programming, 2),
    service(0x35, "RequestUpload", Programming, 2),
    service(0x36, "TransferData", Programming, 1),
    service(0x37, "RequestTransferExit", Programming, 1),
    service(0x38, "RequestFileTransfer, or StartRoutineByAddress of KWP2000", Programming, 2),
    service(0x39, "StopRoutineByAddress (KWP2000)", Intrusive, 4),
    service(0x3A, "RequestRoutineResultsByAddress (KWP2000)", Intrusive, 4),
    service(0x3B, "WriteDataByLocalIdentifier (KWP2000)", Intrusive, 2),
    service(0x3D, "WriteMemoryByAddress", Intrusive, 4),
    with(service(0x3E, "TesterPresent", Read, 1), &[always(Part::Any, "every request: it keeps a session")]),
    with(
        service(0x81, "StartCommunication (KWP2000)", Read, 1),
        &[always(Part::Any, "every request: the link to an ECU")],
    ),
    with(
        service(0x82, "StopCommunication (KWP2000)", Read, 1),
        &[always(Part::Any, "every request: it ends the link to an ECU")],
    ),
    service(0x83, "AccessTimingParameter", Session, 2),
    service(0x84, "SecuredDataTransmission", Intrusive, 2),
    service(0x85, "ControlDTCSetting", Intrusive, 2),
    service(0x86, "ResponseOnEvent", Intrusive, 2),
    service(0x87, "LinkControl", Session, 2),
    service(0xA5, "ProgrammingMode (GMW 3110)", Programming, 2),
    service(0xAE, "DeviceControl (GMW 3110)", Intrusive, 2),
];

/// The class of a request, and the row of the tables that has given it.
#[derive(Debug, Clone, Copy)]
pub struct Classified {
    /// The class.
    pub class: Class,
    /// Whether the request is allowed whatever holds.
    pub always: bool,
    /// The row; `None` for a service that no table has.
    pub service: Option<&'static DiagnosticService>,
    /// The exception that matches the request.
    pub exception: Option<&'static Exception>,
}

impl Classified {
    /// The name of the request for texts.
    pub fn name(&self) -> &'static str {
        match (self.exception, self.service) {
            (Some(Exception { part: Part::Any, .. }) | None, Some(service)) => service.name,
            (Some(exception), _) => exception.name,
            (None, None) => "a service that no standard names",
        }
    }
}

/// Returns the class of a request. A service that no table has is intrusive.
pub fn classify(request: &[u8]) -> Classified {
    let Some(service) = request.first().and_then(|id| find(*id)) else {
        return Classified { class: Intrusive, always: false, service: None, exception: None };
    };
    match service.exceptions.iter().find(|exception| exception.part.matches(request)) {
        Some(exception) => Classified {
            class: exception.class,
            always: exception.always,
            service: Some(service),
            exception: Some(exception),
        },
        None => Classified { class: service.class, always: false, service: Some(service), exception: None },
    }
}

/// The class of a request of which only these first bytes are known: the strictest that the next bytes can give.
pub fn classify_start(start: &[u8]) -> Classified {
    let found = classify(start);
    if start.is_empty() {
        return Classified { class: Programming, ..found };
    }
    let exceptions =
        found.service.filter(|_| found.exception.is_none()).map_or(&[][..], |row| row.exceptions);
    let can_follow = |exception: &&Exception| !exception.always && exception.part.end() > start.len();
    match exceptions.iter().find(can_follow) {
        Some(exception) => Classified { class: exception.class, exception: Some(exception), ..found },
        None => found,
    }
}

/// Whether an ECU may carry out this request: the first byte is a service that a standard or a manufacturer can use, and
/// the request is not too short for the service.
pub fn can_be_carried_out(request: &[u8]) -> bool {
    let Some(&id) = request.first() else { return false };
    match find(id) {
        Some(service) => request.len() >= service.min_length,
        // ISO 14230-3, table 2: services of the vehicle's manufacturer and of the system's supplier
        None => matches!(id, 0x15 | 0x16 | 0x1B..=0x3F | 0x88..=0x8F | 0xA0..=0xBF),
    }
}

/// Whether a response may begin with this byte: it is negative, or answers a service of the tables.
pub(super) fn is_response(first: u8) -> bool {
    first == NEGATIVE_RESPONSE || first.checked_sub(POSITIVE_OFFSET).and_then(find).is_some()
}

fn find(id: u8) -> Option<&'static DiagnosticService> {
    let table: &[DiagnosticService] = if id <= 0x0A { &OBD } else { &DIAGNOSTICS };
    let index = table.binary_search_by_key(&id, |service| service.id).ok()?;
    table.get(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_sorted_and_every_service_is_found_in_them() {
        for service in OBD.iter().chain(&DIAGNOSTICS) {
            assert_eq!(find(service.id).map(|found| found.name), Some(service.name), "{:02X}", service.id);
        }
        assert!(
            OBD.is_sorted_by_key(|service| service.id) && DIAGNOSTICS.is_sorted_by_key(|service| service.id)
        );
    }

    #[test]
    fn an_unknown_or_missing_service_is_intrusive() {
        for request in
            [&[][..], &[0x00], &[0x0B, 1], &[0x25, 1, 2], &[0x50, 3], &[0x7F, 0x22, 0x11], &[0xC1], &[0xFF]]
        {
            let classified = classify(request);
            assert_eq!((classified.class, classified.always), (Intrusive, false), "{request:02X?}");
        }
    }

    #[test]
    fn sub_functions_and_routines_have_classes_of_their_own() {
        for (request, class) in [
            (&[0x10][..], Session),
            (&[0x10, 0x03], Session),
            (&[0x10, 0x83], Session),
            (&[0x10, 0x89], Session),
            (&[0x10, 0x02], Programming),
            (&[0x10, 0x82], Programming),
            (&[0x10, 0x85], Programming),
            (&[0x10, 0x05], Session),
            (&[0x31, 0x01, 0xFF, 0x00], Programming),
            (&[0x31, 0x81, 0xFF, 0x01], Programming),
            (&[0x31, 0x01, 0xFF], Intrusive),
            (&[0x31, 0x01, 0x02, 0x03], Intrusive),
            (&[0x31, 0xC4], Programming),
            (&[0x34], Programming),
            (&[0x2E, 0xF1, 0x90], Intrusive),
            (&[0x22, 0xF1, 0x90], Read),
        ] {
            let classified = classify(request);
            assert_eq!((classified.class, classified.always), (class, false), "{request:02X?}");
        }
    }

    #[test]
    fn keep_alive_and_return_to_the_default_session_are_always_allowed() {
        for request in
            [&[0x10, 0x01][..], &[0x10, 0x81], &[0x3E, 0x00], &[0x3E, 0x80], &[0x3E], &[0x20], &[0x82]]
        {
            assert!(classify(request).always, "{request:02X?}");
        }
    }

    #[test]
    fn the_beginning_of_a_request_has_the_strictest_class_of_its_continuations() {
        for (start, class) in [
            (&[][..], Programming),
            (&[0x10], Programming),
            (&[0x10, 0x03], Session),
            (&[0x31], Programming),
            (&[0x31, 0x01], Programming),
            (&[0x31, 0x01, 0x02, 0x03], Intrusive),
            (&[0x2E], Intrusive),
            (&[0x22], Read),
        ] {
            let classified = classify_start(start);
            assert_eq!((classified.class, classified.always), (class, false), "{start:02X?}");
        }
        assert!(classify_start(&[0x10, 0x01]).always && classify_start(&[0x3E]).always);
    }

    #[test]
    fn a_request_too_short_for_its_service_cannot_be_carried_out() {
        for request in [&[][..], &[0x10], &[0x14], &[0x22, 0xF1], &[0x55; 4], &[0xCC; 4], &[0x00], &[0xFF]] {
            assert!(!can_be_carried_out(request), "{request:02X?}");
        }
        for request in [&[0x04][..], &[0x10, 1], &[0x11, 1], &[0xAE, 1], &[0xBB], &[0x25], &[0x3E]] {
            assert!(can_be_carried_out(request), "{request:02X?}");
        }
    }
}
