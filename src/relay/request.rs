//! What is asked of a connector, as text messages (relay protocol, section 3).

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::number::{number, numbers, optional_number};
use super::{Envelope, Problem};

/// The bit rates that a CAN bus may be set to, in bit/s.
pub const CAN_BIT_RATES: [u32; 12] =
    [1_000_000, 500_000, 250_000, 125_000, 100_000, 94_000, 83_300, 50_000, 33_300, 20_000, 10_000, 5_000];

/// A request to the connector.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// Opens a connection for an operator.
    OpenConnection(OpenConnection),
    /// Replaces all buses of the connection.
    ConfigureBuses(ConfigureBuses),
    /// Opens a channel on one of them.
    OpenChannel(OpenChannel),
    /// Closes a channel.
    CloseChannel(CloseChannel),
    /// Goes on after a lost link.
    ResumeConnection(ResumeConnection),
    /// Ends the connection.
    CloseConnection(CloseConnection),
    /// Reads the VIN again.
    IdentifyVehicle,
    /// Looks for ECUs on a bus.
    ScanEcus(ScanEcus),
    /// Ends the call for attention.
    DismissCallForAttention,
}

/// `openConnection`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OpenConnection {
    /// The connection's name.
    pub connection_uuid: Uuid,
    /// The ticket it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ticket_id: Option<Value>,
    /// The vehicle it is meant for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vin: Option<String>,
    /// How long a lost link is waited for, in seconds: 30 unless told, at most 300.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub hold_seconds: Option<u64>,
}

/// `configureBuses`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConfigureBuses {
    /// The connection.
    pub connection_uuid: Uuid,
    /// All its buses.
    pub buses: Vec<BusConfig>,
}

/// A bus to configure: a name, and one kind of bus.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BusConfig {
    /// What channels and status call it.
    pub bus_name: String,
    /// A CAN bus.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub can_bus: Option<CanBusConfig>,
    /// The kinds that this agent does not serve, and what it does not know.
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

/// Reads a value that may be null, which is then the default one, as if it were absent.
fn or_default<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// `openChannel`: a number, and one kind of channel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// How old a record may be that goes to the vehicle, in ms: 500 for raw channels and 30000 for others unless told.
    #[serde(default, deserialize_with = "optional_number", skip_serializing_if = "Option::is_none")]
    pub max_age_ms: Option<u32>,
    /// The kinds that this agent does not serve, and what it does not know.
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

/// `closeChannel`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseChannel {
    /// The connection.
    pub connection_uuid: Uuid,
    /// The channel.
    #[serde(deserialize_with = "number")]
    pub channel: u16,
}

/// `resumeConnection`, and the answer `connectionResumed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResumeConnection {
    /// The connection.
    pub connection_uuid: Uuid,
    /// The highest number that the sender of this has received in order.
    #[serde(deserialize_with = "number")]
    pub received: u32,
}

/// `closeConnection`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseConnection {
    /// The connection.
    pub connection_uuid: Uuid,
}

/// `scanEcus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScanEcus {
    /// The connection.
    pub connection_uuid: Uuid,
    /// The bus.
    pub bus_name: String,
}

impl Request {
    /// Reads a request; what is wrong with it comes back as the problem to answer with.
    pub fn parse(envelope: &Envelope) -> Result<Self, Problem> {
        let action = envelope.action.as_str();
        let request = match action {
            "openConnection" => message(envelope).map(Self::OpenConnection),
            "configureBuses" => message(envelope).map(Self::ConfigureBuses),
            "openChannel" => message(envelope).map(Self::OpenChannel),
            "closeChannel" => message(envelope).map(Self::CloseChannel),
            "resumeConnection" => message(envelope).map(Self::ResumeConnection),
            "closeConnection" => message(envelope).map(Self::CloseConnection),
            "identifyVehicle" => Ok(Self::IdentifyVehicle),
            "scanEcus" => message(envelope).map(Self::ScanEcus),
            "dismissCallForAttention" => Ok(Self::DismissCallForAttention),
            _ => {
                let detail = format!("This connector knows no action {action:?}.");
                Err(Problem::new(404, "unknown-action", "Unknown action", detail))
            }
        };
        request.map_err(|problem| problem.answering(action))
    }
}

fn message<T: for<'de> Deserialize<'de>>(envelope: &Envelope) -> Result<T, Problem> {
    T::deserialize(&envelope.message).map_err(|error| {
        Problem::new(400, "invalid-message", "Invalid message", format!("{}: {error}", envelope.action))
    })
}
