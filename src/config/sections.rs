//! The tables of the configuration file, with their defaults.

use std::path::PathBuf;
use std::time::Duration;

use connector_hal::board::Number;
use serde::Deserialize;

use crate::config::address::{ApiUrl, NumberedPath, ResourcePath, WebsocketUrl};
use crate::config::bit_rates::KLINE_VIN_BIT_RATES;
use crate::config::duration;
use crate::config::identity::ConnectorUuid;
use crate::config::pincode::Pincode;
use crate::config::ports::IsotpStack;
use crate::config::proxy::ProxyUrl;
use crate::config::ticket_state::TicketState;
use crate::config::vin::DEFAULT_KLINE_BUDGET;
use crate::tls::KeyPin;

/// `[connector]`: the connector's identity.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectorConfig {
    /// The connector's UUID.
    pub uuid: ConnectorUuid,
    /// The pincode. A separate file is safer.
    #[serde(default)]
    pub pincode: Option<Pincode>,
    /// The file that contains the pincode.
    #[serde(default)]
    pub pincode_file: Option<PathBuf>,
    /// The directory in which the login is stored across restarts.
    #[serde(default)]
    pub state_directory: Option<PathBuf>,
    /// The kind of hardware, in the cloud's terms.
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
    /// The defaults, without pincode.
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

/// `[cloud]`: the cloud's addresses and time limits.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloudConfig {
    /// The base of the REST API.
    pub api_url: ApiUrl,
    /// The websocket's URL.
    pub websocket_url: WebsocketUrl,
    /// The CA certificates (PEM) to trust instead of those that web browsers trust.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// The public keys of which one must be in the cloud's certificate chain; empty: any.
    #[serde(default)]
    pub public_key_pins: Vec<KeyPin>,
    /// The connector's certificate with its chain (PEM), for a cloud that asks for one.
    #[serde(default)]
    pub client_certificate_file: Option<PathBuf>,
    /// The key of the connector's certificate (PEM).
    #[serde(default)]
    pub client_key_file: Option<PathBuf>,
    /// The HTTP proxy through which the cloud is reached.
    #[serde(default)]
    pub proxy: Option<ProxyUrl>,
    /// The file that contains user name and password for the proxy.
    #[serde(default)]
    pub proxy_credentials_file: Option<PathBuf>,
    /// The OAuth 2 client identifier to send when refreshing tokens.
    #[serde(default)]
    pub client_id: Option<String>,
    /// The time limit for a connection, with TLS and the websocket's upgrade.
    #[serde(default = "seconds::<15>", rename = "connect_timeout_ms", with = "duration")]
    pub connect_timeout: Duration,
    /// The time limit for the answer to a REST request.
    #[serde(default = "seconds::<30>", rename = "request_timeout_ms", with = "duration")]
    pub request_timeout: Duration,
    /// The time between two Pings on the websocket while an operator's connection is open. Three intervals
    /// without any message mean that the websocket is dead.
    #[serde(default = "seconds::<5>", rename = "ping_interval_ms", with = "duration")]
    pub ping_interval: Duration,
    /// The time between two Pings while no connection is open.
    #[serde(default = "seconds::<30>", rename = "idle_ping_interval_ms", with = "duration")]
    pub idle_ping_interval: Duration,
    /// The states of a ticket that end its connection.
    #[serde(default = "ended_ticket_states")]
    pub ended_ticket_states: Vec<TicketState>,
    /// The REST resources.
    #[serde(default)]
    pub paths: PathsConfig,
}

fn ended_ticket_states() -> Vec<TicketState> {
    ["outsourced", "closed", "completed", "cancelled"].map(TicketState::new).to_vec()
}

impl CloudConfig {
    /// The defaults.
    pub fn new(api_url: ApiUrl, websocket_url: WebsocketUrl) -> Self {
        Self {
            api_url,
            websocket_url,
            ca_file: None,
            public_key_pins: Vec::new(),
            client_certificate_file: None,
            client_key_file: None,
            proxy: None,
            proxy_credentials_file: None,
            client_id: None,
            connect_timeout: seconds::<15>(),
            request_timeout: seconds::<30>(),
            ping_interval: seconds::<5>(),
            idle_ping_interval: seconds::<30>(),
            ended_ticket_states: ended_ticket_states(),
            paths: PathsConfig::default(),
        }
    }
}

fn seconds<const N: u64>() -> Duration {
    Duration::from_secs(N)
}

/// `[cloud.paths]`: the REST resources, below the API's URL or with separate URLs.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PathsConfig {
    /// `POST`: obtains tokens with UUID and pincode.
    pub login: ResourcePath,
    /// `POST`: obtains tokens with a refresh token (OAuth 2, RFC 6749, 6).
    pub token: ResourcePath,
    /// `GET`: the cloud's record of this connector.
    pub connector: ResourcePath,
    /// `GET`: the ticket in progress on this connector.
    pub active_ticket: NumberedPath,
    /// `POST`: dismisses the call for attention.
    pub dismiss_call_for_attention: ResourcePath,
}

impl Default for PathsConfig {
    fn default() -> Self {
        Self {
            login: ResourcePath::known("/v2/authenticate/pincode"),
            token: ResourcePath::known("/oauth2/token"),
            connector: ResourcePath::known("/v2/connectors/{uuid}"),
            active_ticket: NumberedPath::known("/v1/connectors/{id}/active-ticket"),
            dismiss_call_for_attention: ResourcePath::known(
                "/v2/connectors/{uuid}/actions/dismiss-call-for-attention",
            ),
        }
    }
}

/// The kind of a bus.
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
pub struct ConfiguredBus {
    /// The kind of bus.
    pub kind: BusKind,
    /// The name of the bus in logs, on the command line, and in the rules and speed signals of the policy.
    #[serde(default)]
    pub name: Option<String>,
    /// The pins of the OBD connector (ISO 15031-3): for CAN high and low, for a K-line its one pin.
    pub pins: Vec<u8>,
    /// The device: for CAN `can0` or `slcan:/dev/ttyACM0`, for a K-line `/dev/ttyUSB0`, for DoIP a network
    /// interface or a gateway's address.
    pub device: String,
    /// Whether the adapter supports CAN FD.
    #[serde(default)]
    pub fd: bool,
    /// The implementation of ISO-TP.
    #[serde(default)]
    pub isotp: IsotpStack,
    /// The bit rates to try when reading the VIN, the likeliest first, in bit/s. [`ConfiguredBus::bit_rates`]
    /// has the defaults.
    #[serde(default)]
    pub bit_rates: Option<Vec<u32>>,
}

impl ConfiguredBus {
    /// A CAN bus at the pins of ISO 15765-4, with the defaults.
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

    /// The bit rates to try when reading the VIN, the likeliest first, in bit/s. The default is 500 and 250
    /// kbit/s for CAN, and all bit rates for a K-line, beginning with OBD's.
    pub(crate) fn bit_rates(&self) -> &[u32] {
        match (&self.bit_rates, self.kind) {
            (Some(bit_rates), _) => bit_rates,
            (None, BusKind::Kline) => &KLINE_VIN_BIT_RATES,
            (None, _) => &[500_000, 250_000],
        }
    }
}

/// `[vin]`: how the VIN is read.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct VinConfig {
    /// How long one reading may take in total.
    #[serde(rename = "budget_ms", with = "duration")]
    pub budget: Duration,
    /// How long to listen for a first frame at each bit rate.
    #[serde(rename = "listen_ms", with = "duration")]
    pub listen_time: Duration,
    /// How long a reading on a K-line may take, if there is no VIN on CAN.
    #[serde(rename = "kline_budget_ms", with = "duration")]
    pub kline_budget: Duration,
    /// The data bit rate for adapters that support CAN FD, in bit/s.
    pub data_bit_rate: u32,
}

impl Default for VinConfig {
    fn default() -> Self {
        Self {
            budget: Duration::from_millis(1500),
            listen_time: Duration::from_millis(100),
            kline_budget: DEFAULT_KLINE_BUDGET,
            data_bit_rate: 2_000_000,
        }
    }
}

/// `[relay]`: the limits of a connection.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RelayConfig {
    /// The longest PDU accepted in either direction, in bytes.
    pub max_pdu: usize,
    /// How long a connection is held while its link is down, by default, in seconds.
    pub hold_seconds: u64,
    /// How long nothing may be heard of the operator while something waits for an acknowledgement.
    #[serde(rename = "operator_silence_ms", with = "duration")]
    pub operator_silence: Duration,
    /// How long nothing may be heard of the operator otherwise.
    #[serde(rename = "operator_idle_ms", with = "duration")]
    pub operator_idle: Duration,
}

impl Default for RelayConfig {
    fn default() -> Self {
        Self {
            max_pdu: 1 << 20,
            hold_seconds: 30,
            operator_silence: seconds::<120>(),
            operator_idle: seconds::<900>(),
        }
    }
}

/// `[power]`: terminal 15, and when to sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PowerConfig {
    /// The OBD pin under which operators address terminal 15.
    pub terminal15_pin: u8,
    /// How long a change of the ignition must last before it counts.
    #[serde(rename = "ignition_debounce_ms", with = "duration")]
    pub ignition_debounce: Duration,
    /// How long TesterPresent is still sent in a connection after the ignition was switched off.
    #[serde(rename = "keep_alive_after_ignition_off_ms", with = "duration")]
    pub keep_alive_after_ignition_off: Duration,
    /// How long TesterPresent is still sent after the operator's last PDU or frame.
    #[serde(rename = "keep_alive_after_last_request_ms", with = "duration")]
    pub keep_alive_after_last_request: Duration,
    /// The supply voltage below which TesterPresent stops where the ignition cannot be read, in volts.
    #[serde(rename = "keep_alive_above_volts")]
    pub keep_alive_above: Number,
    /// How long the voltage must have been too low for TesterPresent to stop.
    #[serde(rename = "keep_alive_after_low_voltage_ms", with = "duration")]
    pub keep_alive_after_low_voltage: Duration,
    /// The supply voltage below which the agent sleeps, in volts. By default it never sleeps.
    #[serde(rename = "sleep_below_volts")]
    pub sleep_below: Option<Number>,
    /// The supply voltage from which the agent wakes, in volts; by default 0.5 V above `sleep_below_volts`.
    #[serde(rename = "wake_above_volts")]
    pub wake_above: Option<Number>,
    /// How long the voltage must have been too low, with the ignition off and no PDU relayed.
    #[serde(rename = "sleep_after_ms", with = "duration")]
    pub sleep_after: Duration,
}

impl Default for PowerConfig {
    fn default() -> Self {
        Self {
            terminal15_pin: 1,
            ignition_debounce: Duration::from_millis(50),
            keep_alive_after_ignition_off: seconds::<300>(),
            keep_alive_after_last_request: seconds::<600>(),
            keep_alive_above: Number::from_thousandths(12_200),
            keep_alive_after_low_voltage: seconds::<60>(),
            sleep_below: None,
            wake_above: None,
            sleep_after: seconds::<60>(),
        }
    }
}

impl PowerConfig {
    /// The default of `wake_above_volts` is this much above `sleep_below_volts`, in volts. The value is a
    /// compromise: a battery recovers a little as soon as the agent sleeps, which must not wake the agent,
    /// and a charger must wake the agent although the voltage rises slowly.
    const HYSTERESIS: f64 = 0.5;

    /// The supply voltage from which a sleeping agent wakes, in volts.
    pub(crate) fn wake_above(&self) -> Option<f64> {
        let configured = self.wake_above.map(Number::get);
        configured.or_else(|| self.sleep_below.map(|limit| limit.get() + Self::HYSTERESIS))
    }
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// `[log]`: logging.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LogConfig {
    /// A level, or directives such as `info,connector_agent::relay=debug`.
    pub level: String,
    /// The format of log lines.
    pub format: LogFormat,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { level: "info".to_owned(), format: LogFormat::Text }
    }
}
