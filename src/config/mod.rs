//! The configuration: one TOML file, whose every key and default is in `docs/connector-agent.example.toml`.

mod address;
mod bit_rates;
mod check;
pub mod doip;
pub mod doip_device;
pub(crate) mod duration;
mod identity;
mod parse;
mod pincode;
mod ports;
mod problem;
mod sections;
mod vin;

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use connector_hal::board::BoardConfig;
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use crate::config::doip::DoipConfig;

pub use address::{AddressError, ApiUrl, ResourcePath, WebsocketUrl};
pub use bit_rates::{CAN_BIT_RATES, KLINE_BIT_RATES, KLINE_VIN_BIT_RATES};
pub use identity::{ConnectorUuid, ConnectorUuidError};
pub use pincode::{PINCODE_CREDENTIAL, PINCODE_VARIABLE, Pincode, PincodeError};
pub use ports::{CanPort, DoipPort, IsotpStack, KlinePort};
pub use problem::{ConfigError, Problem, Severity};
pub use sections::{
    BusConfig, BusKind, CloudConfig, ConnectorConfig, LogConfig, LogFormat, PathsConfig, PowerConfig,
    RelayConfig, VinConfig,
};
pub use vin::{DEFAULT_KLINE_BUDGET, VinSettings};

/// Where the configuration is when nobody says otherwise.
pub const DEFAULT_PATH: &str = "/etc/connector-agent.toml";

/// The whole configuration, free of contradictions.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this connector is.
    pub connector: ConnectorConfig,
    /// Where the cloud is.
    pub cloud: CloudConfig,
    /// The buses behind the OBD connector's pins.
    #[serde(default, rename = "bus")]
    pub buses: Vec<BusConfig>,
    /// How the VIN is read.
    #[serde(default)]
    pub vin: VinConfig,
    /// The bounds of a diagnostic session.
    #[serde(default)]
    pub relay: RelayConfig,
    /// Terminal 15, and when to spare the battery.
    #[serde(default)]
    pub power: PowerConfig,
    /// Diagnostics over IP.
    #[serde(default)]
    pub doip: DoipConfig,
    /// Which files and lines of the system make up the board.
    #[serde(default)]
    pub board: BoardConfig,
    /// What is logged.
    #[serde(default)]
    pub log: LogConfig,
    /// The file that it is from.
    #[serde(skip)]
    pub path: Option<PathBuf>,
}

impl Config {
    /// All defaults, no bus and no pincode.
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
            log: LogConfig::default(),
            path: None,
        }
    }

    /// The configuration in this file; the error names everything that is wrong in it.
    ///
    /// What the file refers to is not looked at: see [`Config::check`] and [`Config::pincode`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read { path: path.to_owned(), source };
        Self::parse(&Zeroizing::new(std::fs::read_to_string(path).map_err(read)?), path)
    }

    /// The same from the text of a file that is at `path`.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        match understand(text, path) {
            (Some(config), problems) if problems.iter().all(Problem::is_warning) => Ok(config),
            (_, problems) => Err(ConfigError::Invalid(problems)),
        }
    }

    /// Everything wrong with the file and with what it refers to: pincode, certificates, devices, board.
    pub fn check_file(path: &Path) -> Vec<Problem> {
        match read(path) {
            Ok((config, mut problems)) => {
                problems.extend(config.iter().flat_map(check::surroundings));
                problems
            }
            Err(ConfigError::Invalid(problems)) => problems,
            Err(ConfigError::Read { source, .. }) => {
                let fix = "create it (docs/connector-agent.example.toml is an example), or name another with --config";
                vec![Problem::error(format!("the configuration cannot be read: {source}"), fix).at_path(path)]
            }
        }
    }

    /// What is unwise in the configuration, and everything wrong with what it refers to: pincode, certificates,
    /// devices, board.
    pub fn check(&self) -> Vec<Problem> {
        let path = self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let mut problems: Vec<_> =
            check::contradictions(self).into_iter().map(|problem| problem.at_path(path)).collect();
        problems.extend(check::surroundings(self));
        problems
    }

    /// How the VIN is read: with the bit rates of all buses, those of the first bus first.
    pub fn vin_settings(&self) -> VinSettings {
        let mut bit_rates: Vec<u32> = Vec::new();
        for rate in self.buses.iter().filter(|bus| bus.kind == BusKind::Can).flat_map(BusConfig::bit_rates) {
            if !bit_rates.contains(rate) {
                bit_rates.push(*rate);
            }
        }
        let VinConfig { budget, listen_time, kline_budget, data_bit_rate } = self.vin;
        VinSettings { budget, bit_rates, kline_budget, data_bit_rate: Some(data_bit_rate), listen_time }
    }

    /// The K-lines, as the hardware takes them.
    pub fn kline_ports(&self) -> Vec<KlinePort> {
        let port = |bus: &BusConfig| match (bus.kind, bus.pins.as_slice()) {
            (BusKind::Kline, &[pin]) => {
                let (device, bit_rates) = (bus.device.clone(), bus.bit_rates().to_vec());
                Some(KlinePort { pin, device, bit_rates })
            }
            _ => None,
        };
        self.buses.iter().filter_map(port).collect()
    }

    /// The CAN buses, as the hardware takes them.
    pub fn can_ports(&self) -> Vec<CanPort> {
        let port = |bus: &BusConfig| match (bus.kind, bus.pins.as_slice()) {
            (BusKind::Can, &[plus, minus]) => {
                let (device, fd, isotp) = (bus.device.clone(), bus.fd, bus.isotp);
                Some(CanPort { pins: [plus, minus], device, fd, isotp })
            }
            _ => None,
        };
        self.buses.iter().filter_map(port).collect()
    }

    /// The DoIP networks, as the hardware takes them; those whose device is no name for one are left out.
    pub fn doip_ports(&self) -> Vec<DoipPort> {
        let port = |bus: &BusConfig| match (bus.kind, bus.pins.as_slice()) {
            (BusKind::Doip, &[plus, minus]) => {
                Some(DoipPort { pins: [plus, minus], device: bus.device.parse().ok()? })
            }
            _ => None,
        };
        self.buses.iter().filter_map(port).collect()
    }

    /// The OBD pin of terminal 15, where the board can tell it.
    pub fn terminal15_pin(&self) -> Option<u8> {
        self.board.ignition.as_ref().map(|_| self.power.terminal15_pin)
    }

    /// The pincode, from the first source that has one: the variable [`PINCODE_VARIABLE`], systemd's credential
    /// [`PINCODE_CREDENTIAL`], the file, the configuration.
    pub fn pincode(&self) -> Result<Pincode, PincodeError> {
        Pincode::find(&self.connector, |name| std::env::var_os(name))
    }
}

impl Config {
    /// Takes the state directory from systemd (`$STATE_DIRECTORY`, the first of those in it) where the file names none.
    pub fn resolve_state_directory(&mut self, variable: impl Fn(&str) -> Option<OsString>) {
        if self.connector.state_directory.is_none() {
            let directories = variable("STATE_DIRECTORY").unwrap_or_default();
            let first = directories.as_bytes().split(|byte| *byte == b':').next().unwrap_or_default();
            let first = Path::new(OsStr::from_bytes(first));
            self.connector.state_directory = first.is_absolute().then(|| first.to_owned());
        }
    }
}

/// The file's configuration as far as it can be understood, with everything wrong in the file.
fn read(path: &Path) -> Result<(Option<Config>, Vec<Problem>), ConfigError> {
    let read = |source| ConfigError::Read { path: path.to_owned(), source };
    Ok(understand(&Zeroizing::new(std::fs::read_to_string(path).map_err(read)?), path))
}

/// What the text of the file at `path` says, and what is wrong with it.
fn understand(text: &str, path: &Path) -> (Option<Config>, Vec<Problem>) {
    let parse::Parsed { mut config, mut problems, lines } = parse::parse(text);
    if let Some(config) = &mut config {
        config.path = Some(path.to_owned());
        config.resolve_relative_to(path.parent().unwrap_or(Path::new("")));
        for problem in check::contradictions(config) {
            let line = problem.key.as_deref().and_then(|key| lines.of(key));
            if !problems.iter().any(|known| explains(known, &problem)) {
                problems.push(problem.at_line(line));
            }
        }
    }
    problems = problems.into_iter().map(|problem| problem.at_path(path)).collect();
    problems.sort_by_key(|problem| problem.line);
    (config, problems)
}

/// Whether a problem with the text is the reason for a contradiction: what could not be understood has been replaced.
fn explains(known: &Problem, contradiction: &Problem) -> bool {
    let (Some(known), Some(key)) = (&known.key, &contradiction.key) else { return false };
    let sibling = known.strip_suffix(".kind").is_some_and(|bus| key.starts_with(bus));
    sibling || key.starts_with(known.as_str())
}

impl Config {
    /// Takes relative file names to be relative to the configuration.
    fn resolve_relative_to(&mut self, directory: &Path) {
        let tls = &mut self.doip.tls;
        let files = [
            &mut self.connector.pincode_file,
            &mut self.connector.state_directory,
            &mut self.cloud.ca_file,
            &mut tls.ca_file,
            &mut tls.certificate_file,
            &mut tls.key_file,
        ];
        for file in files.into_iter().flatten() {
            *file = directory.join(&*file);
        }
    }
}

#[cfg(test)]
mod tests;
