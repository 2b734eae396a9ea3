//! The request of an entry, without the request's data.

use super::chain::AuditHash;
use crate::policy::intent::{IntentBus, IntentTarget};
use crate::protocol::uds::SUPPRESS_POSITIVE_RESPONSE;

/// The data of a request has a hash in the audit if they have at least this many bytes. The content of fewer bytes could
/// be found by trying.
const MIN_HASHED: usize = 16;

const SECURITY_ACCESS: u8 = 0x27;
const AUTHENTICATION: u8 = 0x29;

/// The service of a request, and the identifiers behind the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::policy) struct RequestParts {
    pub(super) service: Option<u8>,
    pub(super) sub_function: Option<u8>,
    /// The PID of OBD, or the local identifier of KWP2000.
    pub(super) parameter: Option<u8>,
    /// The data identifier, DID.
    pub(super) identifier: Option<u16>,
    /// The routine identifier, RID.
    pub(super) routine: Option<u16>,
    /// The number of bytes before the data.
    len: usize,
}

impl RequestParts {
    /// The parts of a request. Where KWP2000 and UDS differ, the target shows which of them it is.
    pub(in crate::policy) fn of(target: IntentTarget, request: &[u8]) -> Self {
        let is_kwp = matches!(target, IntentTarget::Address(_));
        let service = |service: u8, len| Self { service: Some(service), len, ..Self::default() };
        match *request {
            [] => Self::default(),
            [id @ 0x31, sub_function, high, low, ..] if !is_kwp => Self {
                sub_function: Some(sub_function & !SUPPRESS_POSITIVE_RESPONSE),
                routine: Some(u16::from_be_bytes([high, low])),
                ..service(id, 4)
            },
            [id @ (0x22 | 0x24 | 0x2E | 0x2F), high, low, ..] => {
                Self { identifier: Some(u16::from_be_bytes([high, low])), ..service(id, 3) }
            }
            [id @ (0x01..=0x09 | 0x1A | 0x21 | 0x30 | 0x32 | 0x33 | 0x3B), parameter, ..] => {
                Self { parameter: Some(parameter), ..service(id, 2) }
            }
            [id @ 0x31, parameter, ..] if is_kwp => Self { parameter: Some(parameter), ..service(id, 2) },
            [
                id @ (0x10 | 0x11 | 0x19 | 0x27..=0x29 | 0x2C | 0x31 | 0x83 | 0x85..=0x87),
                sub_function,
                ..,
            ] => Self { sub_function: Some(sub_function & !SUPPRESS_POSITIVE_RESPONSE), ..service(id, 2) },
            [id, ..] => service(id, 1),
        }
    }
}

/// The data of a request as the audit has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct AuditedData {
    pub(super) length: usize,
    pub(super) hash: Option<AuditHash>,
}

/// What was refused or sent, and to which ECU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) struct AuditSubject {
    pub(super) bus: usize,
    pub(super) bus_name: Box<str>,
    pub(super) target: IntentTarget,
    pub(super) name: &'static str,
    pub(super) parts: RequestParts,
    pub(super) data: Option<AuditedData>,
}

impl AuditSubject {
    /// The subject without a request, or with the parts of one whose data are not known as a whole.
    pub(in crate::policy) fn new(
        bus: IntentBus<'_>,
        target: IntentTarget,
        name: &'static str,
        parts: RequestParts,
    ) -> Self {
        Self { bus: bus.index, bus_name: bus.name.into(), target, name, parts, data: None }
    }

    /// Adds length and hash of the request's data.
    pub(in crate::policy) fn with_data(mut self, request: &[u8]) -> Self {
        let data = request.get(self.parts.len..).unwrap_or_default();
        let is_secret = matches!(request.first(), Some(&(SECURITY_ACCESS | AUTHENTICATION)));
        let hash = (data.len() >= MIN_HASHED && !is_secret).then(|| AuditHash::of(data));
        self.data = Some(AuditedData { length: data.len(), hash });
        self
    }

    /// The same subject without the data, for a line about several requests.
    pub(super) fn without_data(&self) -> Self {
        Self { data: None, ..self.clone() }
    }
}
