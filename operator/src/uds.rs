//! Trouble codes and negative response codes in words (ISO 14229-1, ISO 15031-6).

use std::fmt;

/// A diagnostic trouble code with its status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TroubleCode {
    /// The three bytes of the code; the last one is the failure type.
    pub code: [u8; 3],
    /// The status bits.
    pub status: u8,
}

/// Prints in the notation of workshops: `P0420-00`.
impl fmt::Display for TroubleCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [high, low, failure] = self.code;
        let system = match high >> 6 {
            0 => 'P',
            1 => 'C',
            2 => 'B',
            _ => 'U',
        };
        write!(f, "{system}{:02X}{low:02X}-{failure:02X}", high & 0x3F)
    }
}

/// The status bits that are shown, the most important first (ISO 14229-1, D.2).
const STATUS: [(u8, &str); 5] = [
    (0x80, "warning lamp on"),
    (0x08, "confirmed"),
    (0x04, "pending"),
    (0x01, "failing now"),
    (0x20, "failed since cleared"),
];

impl TroubleCode {
    /// The status in words.
    pub fn status_in_words(&self) -> String {
        let words: Vec<&str> =
            STATUS.iter().filter(|(bit, _)| self.status & bit != 0).map(|(_, words)| *words).collect();
        if words.is_empty() { "not failing".to_owned() } else { words.join(", ") }
    }
}

/// The trouble codes in the response to `19 02`, or `None` if the PDU is not such a response.
pub fn trouble_codes(response: &[u8]) -> Option<Vec<TroubleCode>> {
    let [0x59, 0x02, _, records @ ..] = response else { return None };
    let (records, []) = records.as_chunks::<4>() else { return None };
    Some(
        records.iter().map(|[a, b, c, status]| TroubleCode { code: [*a, *b, *c], status: *status }).collect(),
    )
}

/// Describes a negative response code, and gives advice.
pub(crate) fn describe_refusal(code: u8) -> (&'static str, &'static str) {
    match code {
        0x10 => ("the ECU refuses without giving a reason", "switch the ignition off and on, and try again"),
        0x11 => ("the ECU does not have this service", "check that it is the right ECU"),
        0x12 => ("the ECU does not have this function", "check the request"),
        0x13 => ("the request's length or format is wrong", "check the request"),
        0x14 => ("the response would be too long", "request less data at a time"),
        0x21 => ("the ECU is busy", "try again later"),
        0x22 => (
            "the conditions in the vehicle are not right",
            "check that the ignition is on, the engine off, the vehicle stationary and the battery charged",
        ),
        0x24 => ("requests came in the wrong order", "start the procedure again from the beginning"),
        0x25 => ("a component behind the ECU does not respond", "check its wiring"),
        0x26 => ("a fault prevents the execution", "read the trouble codes"),
        0x31 => ("the ECU does not know this identifier, or the value is out of range", "check the request"),
        0x33 => ("the ECU is locked", "unlock the ECU by security access first"),
        0x34 => ("the ECU requires authentication", "authenticate first"),
        0x35 => ("the ECU does not accept the key", "check that the key belongs to this ECU"),
        0x36 => ("too many wrong keys were sent", "wait ten minutes with the ignition on, and try again"),
        0x37 => ("the delay after wrong keys has not ended", "wait ten minutes with the ignition on"),
        0x70 => ("the ECU does not accept a download now", "start the procedure again, including erasing"),
        0x71 => ("a fault stopped the transfer", "flash again"),
        0x72 => ("programming the memory failed", "flash again; if it fails again, the ECU is faulty"),
        0x73 => ("a block is missing or came twice", "flash again"),
        0x78 => ("the ECU needs more time", "wait"),
        0x7E => ("the function is not available in this session", "change the session first"),
        0x7F => ("the service is not available in this session", "change the session first"),
        0x81 => ("the engine's speed is too high", "switch the engine off"),
        0x83 => ("the engine is running", "switch the engine off"),
        0x84 => ("the engine is not running", "start the engine"),
        0x88 => ("the vehicle is moving", "stop the vehicle"),
        0x92 => ("the voltage is too high", "check the charger"),
        0x93 => ("the voltage is too low", "connect a charger"),
        0x38..=0x4F => ("the secured data transmission of the ECU refuses", "check the authorisation"),
        0x80..=0xFF => {
            ("a condition defined by the manufacturer is not met", "see the manufacturer's documents")
        }
        _ => ("a reason that ISO 14229 does not define", "see the manufacturer's documents"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_codes_print_as_technicians_know_them() {
        for (code, text) in [
            ([0x04, 0x20, 0x00], "P0420-00"),
            ([0x41, 0x23, 0x1A], "C0123-1A"),
            ([0x91, 0xA0, 0x01], "B11A0-01"),
            ([0xC1, 0x00, 0x88], "U0100-88"),
            ([0x3F, 0xFF, 0xFF], "P3FFF-FF"),
        ] {
            assert_eq!(TroubleCode { code, status: 0 }.to_string(), text);
        }
    }

    #[test]
    fn a_list_of_trouble_codes_is_parsed_whole_or_refused() {
        let one = TroubleCode { code: [1, 2, 3], status: 0x2F };
        assert_eq!(trouble_codes(&[0x59, 2, 0x7F]), Some(vec![]));
        assert_eq!(trouble_codes(&[0x59, 2, 0x7F, 1, 2, 3, 0x2F]), Some(vec![one]));
        assert_eq!(trouble_codes(&[0x59, 2, 0x7F, 1, 2, 3]), None);
        assert_eq!(trouble_codes(&[0x59, 2]), None);
        assert_eq!(trouble_codes(&[0x7F, 0x19, 0x12]), None);
        assert_eq!(one.status_in_words(), "confirmed, pending, failing now, failed since cleared");
    }
}
