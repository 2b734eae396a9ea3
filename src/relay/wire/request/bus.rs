//! The configuration of buses in `configureBuses`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::relay::wire::number::{number, optional_number};

/// The configuration of a bus: a name, and one kind of bus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BusConfig {
    /// The name by which channels and status messages refer to the bus.
    pub bus_name: String,
    /// The configuration of a CAN bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_bus: Option<CanBusConfig>,
    /// The configuration of a K-line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kline_bus: Option<KlineBusConfig>,
    /// The configuration of a DoIP network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doip_bus: Option<DoipBusConfig>,
    /// The configuration of the terminal 15 input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal15_bus: Option<Terminal15BusConfig>,
    /// The fields that this agent does not know.
    #[serde(flatten)]
    pub other: serde_json::Map<String, Value>,
}

/// The configuration of a CAN bus, `can_bus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanBusConfig {
    /// The OBD pin of CAN high.
    #[serde(deserialize_with = "number")]
    pub pin_plus: u8,
    /// The OBD pin of CAN low.
    #[serde(deserialize_with = "number")]
    pub pin_min: u8,
    /// `isotp`, `tp20` or `frames`.
    #[serde(default = "default_can_protocol", deserialize_with = "can_protocol")]
    pub can_protocol: String,
    /// The nominal bit rate, in bit/s.
    #[serde(deserialize_with = "number")]
    pub can_bit_rate: u32,
    /// `high` (ISO 11898-2), or another transceiver that the board may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transceiver: Option<String>,
    /// The bit rate of the data phase, in bit/s. If it is present, the bus uses CAN FD.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub data_bit_rate: Option<u32>,
    /// Whether the connector checks the bit rate by listening before it sends anything; true by default.
    #[serde(default = "is_verified", deserialize_with = "verify", skip_serializing_if = "Clone::clone")]
    pub verify: bool,
}

fn is_verified() -> bool {
    true
}

fn verify<'de, D: Deserializer<'de>>(deserializer: D) -> Result<bool, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(is_verified))
}

fn default_can_protocol() -> String {
    "isotp".to_owned()
}

fn can_protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(default_can_protocol))
}

/// The configuration of a K-line, `kline_bus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlineBusConfig {
    /// The OBD pin of the K-line.
    #[serde(deserialize_with = "number")]
    pub pin: u8,
    /// How communication with an ECU is started.
    pub kline_protocol: KlineProtocol,
    /// The bit rate, in bit/s.
    #[serde(deserialize_with = "number")]
    pub kline_bit_rate: u32,
}

/// How communication on a K-line is started (ISO 14230-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KlineProtocol {
    /// By a pulse of 25 ms.
    #[serde(rename = "iso14230_fast")]
    Fast,
    /// By an address at 5 baud.
    #[serde(rename = "iso14230_slow")]
    Slow,
}

/// The configuration of a DoIP network, `doip_bus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoipBusConfig {
    /// The pins: 1 for pins 1 and 9, 2 for pins 3 and 11.
    #[serde(deserialize_with = "number")]
    pub doip_option: u8,
    /// The number of a network configuration in the connector's table: 3001…3009 as the vendor numbers the
    /// manufacturers, or 1…9. It sets addressing and activation.
    #[serde(deserialize_with = "number")]
    pub doip_network_configuration: u16,
}

/// The configuration of the terminal 15 input, `terminal15_bus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terminal15BusConfig {
    /// The OBD pin of terminal 15.
    #[serde(deserialize_with = "number")]
    pub pin: u8,
}
