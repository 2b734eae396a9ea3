//! The buses of `configureBuses`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::relay::wire::number::{number, optional_number};

/// A bus to configure: a name, and one kind of bus.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct BusConfig {
    /// What channels and status call it.
    pub bus_name: String,
    /// A CAN bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_bus: Option<CanBusConfig>,
    /// A K-line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kline_bus: Option<KlineBusConfig>,
    /// Diagnostics over IP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doip_bus: Option<DoipBusConfig>,
    /// The ignition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal15_bus: Option<Terminal15BusConfig>,
    /// What this agent does not know.
    #[serde(flatten)]
    pub other: serde_json::Map<String, Value>,
}

/// `can_bus`.
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
    /// The data phase's bit rate, in bit/s; present means CAN FD.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub data_bit_rate: Option<u32>,
}

fn default_can_protocol() -> String {
    "isotp".to_owned()
}

fn can_protocol<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_else(default_can_protocol))
}

/// `kline_bus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlineBusConfig {
    /// The OBD pin of the K-line.
    #[serde(deserialize_with = "number")]
    pub pin: u8,
    /// How communication is started.
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

/// `doip_bus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoipBusConfig {
    /// 1 is pins 1 and 9, 2 is pins 3 and 11.
    #[serde(deserialize_with = "number")]
    pub doip_option: u8,
    /// Addressing and activation, 1…9, by the connector's table.
    #[serde(deserialize_with = "number")]
    pub doip_network_configuration: u8,
}

/// `terminal15_bus`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terminal15BusConfig {
    /// The OBD pin.
    #[serde(deserialize_with = "number")]
    pub pin: u8,
}
