//! The configuration of channels in `openChannel`.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::relay::wire::number::{number, optional_number};

/// Reads a value. A null stands for the default, as an absent value does.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The content of `openChannel`: a number, and one kind of channel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct OpenChannel {
    /// The UUID of the connection.
    pub connection_uuid: Uuid,
    /// The number of the channel, 1…65535, which the operator chooses.
    #[serde(deserialize_with = "number")]
    pub channel: u16,
    /// A channel of frames.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raw_channel: Option<RawChannelConfig>,
    /// A channel of PDUs over ISO-TP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isotp_channel: Option<IsotpChannelConfig>,
    /// A channel of PDUs over TP2.0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tp20_channel: Option<Tp20ChannelConfig>,
    /// A channel of PDUs on a K-line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kline_channel: Option<KlineChannelConfig>,
    /// A channel of PDUs over DoIP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doip_channel: Option<DoipChannelConfig>,
    /// A channel that reports the state of the ignition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub terminal15_channel: Option<Terminal15ChannelConfig>,
    /// The greatest age at which a record may still be sent to the vehicle, in ms: by default 500 for raw
    /// channels and 30000 for others, at most 5000 and 300000.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// The fields that this agent does not know.
    #[serde(flatten)]
    pub other: serde_json::Map<String, Value>,
}

/// The configuration of a channel of frames, `raw_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RawChannelConfig {
    /// The name of the bus.
    pub bus_name: String,
    /// The identifier that the channel may send. If absent, the channel sends nothing.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub request_id: Option<u32>,
    /// The identifier that the channel receives. If absent, the channel receives every frame.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub response_id: Option<u32>,
    /// The greatest age of a frame in ms, if it is set here instead of in `openChannel`.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
}

/// The configuration of a channel over ISO-TP, `isotp_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct IsotpChannelConfig {
    /// The name of the bus.
    pub bus_name: String,
    /// The identifier of requests.
    #[serde(deserialize_with = "number")]
    pub request_id: u32,
    /// The identifier of responses. If absent, the channel is functional.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub response_id: Option<u32>,
    /// The ECUs that answer a functional request, besides those of the OBD range of 0x7DF and 0x18DB33F1.
    #[serde(default, deserialize_with = "or_default", skip_serializing_if = "Vec::is_empty")]
    pub response_ids: Vec<ResponderConfig>,
    /// The first data byte of frames to the ECU.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub extended_request_address: Option<u8>,
    /// The first data byte of frames from the ECU.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub extended_response_address: Option<u8>,
    /// Whether frames are padded.
    #[serde(default, deserialize_with = "or_default")]
    pub padding: PaddingConfig,
    /// The padding byte; 0xCC by default.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub padding_byte: Option<u8>,
    /// Whether the connector sends TesterPresent.
    #[serde(default, deserialize_with = "or_default")]
    pub keep_alive: Switch,
    /// The block size that the connector requests from the ECU.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub block_size: Option<u8>,
    /// The separation time that the connector requests from the ECU, as ISO-TP encodes it.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub st_min: Option<u8>,
    /// The format of the frames to the ECU: by default FD on a bus with a data bit rate, otherwise classic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frame_format: Option<FrameFormat>,
    /// TX_DL, the longest data field of frames to the ECU, in bytes (ISO 15765-2): for FD frames 8, 12, 16, 20, 24, 32,
    /// 48, or 64 by default; for classic frames 8.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub tx_dl: Option<u8>,
    /// The greatest age of a PDU in ms, if it is set here instead of in `openChannel`.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// The time that a chained PDU waits for the response to the PDU before it (P2), in ms; 1000 by default.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub p2_ms: Option<u32>,
    /// The time that a chained PDU waits after response pending (P2*), in ms; 5500 by default, at least 5000.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub p2_star_ms: Option<u32>,
}

impl IsotpChannelConfig {
    /// The options that every channel of PDUs has.
    pub fn options(&self) -> PduOptions {
        PduOptions {
            keep_alive: self.keep_alive,
            max_age_ms: self.max_age_ms,
            p2_ms: self.p2_ms,
            p2_star_ms: self.p2_star_ms,
        }
    }
}

/// An ECU that answers a functional request, an entry of `response_ids`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "each entry of response_ids is the identifier of an ECU's responses, or an object with response_id and \
                 request_id"
)]
pub enum ResponderConfig {
    /// The identifier of the ECU's responses. Its segmented responses are received only if the request identifier
    /// is known: by a standard, or by an open channel with this `response_id`.
    Id(#[serde(deserialize_with = "number")] u32),
    /// Both identifiers of the ECU.
    Pair(ResponderPair),
}

/// Both identifiers of an ECU that answers a functional request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponderPair {
    /// The identifier of the ECU's responses.
    #[serde(deserialize_with = "number")]
    pub response_id: u32,
    /// The identifier of requests to this ECU alone, with which flow control is sent.
    #[serde(deserialize_with = "number")]
    pub request_id: u32,
    /// The first data byte of frames to this ECU alone.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub extended_request_address: Option<u8>,
    /// The first data byte of frames from this ECU; by default that of the channel.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub extended_response_address: Option<u8>,
}

/// Whether frames are padded to their full length. Frames of the ECU are received with and without padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PaddingConfig {
    /// All frames are padded.
    #[default]
    Enabled,
    /// The frames to the ECU are padded; its own need not be.
    TowardEcu,
    /// The ECU pads its frames; those to the ECU are not padded.
    FromEcu,
    /// No frame is padded.
    Disabled,
    /// Frames are padded if the ECU pads its frames.
    Detection,
}

/// The format of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FrameFormat {
    /// Classic frames, of at most 8 bytes.
    Classic,
    /// FD frames, of at most 64 bytes.
    Fd,
}

/// Whether an option is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Switch {
    /// The option is on.
    Enabled,
    /// The option is off.
    #[default]
    Disabled,
}

/// The options of a channel of PDUs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PduOptions {
    /// Whether the connector sends TesterPresent.
    #[serde(default, deserialize_with = "or_default")]
    pub keep_alive: Switch,
    /// The greatest age of a PDU in ms, if it is set here instead of in `openChannel`.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// The time that a chained PDU waits for the response to the PDU before it (P2), in ms; 1000 by default.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub p2_ms: Option<u32>,
    /// The time that a chained PDU waits after response pending (P2*), in ms; 5500 by default, at least 5000.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub p2_star_ms: Option<u32>,
}

/// The configuration of a channel over TP2.0, `tp20_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Tp20ChannelConfig {
    /// The name of the bus.
    pub bus_name: String,
    /// The logical address of the ECU.
    #[serde(deserialize_with = "number")]
    pub logical_address: u8,
    /// The options that every channel of PDUs has.
    #[serde(flatten)]
    pub options: PduOptions,
}

/// The configuration of a channel on a K-line, `kline_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KlineChannelConfig {
    /// The name of the bus.
    pub bus_name: String,
    /// The address of the ECU.
    #[serde(deserialize_with = "number")]
    pub ecu_id: u8,
    /// The key bytes that the ECU must send. If absent, all key bytes are accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyword: Option<KeywordConfig>,
    /// The options that every channel of PDUs has.
    #[serde(flatten)]
    pub options: PduOptions,
}

/// The key bytes of an ECU (ISO 14230-2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeywordConfig {
    /// The first key byte.
    #[serde(deserialize_with = "number")]
    pub key_byte_1: u8,
    /// The second key byte.
    #[serde(deserialize_with = "number")]
    pub key_byte_2: u8,
}

/// The configuration of a channel over DoIP, `doip_channel`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DoipChannelConfig {
    /// The name of the bus.
    pub bus_name: String,
    /// The logical address of the gateway.
    #[serde(deserialize_with = "number")]
    pub gateway_id: u16,
    /// The logical address of the tester.
    #[serde(deserialize_with = "number")]
    pub tester_id: u16,
    /// The logical address of the ECU, or a functional address.
    #[serde(deserialize_with = "number")]
    pub ecu_id: u16,
    /// The options that every channel of PDUs has.
    #[serde(flatten)]
    pub options: PduOptions,
}

/// The configuration of a channel that reports the ignition, `terminal15_channel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terminal15ChannelConfig {
    /// The name of the bus.
    pub bus_name: String,
}
