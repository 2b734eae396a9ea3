//! What a scan finds.

use std::fmt;

use connector_hal::can::CanId;
use serde::Serialize;

use crate::protocol::doip;
use crate::protocol::tp20::LogicalAddress;

/// How an ECU is talked to.
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

/// An ECU that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EcuFound {
    /// Where it is asked; for TP2.0, where channels are set up.
    pub request: CanId,
    /// Where it answers from.
    pub response: CanId,
    /// The extended address by which it is told apart.
    pub extended_request_address: Option<u8>,
    /// The first byte of its answers, where it has an extended address.
    pub extended_response_address: Option<u8>,
    /// How it is talked to.
    pub protocol: ScanProtocol,
}

impl EcuFound {
    /// Where it is for TP2.0.
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

/// Identifiers as numbers, as the relay protocol has them in requests.
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

/// An ECU of a bus of any kind that answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FoundEcu {
    /// On CAN.
    Can(EcuFound),
    /// Behind a DoIP gateway.
    Doip {
        /// The gateway.
        gateway: doip::LogicalAddress,
        /// The ECU.
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

/// All that a scan of a bus found: `ecusFound` of the relay protocol.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ScanReport {
    /// The bus.
    pub bus_name: String,
    /// Its ECUs, by identifier.
    pub ecus: Vec<FoundEcu>,
}
