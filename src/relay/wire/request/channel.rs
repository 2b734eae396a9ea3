//! The channels of `openChannel`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::relay::wire::number::{number, numbers, optional_number};

/// Reads a value that may be null, which is then the default one, as if it were absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `openChannel`: a number, and one kind of channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenChannel {
    /// The connection.
    pub connection_uuid: Uuid,
    /// The channel's number, 1…65535, chosen by the operator.
    #[serde(deserialize_with = "number")]
    pub channel: u16,
    /// Frames as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_channel: Option<RawChannelConfig>,
    /// PDUs by ISO-TP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isotp_channel: Option<IsotpChannelConfig>,
    /// PDUs by TP2.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tp20_channel: Option<Tp20ChannelConfig>,
    /// PDUs on a K-line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kline_channel: Option<KlineChannelConfig>,
    /// PDUs by DoIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doip_channel: Option<DoipChannelConfig>,
    /// The ignition's state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal15_channel: Option<Terminal15ChannelConfig>,
    /// How old a record may be that goes to the vehicle, in ms: 500 for raw channels and 30000 for others unless told.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// What this agent does not know.
    #[serde(flatten)]
    pub other: serde_json::Map<String, Value>,
}

/// `raw_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawChannelConfig {
    /// The bus.
    pub bus_name: String,
    /// The identifier that may be sent; absent: none.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<u32>,
    /// The identifier that is received; absent: every frame.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub response_id: Option<u32>,
    /// How old a frame may be, where the channel's kind says it.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
}

/// `isotp_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IsotpChannelConfig {
    /// The bus.
    pub bus_name: String,
    /// Where requests go.
    #[serde(deserialize_with = "number")]
    pub request_id: u32,
    /// Where answers come from; absent: a functional channel.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub response_id: Option<u32>,
    /// Who may answer a functional request that is neither 0x7DF nor 0x18DB33F1.
    #[serde(default, deserialize_with = "numbers", skip_serializing_if = "Vec::is_empty")]
    pub response_ids: Vec<u32>,
    /// The first data byte of frames toward the ECU.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub extended_request_address: Option<u8>,
    /// The first data byte of frames from the ECU.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub extended_response_address: Option<u8>,
    /// Whether frames are filled up.
    #[serde(default, deserialize_with = "or_default")]
    pub padding: PaddingConfig,
    /// What with; 0xCC unless told.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub padding_byte: Option<u8>,
    /// Whether the connector sends TesterPresent by itself.
    #[serde(default, deserialize_with = "or_default")]
    pub keep_alive: Switch,
    /// The block size asked of the ECU.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// The separation time asked of the ECU, as on the wire.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub st_min: Option<u8>,
    /// How old a PDU may be, where the channel's kind says it.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// P2 of chained PDUs, in ms; 1000 unless told.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub p2_ms: Option<u32>,
}

impl IsotpChannelConfig {
    /// What may be said of any channel that carries PDUs.
    pub fn options(&self) -> PduOptions {
        PduOptions { keep_alive: self.keep_alive, max_age_ms: self.max_age_ms, p2_ms: self.p2_ms }
    }
}

/// Whether frames are filled up to their full length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PaddingConfig {
    /// Always.
    #[default]
    Enabled,
    /// Never.
    Disabled,
    /// As the ECU does.
    Detection,
}

/// On or off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// On.
    Enabled,
    /// Off.
    #[default]
    Disabled,
}

/// What may be said of any other channel that carries PDUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PduOptions {
    /// Whether the connector sends TesterPresent by itself.
    #[serde(default, deserialize_with = "or_default")]
    pub keep_alive: Switch,
    /// How old a PDU may be, where the channel's kind says it.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// P2 of chained PDUs, in ms; 1000 unless told.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub p2_ms: Option<u32>,
}

/// `tp20_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tp20ChannelConfig {
    /// The bus.
    pub bus_name: String,
    /// The ECU's logical address.
    #[serde(deserialize_with = "number")]
    pub logical_address: u8,
    /// What may be said of any channel.
    #[serde(flatten)]
    pub options: PduOptions,
}

/// `kline_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlineChannelConfig {
    /// The bus.
    pub bus_name: String,
    /// The ECU's address.
    #[serde(deserialize_with = "number")]
    pub ecu_id: u8,
    /// The key bytes that the ECU is expected to give; absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<KeywordConfig>,
    /// What may be said of any channel.
    #[serde(flatten)]
    pub options: PduOptions,
}

/// Key bytes (ISO 14230-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeywordConfig {
    /// The first.
    #[serde(deserialize_with = "number")]
    pub key_byte_1: u8,
    /// The second.
    #[serde(deserialize_with = "number")]
    pub key_byte_2: u8,
}

/// `doip_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoipChannelConfig {
    /// The bus.
    pub bus_name: String,
    /// The gateway's logical address.
    #[serde(deserialize_with = "number")]
    pub gateway_id: u16,
    /// The tester's logical address.
    #[serde(deserialize_with = "number")]
    pub tester_id: u16,
    /// The ECU's logical address, or a functional one.
    #[serde(deserialize_with = "number")]
    pub ecu_id: u16,
    /// What may be said of any channel.
    #[serde(flatten)]
    pub options: PduOptions,
}

/// `terminal15_channel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal15ChannelConfig {
    /// The bus.
    pub bus_name: String,
}
