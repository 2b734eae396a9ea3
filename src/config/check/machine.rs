//! Finds faults of the machine, compared with the configuration.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use connector_hal::board::{BoardProblem, LinuxBoard};
use connector_hal::can::CanDevice;
use connector_hal::kline;

use crate::config::configuration::Config;
use crate::config::doip_device::DoipDevice;
use crate::config::pincode::PincodeError;
use crate::config::problem::ConfigProblem;
use crate::config::sections::{BusKind, ConfiguredBus};
use crate::tls;

/// Where the kernel shows network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Everything that is wrong with the files and devices that the configuration names.
pub(crate) fn machine(config: &Config) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    problems.extend(check_pincode(config));
    check_certificates(config, &mut problems);
    problems.extend(config.buses.iter().filter_map(missing_device));
    for BoardProblem { part, path, error, remedy } in LinuxBoard::check(&config.board) {
        problems.push(ConfigProblem::error(format!("board.{part}: {error}"), remedy).at_path(&path));
    }
    problems
}

fn check_pincode(config: &Config) -> Option<ConfigProblem> {
    if let Err(error) = config.pincode() {
        return Some(pincode_problem(config, &error));
    }
    config.connector.pincode.as_ref()?;
    let path = config.path.as_ref()?;
    let is_exposed = fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0);
    is_exposed.then(|| {
        let what = "other users can read this file, which contains the pincode";
        let fix = "chmod 600 it, or put the pincode into a separate file";
        ConfigProblem::warning(what, fix).at_path(path).at_key("connector.pincode")
    })
}

fn pincode_problem(config: &Config, error: &PincodeError) -> ConfigProblem {
    let text = error.to_string();
    let (what, fix) = text.split_once("; ").unwrap_or((&text, "correct it"));
    let problem = ConfigProblem::error(what, fix);
    match error {
        PincodeError::Read { path, .. }
        | PincodeError::Exposed { path, .. }
        | PincodeError::Owner { path, .. }
        | PincodeError::NotAFile(path) => problem.at_path(path),
        PincodeError::Missing | PincodeError::Malformed(_) => match &config.path {
            Some(path) => problem.at_path(path).at_key("connector.pincode_file"),
            None => problem,
        },
    }
}

fn check_certificates(config: &Config, problems: &mut Vec<ConfigProblem>) {
    if let Err(error) = tls::client_config(config.cloud.ca_file.as_deref()) {
        let problem = ConfigProblem::error(error.to_string(), "put the CA's certificate there, as PEM");
        problems.push(match &config.cloud.ca_file {
            Some(path) => problem.at_path(path),
            None => problem,
        });
    }
    if let Err(error) = tls::gateway::client_config(&config.doip.tls) {
        let fix = "put certificates and key there, as PEM";
        problems.push(ConfigProblem::error(error.to_string(), fix).at_key("doip.tls"));
    }
}

/// The problem that the bus's device is missing, if so.
fn missing_device(bus: &ConfiguredBus) -> Option<ConfigProblem> {
    let path = device_path(bus)?;
    (!path.exists()).then(|| {
        let what = format!("the device {} does not exist", bus.device);
        ConfigProblem::error(what, "connect it, or correct bus.device").at_path(&path)
    })
}

/// The path by which the existence of the bus's device can be checked. `None` if there is none, or if the
/// device's name is invalid, which `check_device` reports.
fn device_path(bus: &ConfiguredBus) -> Option<PathBuf> {
    match bus.kind {
        BusKind::Can => match bus.device.parse().ok()? {
            CanDevice::SocketCan { interface } => Some(Path::new(INTERFACES).join(interface)),
            CanDevice::Slcan { path, .. } => Some(path.into()),
        },
        BusKind::Kline => kline::device_path(&bus.device).ok().map(PathBuf::from),
        BusKind::Doip => {
            // a gateway's address has no path, and the gateway may come later
            let device: DoipDevice = bus.device.parse().ok()?;
            let name = device.interface().filter(|name| name.parse::<u32>().is_err())?;
            Some(Path::new(INTERFACES).join(name))
        }
    }
}
