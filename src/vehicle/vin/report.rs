//! The result of reading the VIN.

use std::fmt;
use std::time::Duration;

use connector_hal::can::CanId;
use serde::{Serialize, Serializer};

use crate::protocol::doip::LogicalAddress;
use crate::protocol::vin::Vin;

/// The service that delivered the VIN, with its name in the relay protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum VinSource {
    /// OBD-II mode 09.
    Obd,
    /// UDS on CAN.
    Uds,
    /// GMLAN.
    Gmlan,
    /// KWP 2000, on CAN or K-line.
    Kwp,
    /// DoIP.
    Doip,
}

impl fmt::Display for VinSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Obd => "OBD",
            Self::Uds => "UDS",
            Self::Gmlan => "GMLAN",
            Self::Kwp => "KWP",
            Self::Doip => "DoIP",
        })
    }
}

/// The address of the ECU or gateway that delivered a VIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EcuAddress {
    /// The CAN identifier of the ECU's answer.
    Can(CanId),
    /// The ECU's address on its K-line.
    Kline(u8),
    /// The ECU's or gateway's address.
    Doip(LogicalAddress),
}

impl From<CanId> for EcuAddress {
    fn from(id: CanId) -> Self {
        Self::Can(id)
    }
}

impl From<LogicalAddress> for EcuAddress {
    fn from(address: LogicalAddress) -> Self {
        Self::Doip(address)
    }
}

impl fmt::Display for EcuAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Can(id) => id.fmt(f),
            Self::Kline(address) => write!(f, "0x{address:02X}"),
            Self::Doip(address) => address.fmt(f),
        }
    }
}

/// A VIN from one ECU or gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The VIN.
    #[serde(rename = "vin_number")]
    pub vin: Vin,
    /// The service.
    pub source: VinSource,
    /// The ECU or gateway.
    #[serde(serialize_with = "address_as_text")]
    pub address: EcuAddress,
}

/// The result of reading the VIN, serialized as the relay protocol's `vehicleIdentified` message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VinReport {
    /// The VIN; `None` if none could be read.
    #[serde(rename = "vin_number")]
    pub vin: Option<Vin>,
    /// The service that delivered the VIN.
    pub source: Option<VinSource>,
    /// The ECU or gateway that delivered the VIN.
    #[serde(serialize_with = "optional_address_as_text")]
    pub address: Option<EcuAddress>,
    /// The time that reading took, from the first listening.
    #[serde(rename = "elapsed_ms", serialize_with = "as_milliseconds")]
    pub elapsed: Duration,
    /// All VINs in the order in which they came, if they disagree; otherwise empty.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conflict: Vec<Candidate>,
    /// Whether the VIN's check digit is right. For information only: most vehicles have none.
    #[serde(skip)]
    pub check_digit_valid: Option<bool>,
}

impl VinReport {
    /// The report on the VINs of one bus, in the order in which they came.
    ///
    /// If the VINs disagree, the report names the most frequent one, of equally frequent ones the first, and
    /// lists all of them as conflict.
    pub fn from_candidates(candidates: &[Candidate], elapsed: Duration) -> Self {
        let votes = |vin: Vin| candidates.iter().filter(|candidate| candidate.vin == vin).count();
        // `max_by_key` keeps the last of equals, so the first one must come last
        let best = candidates.iter().rev().max_by_key(|candidate| votes(candidate.vin)).copied();
        let unanimous = candidates.iter().all(|candidate| Some(candidate.vin) == best.map(|best| best.vin));
        Self {
            vin: best.map(|best| best.vin),
            source: best.map(|best| best.source),
            address: best.map(|best| best.address),
            elapsed,
            conflict: if unanimous { Vec::new() } else { candidates.to_vec() },
            check_digit_valid: best.map(|best| best.vin.has_valid_check_digit()),
        }
    }

    /// The report on the VINs of several buses, the bus that answered first in front. The report names the
    /// first bus's VIN, and lists disagreeing VINs as conflict.
    pub(crate) fn from_buses(buses: &[Vec<Candidate>], elapsed: Duration) -> Self {
        let first = buses.iter().find(|candidates| !candidates.is_empty());
        let mut report = Self::from_candidates(first.map_or(&[], Vec::as_slice), elapsed);
        let all: Vec<Candidate> = buses.concat();
        report.conflict =
            if all.iter().all(|candidate| Some(candidate.vin) == report.vin) { Vec::new() } else { all };
        report
    }
}

fn address_as_text<S: Serializer>(address: &EcuAddress, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

fn optional_address_as_text<S: Serializer>(
    address: &Option<EcuAddress>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    match address {
        Some(address) => serializer.collect_str(address),
        None => serializer.serialize_none(),
    }
}

fn as_milliseconds<S: Serializer>(elapsed: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "1M8GDM9AXKP042788";
    const OTHER: &str = "WVWZZZ1KZ6W000001";

    fn candidate(vin: &str, address: u32) -> Candidate {
        let address = CanId::try_from(address).unwrap().into();
        Candidate { vin: vin.parse().unwrap(), source: VinSource::Uds, address }
    }

    #[test]
    fn a_report_is_written_as_the_relay_protocol_says() {
        let report = VinReport::from_candidates(&[candidate(ONE, 0x7E8)], Duration::from_micros(83_900));
        assert_eq!(
            serde_json::to_string(&report).unwrap(),
            r#"{"vin_number":"1M8GDM9AXKP042788","source":"uds","address":"0x7E8","elapsed_ms":83}"#
        );
        assert_eq!(report.check_digit_valid, Some(true));
        let nothing = VinReport::from_candidates(&[], Duration::from_millis(300));
        assert_eq!(
            serde_json::to_string(&nothing).unwrap(),
            r#"{"vin_number":null,"source":null,"address":null,"elapsed_ms":300}"#
        );
    }

    #[test]
    fn ecus_that_agree_are_no_conflict() {
        let report =
            VinReport::from_candidates(&[candidate(ONE, 0x7E8), candidate(ONE, 0x7EA)], Duration::ZERO);
        assert_eq!(report.conflict, []);
        assert_eq!(report.address.unwrap().to_string(), "0x7E8");
    }

    #[test]
    fn of_several_vins_the_most_frequent_is_reported_with_all_of_them_as_conflict() {
        let candidates = [candidate(OTHER, 0x7E8), candidate(ONE, 0x7E9), candidate(ONE, 0x7EA)];
        let report = VinReport::from_candidates(&candidates, Duration::ZERO);
        assert_eq!(report.vin.unwrap().as_str(), ONE);
        assert_eq!(report.address.unwrap().to_string(), "0x7E9");
        assert_eq!(report.conflict, candidates);
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["conflict"][0]["vin_number"], OTHER);
        assert_eq!(json["conflict"][0]["address"], "0x7E8");
    }

    #[test]
    fn of_equally_frequent_vins_the_first_answered_is_reported() {
        let candidates = [candidate(OTHER, 0x7E8), candidate(ONE, 0x7E9)];
        assert_eq!(VinReport::from_candidates(&candidates, Duration::ZERO).vin.unwrap().as_str(), OTHER);
    }

    #[test]
    fn the_first_bus_to_answer_wins_and_others_may_conflict() {
        let first = vec![candidate(ONE, 0x7E8)];
        let second = vec![candidate(OTHER, 0x7E8), candidate(OTHER, 0x7E9)];
        let report = VinReport::from_buses(&[first.clone(), second], Duration::ZERO);
        assert_eq!(report.vin.unwrap().as_str(), ONE);
        assert_eq!(report.conflict.len(), 3);
        let agreeing = VinReport::from_buses(&[vec![], first.clone(), first], Duration::ZERO);
        assert_eq!(agreeing.vin.unwrap().as_str(), ONE);
        assert_eq!(agreeing.conflict, []);
    }
}
