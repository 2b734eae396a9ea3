//! Diagnostic trouble codes, generated for each ECU and equal on every run.

use super::nrc::Nrc;
use super::security::mix;

/// The status bits that these ECUs support (ISO 14229-1, D.2): all except warningIndicatorRequested.
pub const STATUS_AVAILABILITY_MASK: u8 = 0x7F;

/// A trouble code with its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Dtc {
    /// The three bytes of the code.
    pub code: [u8; 3],
    /// The status byte: testFailed, confirmedDTC and so on.
    pub status: u8,
}

/// The stored codes of a new ECU: none to three.
pub(super) fn generate(identity: u64) -> Vec<Dtc> {
    const STATUS: [u8; 4] = [0x2F, 0x08, 0x28, 0x04];
    let mut dtcs: Vec<Dtc> = Vec::new();
    for index in 0..mix(identity, 0) % 4 {
        let bits = mix(identity, 1 + index);
        let [status, high, middle, failure_type, ..] = bits.to_be_bytes();
        let status = STATUS.get(usize::from(status % 4)).copied().unwrap_or(0x08);
        let code = [high, middle, failure_type % 0x20];
        if dtcs.iter().all(|dtc| dtc.code != code) {
            dtcs.push(Dtc { code, status });
        }
    }
    dtcs
}

/// `19` readDTCInformation: reportNumberOfDTCByStatusMask, reportDTCByStatusMask, reportSupportedDTC.
pub(super) fn read(supported: &[Dtc], stored: &[Dtc], sub_function: u8, data: &[u8]) -> Result<Vec<u8>, Nrc> {
    let list = |response: Vec<u8>, dtcs: &mut dyn Iterator<Item = &Dtc>| {
        dtcs.fold(response, |mut response, dtc| {
            response.extend(dtc.code);
            response.push(dtc.status);
            response
        })
    };
    let by_mask = |mask: u8| stored.iter().filter(move |dtc| dtc.status & mask != 0);
    match (sub_function, data) {
        (0x01, [mask]) => {
            let count = by_mask(*mask).count().min(0xFFFF) as u16;
            let [high, low] = count.to_be_bytes();
            // format 1: ISO 14229-1
            Ok(vec![0x59, 0x01, STATUS_AVAILABILITY_MASK, 0x01, high, low])
        }
        (0x02, [mask]) => Ok(list(vec![0x59, 0x02, STATUS_AVAILABILITY_MASK], &mut by_mask(*mask))),
        (0x0A, []) => {
            let status = |code| stored.iter().find(|dtc: &&Dtc| dtc.code == code).map_or(0, |dtc| dtc.status);
            let all: Vec<Dtc> =
                supported.iter().map(|dtc| Dtc { status: status(dtc.code), ..*dtc }).collect();
            Ok(list(vec![0x59, 0x0A, STATUS_AVAILABILITY_MASK], &mut all.iter()))
        }
        (0x01 | 0x02 | 0x0A, _) => Err(Nrc::IncorrectMessageLength),
        _ => Err(Nrc::SubFunctionNotSupported),
    }
}

/// `14` clearDiagnosticInformation for all groups or for one code.
pub(super) fn clear(stored: &mut Vec<Dtc>, data: &[u8]) -> Result<Vec<u8>, Nrc> {
    let [high, middle, low] = *data else { return Err(Nrc::IncorrectMessageLength) };
    let group = [high, middle, low];
    if group == [0xFF; 3] {
        stored.clear();
        return Ok(vec![0x54]);
    }
    let before = stored.len();
    stored.retain(|dtc| dtc.code != group);
    if stored.len() == before { Err(Nrc::RequestOutOfRange) } else { Ok(vec![0x54]) }
}
