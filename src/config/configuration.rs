//! The whole configuration, and the settings that the other parts of the agent take from it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use connector_hal::board::BoardConfig;
use serde::Deserialize;

use crate::config::address::{ApiUrl, WebsocketUrl};
use crate::config::doip::DoipConfig;
use crate::config::identity::ConnectorUuid;
use crate::config::pincode::{ChangeTime, Pincode, PincodeError};
use crate::config::ports::{CanPort, DoipPort, KlinePort};
use crate::config::proxy::{Proxy, ProxyCredentials, ProxyCredentialsError};
use crate::config::secrets;
use crate::config::sections::{
    BusKind, CloudConfig, ConfiguredBus, ConnectorConfig, LogConfig, PowerConfig, RelayConfig, VinConfig,
};
use crate::config::vin::VinSettings;
use crate::policy::PolicySettings;

/// The path of the configuration file, by default.
pub(crate) const DEFAULT_PATH: &str = "/etc/connector-agent.toml";

/// The whole configuration. [`Config::load`] refuses contradictions.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The connector's identity.
    pub connector: ConnectorConfig,
    /// The cloud's addresses and time limits.
    pub cloud: CloudConfig,
    /// The buses behind the OBD connector's pins.
    #[serde(default, rename = "bus")]
    pub buses: Vec<ConfiguredBus>,
    /// How the VIN is read.
    #[serde(default)]
    pub vin: VinConfig,
    /// The limits of a connection.
    #[serde(default)]
    pub relay: RelayConfig,
    /// Terminal 15, and when to sleep.
    #[serde(default)]
    pub power: PowerConfig,
    /// Diagnostics over IP.
    #[serde(default)]
    pub doip: DoipConfig,
    /// The files and lines of the system that make up the board.
    #[serde(default)]
    pub board: BoardConfig,
    /// What may be sent to the vehicle, and when.
    #[serde(default)]
    pub policy: PolicySettings,
    /// Logging.
    #[serde(default)]
    pub log: LogConfig,
    /// The file that the configuration is from.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

impl Config {
    /// The defaults, without buses and pincode.
    pub fn new(uuid: ConnectorUuid, api_url: ApiUrl, websocket_url: WebsocketUrl) -> Self {
        Self {
            connector: ConnectorConfig::new(uuid),
            cloud: CloudConfig::new(api_url, websocket_url),
            buses: Vec::new(),
            vin: VinConfig::default(),
            relay: RelayConfig::default(),
            power: PowerConfig::default(),
            doip: DoipConfig::default(),
            board: BoardConfig::default(),
            policy: PolicySettings::default(),
            log: LogConfig::default(),
            path: None,
        }
    }

    /// How the VIN is read: with the bit rates of all CAN buses, those of the first bus first.
    pub(crate) fn vin_settings(&self) -> VinSettings {
        let mut bit_rates: Vec<u32> = Vec::new();
        for rate in
            self.buses.iter().filter(|bus| bus.kind == BusKind::Can).flat_map(ConfiguredBus::bit_rates)
        {
            if !bit_rates.contains(rate) {
                bit_rates.push(*rate);
            }
        }
        let VinConfig { budget, listen_time, kline_budget, data_bit_rate } = self.vin;
        VinSettings {
            budget,
            bit_rates,
            kline_budget,
            data_bit_rate: Some(data_bit_rate),
            listen_time,
            ..VinSettings::default()
        }
    }

    /// The K-lines behind the OBD connector's pins.
    pub fn kline_ports(&self) -> Vec<KlinePort> {
        let port = |bus: &ConfiguredBus| match (bus.kind, bus.pins.as_slice()) {
            (BusKind::Kline, &[pin]) => {
                let (device, bit_rates) = (bus.device.clone(), bus.bit_rates().to_vec());
                Some(KlinePort { name: bus.name.clone(), pin, device, bit_rates })
            }
            _ => None,
        };
        self.buses.iter().filter_map(port).collect()
    }

    /// The CAN buses behind the OBD connector's pins.
    pub fn can_ports(&self) -> Vec<CanPort> {
        let port = |bus: &ConfiguredBus| match (bus.kind, bus.pins.as_slice()) {
            (BusKind::Can, &[plus, minus]) => {
                let (device, fd, isotp) = (bus.device.clone(), bus.fd, bus.isotp);
                Some(CanPort { name: bus.name.clone(), pins: [plus, minus], device, fd, isotp })
            }
            _ => None,
        };
        self.buses.iter().filter_map(port).collect()
    }

    /// The DoIP networks behind the OBD connector's pins, except those with an invalid device name.
    pub fn doip_ports(&self) -> Vec<DoipPort> {
        let port = |bus: &ConfiguredBus| match (bus.kind, bus.pins.as_slice()) {
            (BusKind::Doip, &[plus, minus]) => Some(DoipPort {
                name: bus.name.clone(),
                pins: [plus, minus],
                device: bus.device.parse().ok()?,
            }),
            _ => None,
        };
        self.buses.iter().filter_map(port).collect()
    }

    /// The OBD pin of terminal 15, if the board can sense the ignition.
    pub(crate) fn terminal15_pin(&self) -> Option<u8> {
        self.board.ignition.as_ref().map(|_| self.power.terminal15_pin)
    }

    /// The pincode, from the first source that has one: the environment variable `CONNECTOR_PINCODE`,
    /// systemd's credential `connector-pincode`, the pincode file, the configuration.
    pub fn pincode(&self) -> Result<Pincode, PincodeError> {
        let pincode = Pincode::find(&self.connector, |name| std::env::var_os(name))?;
        secrets::remember_pincode(pincode.expose());
        Ok(pincode)
    }

    /// When the source of the pincode was last changed; `None` if that cannot be seen.
    pub(crate) fn pincode_changed_at(&self) -> Option<ChangeTime> {
        Pincode::source_changed_at(&self.connector, self.path.as_deref(), |name| std::env::var_os(name))
    }

    /// The proxy through which the cloud is reached, with its credentials.
    pub fn proxy(&self) -> Result<Option<Proxy>, ProxyCredentialsError> {
        let Some(url) = self.cloud.proxy.clone() else { return Ok(None) };
        let file = self.cloud.proxy_credentials_file.as_deref();
        Ok(Some(Proxy { url, credentials: file.map(ProxyCredentials::from_file).transpose()? }))
    }

    /// Sets the state directory to systemd's (the first in `$STATE_DIRECTORY`) if the file names none.
    pub fn resolve_state_directory(&mut self, variable: impl Fn(&str) -> Option<OsString>) {
        if self.connector.state_directory.is_none() {
            let directories = variable("STATE_DIRECTORY").unwrap_or_default();
            let first = directories.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
            let first = Path::new(OsStr::from_bytes(first));
            self.connector.state_directory = first.is_absolute().then(|| first.to_owned());
        }
    }

    /// Makes relative file names relative to the configuration's directory.
    pub(super) fn resolve_relative_to(&mut self, directory: &Path) {
        let tls = &mut self.doip.tls;
        let files = [
            &mut self.connector.pincode_file,
            &mut self.connector.state_directory,
            &mut self.cloud.ca_file,
            &mut self.cloud.proxy_credentials_file,
            &mut self.cloud.client_certificate_file,
            &mut self.cloud.client_key_file,
            &mut tls.ca_file,
            &mut tls.certificate_file,
            &mut tls.key_file,
        ];
        for file in files.into_iter().flatten() {
            *file = directory.join(&*file);
        }
    }
}
