//! The tables of the configuration file, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use connector_hal::board::Number;
use serde::Deserialize;

use crate::config::IsotpStack;

use super::{ApiUrl, ConnectorUuid, Pincode, ResourcePath, WebsocketUrl, duration};

/// `[connector]`: who this connector is.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorConfig {
    /// The connector's UUID.
    pub uuid: ConnectorUuid,
    /// The pincode, for want of a better place.
    #[serde(default)]
    pub pincode: Option<Pincode>,
    /// The file that contains the pincode.
    #[serde(default)]
    pub pincode_file: Option<PathBuf>,
    /// Where the login is kept across restarts.
    #[serde(default)]
    pub state_directory: Option<PathBuf>,
    /// The kind of hardware, as the cloud knows it.
    #[serde(default = "classic")]
    pub hardware_type: String,
    /// The hardware's version.
    #[serde(default)]
    pub hardware_version: u32,
    /// The version of the software on the device as a whole.
    #[serde(default)]
    pub software_version: u32,
}

impl ConnectorConfig {
    /// All defaults, and no pincode.
    pub fn new(uuid: ConnectorUuid) -> Self {
        Self {
            uuid,
            pincode: None,
            pincode_file: None,
            state_directory: None,
            hardware_type: classic(),
            hardware_version: 0,
            software_version: 0,
        }
    }
}

fn classic() -> String {
    "classic".to_owned()
}

/// `[cloud]`: where the cloud is and how long to wait for it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudConfig {
    /// The base of the REST API.
    pub api_url: ApiUrl,
    /// The websocket.
    pub websocket_url: WebsocketUrl,
    /// The certificates (PEM) that are trusted instead of the web's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The OAuth 2 client identifier sent along when refreshing tokens.
    #[serde(default)]
    pub client_id: Option<String>,
    /// For a connection to be made, TLS and the websocket's upgrade included.
    #[serde(default = "seconds::<15>", rename = "connect_timeout_ms", with = "duration")]
    pub connect_timeout: Duration,
    /// For a REST request to be answered.
    #[serde(default = "seconds::<30>", rename = "request_timeout_ms", with = "duration")]
    pub request_timeout: Duration,
    /// Between two Pings on the websocket.
    #[serde(default = "seconds::<5>", rename = "ping_interval_ms", with = "duration")]
    pub ping_interval: Duration,
    /// Without anything received, after which the websocket is dead.
    #[serde(default = "seconds::<15>", rename = "dead_after_ms", with = "duration")]
    pub dead_after: Duration,
    /// The REST resources.
    #[serde(default)]
    pub paths: PathsConfig,
}

impl CloudConfig {
    /// All defaults.
    pub fn new(api_url: ApiUrl, websocket_url: WebsocketUrl) -> Self {
        Self {
            api_url,
            websocket_url,
            ca_file: None,
            client_id: None,
            connect_timeout: seconds::<15>(),
            request_timeout: seconds::<30>(),
            ping_interval: seconds::<5>(),
            dead_after: seconds::<15>(),
            paths: PathsConfig::default(),
        }
    }
}

fn seconds<const N: u64>() -> Duration {
    Duration::from_secs(N)
}

/// `[cloud.paths]`: the REST resources, below the API's URL or with an URL of their own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathsConfig {
    /// `POST`: tokens for UUID and pincode.
    pub login: ResourcePath,
    /// `POST`: tokens for a refresh token (OAuth 2, RFC 6749, 6).
    pub token: ResourcePath,
    /// `GET`: what the cloud knows of this connector.
    pub connector: ResourcePath,
    /// `GET`: the ticket in progress on this connector.
    pub active_ticket: ResourcePath,
    /// `POST`: the call for attention is over.
    pub dismiss_call_for_attention: ResourcePath,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self {
            login: ResourcePath::known("/v2/authenticate/pincode"),
            token: ResourcePath::known("/oauth2/token"),
            connector: ResourcePath::known("/v1/connectors/uuid/{uuid}"),
            active_ticket: ResourcePath::known("/v1/connectors/uuid/{uuid}/active-ticket"),
            dismiss_call_for_attention: ResourcePath::known(
                "/v1/connectors/uuid/{uuid}/dismiss-call-for-attention",
            ),
        }
    }
}

/// What kind of bus it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum BusKind {
    /// CAN, classic or FD.
    Can,
    /// A K-line (ISO 14230).
    Kline,
    /// Diagnostics over IP.
    Doip,
}

/// `[[bus]]`: a bus behind pins of the OBD connector.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BusConfig {
    /// What kind of bus it is.
    pub kind: BusKind,
    /// What people call it; for logs.
    #[serde(default)]
    pub name: Option<String>,
    /// The pins of the OBD connector (ISO 15031-3), for CAN: high, low; for a K-line: its one.
    pub pins: Vec<u8>,
    /// The device, as `connector_hal` names it: `can0`, `slcan:/dev/ttyACM0`; a K-line's: `/dev/ttyUSB0`; for DoIP a
    /// network interface, or a gateway's address.
    pub device: String,
    /// Whether the adapter can do CAN FD.
    #[serde(default)]
    pub fd: bool,
    /// Who speaks ISO-TP.
    #[serde(default)]
    pub isotp: IsotpStack,
    /// The bit rates to try when looking for the VIN, the likeliest first, in bit/s; absent: as
    /// [`BusConfig::bit_rates`] says.
    #[serde(default)]
    pub bit_rates: Option<Vec<u32>>,
}

impl BusConfig {
    /// A CAN bus at the pins of ISO 15765-4, all defaults.
    pub fn can(device: impl Into<String>) -> Self {
        Self {
            kind: BusKind::Can,
            name: None,
            pins: vec![6, 14],
            device: device.into(),
            fd: false,
            isotp: IsotpStack::default(),
            bit_rates: None,
        }
    }

    /// The bit rates to try when looking for the VIN, the likeliest first, in bit/s; default for CAN 500 and 250 kbit/s,
    /// for a K-line all that it may have, that of OBD first.
    pub fn bit_rates(&self) -> &[u32] {
        match (&self.bit_rates, self.kind) {
            (Some(bit_rates), _) => bit_rates,
            (None, BusKind::Kline) => &super::KLINE_VIN_BIT_RATES,
            (None, _) => &[500_000, 250_000],
        }
    }
}

/// `[vin]`: how the VIN is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VinConfig {
    /// How long reading it may take in all.
    #[serde(rename = "budget_ms", with = "duration")]
    pub budget: Duration,
    /// How long to listen at each bit rate for a first frame.
    #[serde(rename = "listen_ms", with = "duration")]
    pub listen_time: Duration,
    /// How long reading it on a K-line may take, where CAN told none.
    #[serde(rename = "kline_budget_ms", with = "duration")]
    pub kline_budget: Duration,
    /// The data bit rate set on adapters that can do CAN FD, in bit/s.
    pub data_bit_rate: u32,
}

impl Default for VinConfig {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(1500),
            listen_time: Duration::from_millis(100),
            kline_budget: super::DEFAULT_KLINE_BUDGET,
            data_bit_rate: 2_000_000,
        }
    }
}

/// `[relay]`: the bounds of a diagnostic session.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// The longest PDU accepted in either direction, in bytes.
    pub max_pdu: usize,
    /// How long a connection outlives its link where the cloud does not say, in seconds.
    pub hold_seconds: u64,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self { max_pdu: 1 << 20, hold_seconds: 30 }
    }
}

/// `[power]`: terminal 15, and when to spare the battery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerConfig {
    /// The OBD pin that operators know terminal 15 by.
    pub terminal15_pin: u8,
    /// How long the ignition must have settled before a change counts.
    #[serde(rename = "ignition_debounce_ms", with = "duration")]
    pub ignition_debounce: Duration,
    /// How long after the ignition was switched off TesterPresent is still sent in a session.
    #[serde(rename = "keep_alive_after_ignition_off_ms", with = "duration")]
    pub keep_alive_after_ignition_off: Duration,
    /// The supply voltage below which the agent sleeps, in volts; absent: never.
    #[serde(rename = "sleep_below_volts")]
    pub sleep_below: Option<Number>,
    /// The supply voltage from which it wakes, in volts; absent: 0.5 V more than it sleeps below.
    #[serde(rename = "wake_above_volts")]
    pub wake_above: Option<Number>,
    /// How long the voltage must have been too low, with the ignition off and nothing relayed.
    #[serde(rename = "sleep_after_ms", with = "duration")]
    pub sleep_after: Duration,
}

impl Default for PowerConfig {
    fn default() -> Self {
        Self {
            terminal15_pin: 1,
            ignition_debounce: Duration::from_millis(50),
            keep_alive_after_ignition_off: seconds::<300>(),
            sleep_below: None,
            wake_above: None,
            sleep_after: seconds::<60>(),
        }
    }
}

impl PowerConfig {
    /// How much more than it sleeps below wakes the agent, unless told, in volts.
    const HYSTERESIS: f64 = 0.5;

    /// The supply voltage from which a sleeping agent wakes, in volts.
    pub fn wake_above(&self) -> Option<f64> {
        let told = self.wake_above.map(Number::get);
        told.or_else(|| self.sleep_below.map(|limit| limit.get() + Self::HYSTERESIS))
    }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// `[log]`: what is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or directives such as `info,connector_agent::relay=debug`.
    pub level: String,
    /// How log lines look.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}
