//! What a scan is asked to do beyond its usual plan.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The 11-bit identifiers that a scan may ask.
const ASKABLE: std::ops::RangeInclusive<u32> = 0x600..=0x7FF;

/// What the owner of a scan says about the vehicle, and wants to know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScanRequest {
    /// A person made sure that the vehicle stands. Without that, a bus is scanned only if an ECU reports it. An ECU
    /// that reports a speed stops the scan in any case.
    pub vehicle_stands: bool,
    /// Further 11-bit identifiers to ask with TesterPresent, besides 0x700 to 0x7FF.
    pub ranges: Vec<IdRange>,
}

/// A range of 11-bit identifiers from 0x600 to 0x7FF.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RangeFields", into = "RangeFields")]
pub struct IdRange {
    first: u32,
    last: u32,
}

/// A range is not one of identifiers that a scan may ask.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a range to scan lies between 0x600 and 0x7FF, as in 0x600-0x6FF")]
pub struct RangeError;

/// The fields of a range in the relay protocol.
#[derive(Debug, Serialize, Deserialize)]
struct RangeFields {
    first_id: u32,
    last_id: u32,
}

impl IdRange {
    /// The identifiers from `first` to `last`.
    ///
    /// # Errors
    ///
    /// The range is empty, or is not between 0x600 and 0x7FF. Below, vehicles have their application messages.
    pub fn new(first: u32, last: u32) -> Result<Self, RangeError> {
        let is_askable = ASKABLE.contains(&first) && ASKABLE.contains(&last) && first <= last;
        if is_askable { Ok(Self { first, last }) } else { Err(RangeError) }
    }

    pub(super) fn contains(self, id: u32) -> bool {
        (self.first..=self.last).contains(&id)
    }

    pub(super) fn ids(self) -> std::ops::RangeInclusive<u32> {
        self.first..=self.last
    }
}

impl TryFrom<RangeFields> for IdRange {
    type Error = RangeError;

    fn try_from(fields: RangeFields) -> Result<Self, RangeError> {
        Self::new(fields.first_id, fields.last_id)
    }
}

impl From<IdRange> for RangeFields {
    fn from(range: IdRange) -> Self {
        Self { first_id: range.first, last_id: range.last }
    }
}

/// Reads `0x600-0x6FF`, or one identifier.
impl FromStr for IdRange {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let read = |text: &str| {
            let digits = text.trim().strip_prefix("0x").or_else(|| text.trim().strip_prefix("0X"));
            digits.map_or_else(|| text.trim().parse(), |digits| u32::from_str_radix(digits, 16))
        };
        match (read(first), read(last)) {
            (Ok(first), Ok(last)) => Self::new(first, last),
            _ => Err(RangeError),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_to_scan_is_read_as_text_and_as_json_within_its_bounds() {
        let range = IdRange::new(0x600, 0x6FF).unwrap();
        assert_eq!("0x600-0x6FF".parse(), Ok(range));
        assert_eq!("1536-1791".parse(), Ok(range));
        assert_eq!("0x6F1".parse(), IdRange::new(0x6F1, 0x6F1));
        let json = serde_json::json!({"first_id": 0x600, "last_id": 0x6FF});
        assert_eq!(serde_json::from_value::<IdRange>(json.clone()).unwrap(), range);
        assert_eq!(serde_json::to_value(range).unwrap(), json);
        for wrong in ["", "0x5FF-0x6FF", "0x600-0x800", "0x6FF-0x600", "0x600-", "600h", "0x100"] {
            assert_eq!(wrong.parse::<IdRange>(), Err(RangeError), "{wrong}");
        }
    }
}
