//! The ECUs that a scan finds.

use std::fmt;

use connector_hal::can::CanId;
use serde::Serialize;

use crate::protocol::doip;
use crate::protocol::tp20::LogicalAddress;

/// The transport protocol of an ECU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ScanProtocol {
    /// ISO 15765-2.
    Isotp,
    /// SAE J2819.
    Tp20,
    /// ISO 13400-2.
    Doip,
}

impl fmt::Display for ScanProtocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Isotp => "ISO-TP",
            Self::Tp20 => "TP2.0",
            Self::Doip => "DoIP",
        })
    }
}

/// An ECU on CAN that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EcuFound {
    /// The identifier of requests; for TP2.0, of channel set-ups.
    pub request: CanId,
    /// The identifier of the ECU's answers.
    pub response: CanId,
    /// The extended address of requests, if the ECU has one.
    pub extended_request_address: Option<u8>,
    /// The first byte of the answers, if the ECU has an extended address.
    pub extended_response_address: Option<u8>,
    /// The transport protocol.
    pub protocol: ScanProtocol,
}

impl EcuFound {
    /// An ECU with ISO-TP and without extended address.
    pub(crate) fn isotp(request: CanId, response: CanId) -> Self {
        Self {
            request,
            response,
            extended_request_address: None,
            extended_response_address: None,
            protocol: ScanProtocol::Isotp,
        }
    }

    /// The logical address of an ECU with TP2.0.
    pub fn logical_address(&self) -> Option<LogicalAddress> {
        let is_tp20 = self.protocol == ScanProtocol::Tp20;
        is_tp20.then(|| LogicalAddress::try_from(self.response.raw() & 0xFF).ok()).flatten()
    }
}

/// Prints as `0x7E0 -> 0x7E8, ISO-TP`.
impl fmt::Display for EcuFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} -> {}", self.request, self.response)?;
        if let Some(address) = self.extended_request_address {
            write!(f, ", extended address 0x{address:02X}")?;
        }
        if let Some(address) = self.logical_address() {
            write!(f, ", logical address {address}")?;
        }
        write!(f, ", {}", self.protocol)
    }
}

/// Writes identifiers as numbers, as in requests of the relay protocol.
impl Serialize for EcuFound {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            request_id: u32,
            response_id: u32,
            #[serde(skip_serializing_if = "Option::is_none")]
            extended_request_address: Option<u8>,
            #[serde(skip_serializing_if = "Option::is_none")]
            extended_response_address: Option<u8>,
            #[serde(skip_serializing_if = "Option::is_none")]
            logical_address: Option<u8>,
            protocol: ScanProtocol,
        }
        Fields {
            request_id: self.request.to_number(),
            response_id: self.response.to_number(),
            extended_request_address: self.extended_request_address,
            extended_response_address: self.extended_response_address,
            logical_address: self.logical_address().map(LogicalAddress::get),
            protocol: self.protocol,
        }
        .serialize(serializer)
    }
}

/// An ECU on any kind of bus that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundEcu {
    /// An ECU on CAN.
    Can(EcuFound),
    /// An ECU behind a DoIP gateway.
    Doip {
        /// The gateway's address.
        gateway: doip::LogicalAddress,
        /// The ECU's address.
        ecu: doip::LogicalAddress,
    },
}

/// Prints as `0x7E0 -> 0x7E8, ISO-TP`; by DoIP as `0x4011 behind 0x4010, DoIP`.
impl fmt::Display for FoundEcu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Can(ecu) => ecu.fmt(f),
            Self::Doip { gateway, ecu } => write!(f, "{ecu} behind {gateway}, {}", ScanProtocol::Doip),
        }
    }
}

/// By DoIP, `request_id` and `response_id` are the ECU's address, and `gateway_id` is its gateway's.
impl Serialize for FoundEcu {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Fields {
            request_id: u16,
            response_id: u16,
            gateway_id: u16,
            protocol: ScanProtocol,
        }
        match self {
            Self::Can(ecu) => ecu.serialize(serializer),
            Self::Doip { gateway, ecu } => Fields {
                request_id: ecu.get(),
                response_id: ecu.get(),
                gateway_id: gateway.get(),
                protocol: ScanProtocol::Doip,
            }
            .serialize(serializer),
        }
    }
}

/// The result of scanning a bus: `ecusFound` of the relay protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct ScanReport {
    /// The bus's name.
    pub bus_name: String,
    /// The ECUs, by identifier.
    pub ecus: Vec<FoundEcu>,
    /// Whether everything was asked. Written only if it was not.
    #[serde(rename = "complete", skip_serializing_if = "Clone::clone")]
    pub is_complete: bool,
}
