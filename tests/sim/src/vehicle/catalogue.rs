//! The file of vehicles: the ECUs of each vehicle, their identifiers and their answers.

use std::path::{Path, PathBuf};

use connector_agent::protocol::vin::{Vin, VinError};
use connector_hal::can::CanId;
pub use connector_operator::EcuAddress;
use serde::Deserialize;
use serde_json::value::RawValue;

use connector_operator::hex::{self, HexError};

/// A request and the real ECU's response to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// The request's PDU.
    pub request: Vec<u8>,
    /// The response's PDU.
    pub response: Vec<u8>,
}

/// An ECU in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EcuRecord {
    /// The ECU's function, such as `engine` or `fwdRadar`; not unique in a vehicle.
    pub name: String,
    /// The ECU's identifiers; unique in a vehicle.
    pub address: EcuAddress,
    /// The recorded exchanges, in the order in which a tool asks.
    pub exchanges: Vec<Exchange>,
}

/// A vehicle in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VehicleRecord {
    /// The make.
    pub make: String,
    /// The platform, which identifies the vehicle in the file.
    pub platform: String,
    /// The VIN that a tool finds; `None` if the vehicle reports none.
    pub vin: Option<Vin>,
    /// The exchanges that report the VIN, each with its ECU.
    pub vin_exchanges: Vec<(EcuAddress, Exchange)>,
    /// The ECUs as the file lists them.
    pub ecus: Vec<EcuRecord>,
}

impl VehicleRecord {
    /// All ECUs of the vehicle with all their answers: the listed ones, and those that only report the VIN.
    pub fn nodes(&self) -> Vec<EcuRecord> {
        let mut nodes = self.ecus.clone();
        for (address, exchange) in &self.vin_exchanges {
            match nodes.iter_mut().find(|node| node.address == *address) {
                Some(node) => node.exchanges.push(exchange.clone()),
                None => nodes.push(EcuRecord {
                    name: "vin".to_owned(),
                    address: *address,
                    exchanges: vec![exchange.clone()],
                }),
            }
        }
        nodes
    }
}

/// The reasons why a file of vehicles cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error that caused this.
        source: std::io::Error,
    },
    /// The file is not JSON, or not a list.
    #[error("the file is not a list of vehicles: {0}")]
    Syntax(#[source] serde_json::Error),
    /// A vehicle lacks a field, or a field has the wrong type.
    #[error("line {line}, {}: {source}", vehicle(platform.as_deref()))]
    Record {
        /// The line of the file.
        line: usize,
        /// The vehicle's platform, if the vehicle has one.
        platform: Option<String>,
        /// The parser's error, whose line is counted from the vehicle's start.
        source: serde_json::Error,
    },
    /// A field's text has the wrong form.
    #[error("line {line}, platform {platform}, {field}: {source}")]
    Field {
        /// The line of the file on which the vehicle starts.
        line: usize,
        /// The vehicle's platform.
        platform: String,
        /// The path of the field in the vehicle, such as `ecus[2].request_id`.
        field: String,
        /// The reason.
        source: FieldError,
    },
    /// No vehicle in the file has this platform.
    #[error("no vehicle has the platform {platform}{}", similar_names(near))]
    UnknownPlatform {
        /// The platform that was requested.
        platform: String,
        /// Platforms with similar names, the most similar first.
        near: Vec<String>,
    },
}

/// The reasons why a field's text is wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldError {
    /// The text is not hex.
    #[error(transparent)]
    Hex(#[from] HexError),
    /// The PDU has no bytes.
    #[error("a PDU has at least one byte")]
    Empty,
    /// The text is not a CAN identifier.
    #[error("`{0}` is not a CAN identifier; write 0x7E0 or 0x18DA10F1")]
    Identifier(String),
    /// The text is not an address byte.
    #[error("`{0}` is not an address byte; write 0x0F")]
    AddressByte(String),
    /// The text is not a VIN.
    #[error(transparent)]
    Vin(#[from] VinError),
    /// Another ECU of the vehicle has this address.
    #[error("another ECU of the vehicle also has the address {0}")]
    DuplicateAddress(EcuAddress),
    /// Another vehicle has this platform.
    #[error("another vehicle has the same platform")]
    DuplicatePlatform,
}

fn vehicle(platform: Option<&str>) -> String {
    platform.map_or_else(|| "a vehicle without platform".to_owned(), |name| format!("platform {name}"))
}

fn similar_names(near: &[String]) -> String {
    if near.is_empty() { String::new() } else { format!("; similar names: {}", near.join(", ")) }
}

/// The vehicles in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Catalogue {
    vehicles: Vec<VehicleRecord>,
}

impl Catalogue {
    /// Reads a file.
    pub fn load(path: &Path) -> Result<Self, CatalogueError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| CatalogueError::Read { path: path.to_owned(), source })?;
        Self::parse(&text)
    }

    /// Parses the text of a file.
    pub fn parse(text: &str) -> Result<Self, CatalogueError> {
        let raw: Vec<&RawValue> = serde_json::from_str(text).map_err(CatalogueError::Syntax)?;
        let mut vehicles: Vec<VehicleRecord> = Vec::with_capacity(raw.len());
        let (mut line, mut rest_from) = (1, 0);
        for value in raw {
            // a RawValue borrows from the text, so its position there is the difference of the addresses
            let start = (value.get().as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
            line += text.get(rest_from..start).map_or(0, |skipped| skipped.matches('\n').count());
            rest_from = start;
            let vehicle = parse_vehicle(value.get(), line)?;
            if vehicles.iter().any(|other| other.platform == vehicle.platform) {
                return Err(CatalogueError::Field {
                    line,
                    platform: vehicle.platform,
                    field: "platform".to_owned(),
                    source: FieldError::DuplicatePlatform,
                });
            }
            vehicles.push(vehicle);
        }
        Ok(Self { vehicles })
    }

    /// The vehicles, in the file's order.
    pub fn vehicles(&self) -> &[VehicleRecord] {
        &self.vehicles
    }

    /// The vehicle with this platform, which must match exactly.
    pub fn find(&self, platform: &str) -> Result<&VehicleRecord, CatalogueError> {
        self.vehicles.iter().find(|vehicle| vehicle.platform == platform).ok_or_else(|| {
            CatalogueError::UnknownPlatform { platform: platform.to_owned(), near: self.near(platform) }
        })
    }

    /// At most five platforms with names similar to `platform`.
    fn near(&self, platform: &str) -> Vec<String> {
        const NEAR: f64 = 0.75;
        let wanted = platform.to_uppercase();
        let mut scored: Vec<(f64, &str)> = self
            .vehicles
            .iter()
            .map(|vehicle| {
                let name = vehicle.platform.as_str();
                let part = !wanted.is_empty() && name.contains(&wanted);
                (strsim::jaro_winkler(&wanted, name) + f64::from(u8::from(part)), name)
            })
            .filter(|(score, _)| *score >= NEAR)
            .collect();
        scored.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        scored.into_iter().take(5).map(|(_, name)| name.to_owned()).collect()
    }
}

#[derive(Deserialize)]
struct RawVehicle {
    make: String,
    platform: String,
    vin: Option<String>,
    vin_exchanges: Vec<RawVinExchange>,
    ecus: Vec<RawEcu>,
}

#[derive(Deserialize)]
struct RawVinExchange {
    request_id: String,
    response_id: String,
    request: String,
    response: String,
}

#[derive(Deserialize)]
struct RawEcu {
    ecu: String,
    request_id: String,
    response_id: String,
    extended_address: Option<String>,
    exchanges: Vec<RawExchange>,
}

#[derive(Deserialize)]
struct RawExchange {
    request: String,
    response: String,
}

#[derive(Deserialize)]
struct RawPlatform {
    platform: Option<String>,
}

/// A field's path within its vehicle, and the error in the field.
type Wrong = (String, FieldError);

fn parse_vehicle(text: &str, line: usize) -> Result<VehicleRecord, CatalogueError> {
    let raw: RawVehicle = serde_json::from_str(text).map_err(|source| CatalogueError::Record {
        line: line + source.line().saturating_sub(1),
        platform: serde_json::from_str::<RawPlatform>(text).ok().and_then(|raw| raw.platform),
        source,
    })?;
    let platform = raw.platform.clone();
    convert_vehicle(raw).map_err(|(field, source)| CatalogueError::Field { line, platform, field, source })
}

fn convert_vehicle(raw: RawVehicle) -> Result<VehicleRecord, Wrong> {
    let vin = raw.vin.map(|vin| vin.parse::<Vin>().map_err(|error| ("vin".to_owned(), error.into())));
    let mut ecus: Vec<EcuRecord> = Vec::with_capacity(raw.ecus.len());
    for (index, ecu) in raw.ecus.into_iter().enumerate() {
        let path = format!("ecus[{index}]");
        let extended = ecu.extended_address.map(|text| address_byte(&path, &text)).transpose()?;
        let address = address(&path, &ecu.request_id, &ecu.response_id, extended)?;
        if ecus.iter().any(|other| other.address == address) {
            return Err((path, FieldError::DuplicateAddress(address)));
        }
        let exchanges =
            ecu.exchanges.into_iter().enumerate().map(|(index, raw)| {
                exchange(&format!("{path}.exchanges[{index}]"), &raw.request, &raw.response)
            });
        ecus.push(EcuRecord { name: ecu.ecu, address, exchanges: exchanges.collect::<Result<_, _>>()? });
    }
    let vin_exchanges = raw.vin_exchanges.into_iter().enumerate().map(|(index, raw)| {
        let path = format!("vin_exchanges[{index}]");
        let address = address(&path, &raw.request_id, &raw.response_id, None)?;
        Ok((address, exchange(&path, &raw.request, &raw.response)?))
    });
    Ok(VehicleRecord {
        make: raw.make,
        platform: raw.platform,
        vin: vin.transpose()?,
        vin_exchanges: vin_exchanges.collect::<Result<_, Wrong>>()?,
        ecus,
    })
}

fn exchange(path: &str, request: &str, response: &str) -> Result<Exchange, Wrong> {
    Ok(Exchange { request: pdu(path, "request", request)?, response: pdu(path, "response", response)? })
}

fn pdu(path: &str, field: &str, text: &str) -> Result<Vec<u8>, Wrong> {
    let bytes = hex::parse(text).map_err(|error| (format!("{path}.{field}"), error.into()))?;
    if bytes.is_empty() { Err((format!("{path}.{field}"), FieldError::Empty)) } else { Ok(bytes) }
}

fn address(path: &str, request: &str, response: &str, extended: Option<u8>) -> Result<EcuAddress, Wrong> {
    Ok(EcuAddress {
        request: identifier(path, "request_id", request)?,
        response: identifier(path, "response_id", response)?,
        extended,
    })
}

fn identifier(path: &str, field: &str, text: &str) -> Result<CanId, Wrong> {
    number(text)
        .and_then(|number| CanId::try_from(number).ok())
        .ok_or_else(|| (format!("{path}.{field}"), FieldError::Identifier(text.to_owned())))
}

fn address_byte(path: &str, text: &str) -> Result<u8, Wrong> {
    number(text)
        .and_then(|number| u8::try_from(number).ok())
        .ok_or_else(|| (format!("{path}.extended_address"), FieldError::AddressByte(text.to_owned())))
}

fn number(text: &str) -> Option<u32> {
    u32::from_str_radix(text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"))?, 16).ok()
}
