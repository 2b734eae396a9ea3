//! The answers of ECUs to requests for the VIN.

use super::report::VinSource;
use crate::protocol::uds;
use crate::protocol::vin::{Vin, VinError};

/// A service by which an ECU answers the VIN.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Service {
    /// OBD-II mode 09, InfoType 02 (SAE J1979).
    Obd,
    /// UDS ReadDataByIdentifier of F190 (ISO 14229-1).
    Uds,
    /// GMLAN ReadDataByIdentifier of 90 (GMW 3110).
    Gmlan,
    /// KWP 2000 ReadDataByLocalIdentifier of 81 (ISO 14230-3).
    Kwp,
}

impl Service {
    /// All services.
    pub const ALL: [Self; 4] = [Self::Obd, Self::Uds, Self::Gmlan, Self::Kwp];

    /// The request's PDU.
    pub const fn request(self) -> &'static [u8] {
        match self {
            Self::Obd => &[0x09, 0x02],
            Self::Uds => &uds::READ_VIN,
            Self::Gmlan => &[0x1A, 0x90],
            Self::Kwp => &[0x21, 0x81],
        }
    }

    /// The source for a report.
    pub const fn source(self) -> VinSource {
        match self {
            Self::Obd => VinSource::Obd,
            Self::Uds => VinSource::Uds,
            Self::Gmlan => VinSource::Gmlan,
            Self::Kwp => VinSource::Kwp,
        }
    }

    /// The data behind a positive response's service and identifier bytes; `None` for any other PDU.
    fn positive(self, pdu: &[u8]) -> Option<&[u8]> {
        match self {
            // the third byte counts the data items that follow
            Self::Obd => pdu.strip_prefix(&[0x49, 0x02])?.get(1..),
            Self::Uds => pdu.strip_prefix(&uds::READ_VIN_RESPONSE),
            Self::Gmlan => pdu.strip_prefix(&[0x5A, 0x90]),
            Self::Kwp => pdu.strip_prefix(&[0x61, 0x81]),
        }
    }

    fn by_request_id(service_id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|service| service.request().first() == Some(&service_id))
    }
}

/// An ECU's answer to a [`Service`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VinAnswer {
    /// The VIN.
    Vin(Service, Vin),
    /// A positive answer without a VIN in it.
    NoVin(Service, VinError),
    /// Response pending: the answer will come within P2* (`7F xx 78`).
    Pending(Service),
    /// The ECU is busy and must be asked again later (`7F xx 21`).
    Busy(Service),
    /// Any other negative answer, with its response code.
    Refused(Service, u8),
    /// Something else, or an answer to another request.
    Unrelated,
}

impl VinAnswer {
    /// Reads the PDU of an answer.
    pub fn parse(pdu: &[u8]) -> Self {
        if let [uds::NEGATIVE_RESPONSE, service_id, code, ..] = pdu {
            return match (Service::by_request_id(*service_id), *code) {
                (None, _) => Self::Unrelated,
                (Some(service), uds::RESPONSE_PENDING) => Self::Pending(service),
                (Some(service), uds::BUSY_REPEAT_REQUEST) => Self::Busy(service),
                (Some(service), code) => Self::Refused(service, code),
            };
        }
        for service in Service::ALL {
            if let Some(data) = service.positive(pdu) {
                return match Vin::from_field(data) {
                    Ok(vin) => Self::Vin(service, vin),
                    Err(reason) => Self::NoVin(service, reason),
                };
            }
        }
        Self::Unrelated
    }

    /// The service that the ECU answers.
    pub fn service(&self) -> Option<Service> {
        match self {
            Self::Vin(service, _)
            | Self::NoVin(service, _)
            | Self::Pending(service)
            | Self::Busy(service)
            | Self::Refused(service, _) => Some(*service),
            Self::Unrelated => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VIN: &str = "1M8GDM9AXKP042788";

    fn vin() -> Vin {
        VIN.parse().unwrap()
    }

    fn pdu(parts: &[&[u8]]) -> Vec<u8> {
        parts.concat()
    }

    #[test]
    fn the_vin_is_found_in_the_answer_of_each_service() {
        for (prefix, service) in [
            (&[0x49, 0x02, 0x01][..], Service::Obd),
            (&[0x62, 0xF1, 0x90], Service::Uds),
            (&[0x5A, 0x90], Service::Gmlan),
            (&[0x61, 0x81], Service::Kwp),
        ] {
            assert_eq!(VinAnswer::parse(&pdu(&[prefix, VIN.as_bytes()])), VinAnswer::Vin(service, vin()));
        }
    }

    #[test]
    fn padding_and_a_length_byte_are_removed() {
        for data in [
            pdu(&[VIN.as_bytes(), &[0; 7]]),
            pdu(&[&[0; 3], VIN.as_bytes()]),
            pdu(&[&[0; 2], VIN.as_bytes(), &[0; 2]]),
            pdu(&[&[0x11], VIN.as_bytes()]),
            pdu(&[&[0, 0x11], VIN.as_bytes(), &[0]]),
            pdu(&[&[0x11, 0], VIN.as_bytes()]),
            pdu(&[VIN.as_bytes(), &[0xFF; 7]]),
            pdu(&[&[0x11], VIN.as_bytes(), b"   "]),
        ] {
            let answer = VinAnswer::parse(&pdu(&[&[0x62, 0xF1, 0x90], &data]));
            assert_eq!(answer, VinAnswer::Vin(Service::Uds, vin()), "{data:02X?}");
        }
    }

    #[test]
    fn bytes_that_are_not_a_vin_are_refused_with_a_reason() {
        let uds = |data: &[u8]| VinAnswer::parse(&pdu(&[&[0x62, 0xF1, 0x90], data]));
        assert_eq!(uds(&[]), VinAnswer::NoVin(Service::Uds, VinError::Empty));
        assert_eq!(uds(&[0; 17]), VinAnswer::NoVin(Service::Uds, VinError::Empty));
        assert_eq!(uds(&[0x11]), VinAnswer::NoVin(Service::Uds, VinError::Empty));
        assert_eq!(uds(&[b'0'; 17]), VinAnswer::NoVin(Service::Uds, VinError::Placeholder));
        let erased = VinError::Character { byte: 0xFF, position: 1 };
        assert_eq!(uds(&[0xFF; 17]), VinAnswer::NoVin(Service::Uds, erased));
        for behind in [&b" \xFF"[..], b" 1", b"\xFF1", b"1"] {
            let data = pdu(&[VIN.as_bytes(), behind]);
            assert!(matches!(uds(&data), VinAnswer::NoVin(..)), "{data:02X?}");
        }
        let short = VinAnswer::NoVin(Service::Uds, VinError::Length(16));
        assert_eq!(uds(&VIN.as_bytes()[1..]), short);
    }

    #[test]
    fn a_vin_with_a_wrong_check_digit_is_accepted() {
        let answer = VinAnswer::parse(b"\x62\xF1\x90WVWZZZ1KZ6W000001");
        let VinAnswer::Vin(_, vin) = answer else { panic!("{answer:?}") };
        assert!(!vin.has_valid_check_digit());
    }

    #[test]
    fn negative_answers_are_distinguished() {
        assert_eq!(VinAnswer::parse(&[0x7F, 0x22, 0x78]), VinAnswer::Pending(Service::Uds));
        assert_eq!(VinAnswer::parse(&[0x7F, 0x09, 0x78]), VinAnswer::Pending(Service::Obd));
        assert_eq!(VinAnswer::parse(&[0x7F, 0x1A, 0x21]), VinAnswer::Busy(Service::Gmlan));
        assert_eq!(VinAnswer::parse(&[0x7F, 0x21, 0x12]), VinAnswer::Refused(Service::Kwp, 0x12));
        assert_eq!(VinAnswer::parse(&[0x7F, 0x10, 0x78]), VinAnswer::Unrelated);
        assert_eq!(VinAnswer::parse(&[0x7F, 0x22]), VinAnswer::Unrelated);
    }

    #[test]
    fn answers_to_other_requests_are_unrelated() {
        let other_identifier = pdu(&[&[0x62, 0xF1, 0x87], VIN.as_bytes()]);
        assert_eq!(VinAnswer::parse(&other_identifier), VinAnswer::Unrelated);
        assert_eq!(VinAnswer::parse(&[]), VinAnswer::Unrelated);
        assert_eq!(VinAnswer::parse(&[0x49, 0x02]), VinAnswer::Unrelated);
    }

    proptest! {
        #[test]
        fn a_reported_vin_was_in_the_answer(
            pdu in proptest::collection::vec(prop_oneof![any::<u8>(), Just(0), Just(0x11), b'A'..=b'H', b'0'..=b'9'], 0..40),
            service in 0usize..4,
        ) {
            let prefix: &[u8] = [&[0x49, 0x02, 0x01][..], &[0x62, 0xF1, 0x90], &[0x5A, 0x90], &[0x61, 0x81]][service];
            let pdu = [prefix, &pdu].concat();
            if let VinAnswer::Vin(_, vin) = VinAnswer::parse(&pdu) {
                let at = pdu.windows(17).position(|window| window == vin.as_str().as_bytes()).unwrap();
                let after = &pdu[at + 17..];
                let is_fill = |fill| after.iter().all(|byte| [0, fill].contains(byte));
                prop_assert!(is_fill(0x20) || is_fill(0xFF), "{:02X?}", pdu);
                let before = &pdu[prefix.len()..at];
                let is_padding = |fill| before.iter().all(|byte| [0, 0x11, fill].contains(byte));
                prop_assert!(is_padding(0x20) || is_padding(0xFF), "{:02X?}", pdu);
            }
        }
    }
}
