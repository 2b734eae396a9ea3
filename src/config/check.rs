//! What is wrong with a configuration that can be read: contradictions in it, and what it refers to.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use connector_hal::board::{BoardProblem, LinuxBoard};
use connector_hal::can::CanDevice;
use connector_hal::kline;
use tracing_subscriber::EnvFilter;

use crate::config::IsotpStack;
use crate::config::doip::{Addressing, DoipConfig, NETWORK_CONFIGURATIONS};
use crate::config::{CAN_BIT_RATES, KLINE_BIT_RATES};
use crate::tls;

use super::{BusConfig, BusKind, Config, PincodeError, Problem};

/// The pins of DoIP's two options (ISO 13400-4).
const DOIP_PINS: [&[u8]; 2] = [&[1, 9], &[3, 11]];
/// Where the kernel shows network interfaces.
const INTERFACES: &str = "/sys/class/net";

/// What a bus is reached by.
#[derive(PartialEq, Eq, Hash)]
enum Device {
    Can(CanDevice),
    /// A serial device's path.
    Kline(String),
    Doip(super::doip_device::Device),
}

/// A longer PDU would not leave room for others in what a relayed connection keeps.
const MAX_PDU: u64 = 1 << 20;

/// What no configuration may say, whatever machine it is for.
pub fn contradictions(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let connector = &config.connector;
    if connector.pincode.is_some() && connector.pincode_file.is_some() {
        let problem = Problem::error("there is pincode_file too", "remove one of the two");
        problems.push(problem.at_key("connector.pincode"));
    }
    if config.cloud.dead_after <= config.cloud.ping_interval {
        let problem = Problem::error("the link would be dead between two Pings", "make it three intervals");
        problems.push(problem.at_key("cloud.dead_after_ms"));
    }
    buses(&config.buses, &mut problems);
    if let Some(pin) = config.terminal15_pin()
        && let Some(index) = config.buses.iter().position(|bus| bus.pins.contains(&pin))
    {
        let what =
            format!("bus[{index}] needs pin {pin} too, so operators can have only one of the two at a time");
        let fix = "give the pin at which the board senses terminal 15; where that is no pin of the plug, any that is free";
        problems.push(Problem::warning(what, fix).at_key("power.terminal15_pin"));
    }
    doip(&config.doip, &mut problems);
    let mut bounded = |key: &str, value: u64, low: u64, high: u64| {
        if !(low..=high).contains(&value) {
            let problem = Problem::error(format!("{value} is out of range"), format!("give {low} to {high}"));
            problems.push(problem.at_key(key));
        }
    };
    bounded("relay.max_pdu", config.relay.max_pdu as u64, 4095, MAX_PDU);
    bounded("relay.hold_seconds", config.relay.hold_seconds, 1, 300);
    let kline_budget = u64::try_from(config.vin.kline_budget.as_millis()).unwrap_or(u64::MAX);
    bounded("vin.kline_budget_ms", kline_budget, 100, 60_000);
    bounded("vin.data_bit_rate", config.vin.data_bit_rate.into(), 500_000, 8_000_000);
    if EnvFilter::try_new(&config.log.level).is_err() {
        let fix =
            "write error, warn, info, debug or trace, or directives like info,connector_agent::relay=debug";
        problems.push(Problem::error("not a log level", fix).at_key("log.level"));
    }
    problems
}

fn buses(buses: &[BusConfig], problems: &mut Vec<Problem>) {
    if buses.is_empty() {
        let fix = "add a [[bus]] to read the VIN and to relay";
        problems.push(Problem::warning("no bus is configured", fix).at_key("bus"));
    }
    let (mut devices, mut pins, mut names) = (HashMap::new(), HashMap::new(), HashMap::new());
    for (index, bus) in buses.iter().enumerate() {
        let mut wrong = |key: &str, what: String, fix: &str| {
            problems.push(Problem::error(what, fix).at_key(format!("bus[{index}].{key}")));
        };
        match bus.kind {
            BusKind::Can => match bus.pins.as_slice() {
                [high, low] if high != low && [high, low].iter().all(|pin| (1..=16).contains(*pin)) => {}
                _ => wrong("pins", "no pair of pins".to_owned(), "give CAN's two, high and low, of 1 to 16"),
            },
            BusKind::Kline => {
                if !matches!(bus.pins.as_slice(), [1..=16]) {
                    wrong("pins", "not one pin".to_owned(), "give the K-line's one, of 1 to 16");
                }
                if bus.fd {
                    wrong("fd", "a K-line has no CAN FD".to_owned(), "remove it");
                }
            }
            BusKind::Doip => {
                if !DOIP_PINS.contains(&bus.pins.as_slice()) {
                    let what = "no pins of DoIP".to_owned();
                    wrong("pins", what, "give [1, 9], which is option 1, or [3, 11], which is option 2");
                }
            }
        }
        let known: &[u32] = if bus.kind == BusKind::Kline { &KLINE_BIT_RATES } else { &CAN_BIT_RATES };
        if bus.bit_rates().is_empty() {
            wrong("bit_rates", "empty".to_owned(), "give at least one, or remove it for the default");
        }
        for rate in bus.bit_rates().iter().filter(|rate| !known.contains(rate)) {
            let allowed = known.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            wrong("bit_rates", format!("no such bit rate: {rate}"), &format!("give some of {allowed}"));
        }
        let (device, kind, fix) = match bus.kind {
            BusKind::Can => {
                let device = bus.device.parse::<CanDevice>().map(Device::Can).ok();
                (device, "CAN device", "write it like can0 or slcan:/dev/ttyACM0")
            }
            BusKind::Kline => {
                let device = kline::device_path(&bus.device).ok().map(|path| Device::Kline(path.to_owned()));
                (device, "K-line device", "write it like /dev/ttyUSB0")
            }
            BusKind::Doip => {
                let device = bus.device.parse().map(Device::Doip).ok();
                (device, "network", "write an interface like eth0, or a gateway's address like 192.168.7.2")
            }
        };
        match device {
            Some(device) => {
                if bus.isotp == IsotpStack::Kernel && matches!(device, Device::Can(CanDevice::Slcan { .. })) {
                    let what = "the kernel speaks no ISO-TP on an SLCAN adapter".to_owned();
                    wrong("isotp", what, "write auto or own");
                }
                if let Some(first) = devices.insert(device, index) {
                    let what = format!("bus[{first}] has the same device");
                    wrong("device", what, "give each bus a device of its own, or remove one");
                }
            }
            None => wrong("device", format!("`{}` names no {kind}", bus.device), fix),
        }
        if let Some(first) = pins.insert(bus.pins.as_slice(), index) {
            wrong("pins", format!("bus[{first}] has the same pins"), "give each bus pins of its own");
        }
        if let Some(name) = &bus.name
            && let Some(first) = names.insert(name.as_str(), index)
        {
            wrong("name", format!("bus[{first}] has the same name"), "give each bus a name of its own");
        }
    }
}

fn doip(config: &DoipConfig, problems: &mut Vec<Problem>) {
    let mut wrong = |key: String, what: String, fix: &str| {
        problems.push(Problem::error(what, fix).at_key(format!("doip.{key}")));
    };
    let number = config.network_configuration;
    if !NETWORK_CONFIGURATIONS.contains(&number) {
        wrong("network_configuration".to_owned(), format!("{number} is out of range"), "give 1 to 9");
    }
    for (name, network) in &config.network {
        let is_known = name.parse().is_ok_and(|number: u8| NETWORK_CONFIGURATIONS.contains(&number));
        if !is_known {
            wrong(format!("network.{name}"), "no such network configuration".to_owned(), "name it 1 to 9");
        }
        if network.addressing == Addressing::Fixed && network.address.is_none() {
            let fix = "give address, like \"192.168.7.1/24\"";
            wrong(format!("network.{name}.addressing"), "there is no address".to_owned(), fix);
        }
        let [first, last] = network.tester_addresses;
        if first > last {
            let fix = "give the first and the last";
            wrong(format!("network.{name}.tester_addresses"), "they are the wrong way round".to_owned(), fix);
        }
        if !matches!(network.protocol_version, 2 | 3) {
            let what = format!("{} is no version that is spoken here", network.protocol_version);
            wrong(format!("network.{name}.protocol_version"), what, "give 2 (2012) or 3 (2019)");
        }
    }
    let tls = &config.tls;
    if tls.certificate_file.is_some() != tls.key_file.is_some() {
        let what = "a certificate and its key belong together".to_owned();
        wrong("tls".to_owned(), what, "give certificate_file and key_file, or neither");
    }
    if tls.trust_any {
        let fix = "set doip.tls.ca_file to what the vehicle's certificate comes from";
        let what = "any gateway's certificate is trusted";
        problems.push(Problem::warning(what, fix).at_key("doip.tls.trust_any"));
    }
}

/// What is wrong with the machine, as the configuration describes it.
pub fn surroundings(config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    if let Err(error) = config.pincode() {
        problems.push(pincode_problem(config, &error));
    } else if config.connector.pincode.is_some()
        && let Some(path) = &config.path
        && fs::metadata(path).is_ok_and(|metadata| metadata.mode() & 0o077 != 0)
    {
        let fix = "chmod 600 it, or put the pincode into a file of its own";
        let problem = Problem::warning("others can read this file with the pincode in it", fix);
        problems.push(problem.at_path(path).at_key("connector.pincode"));
    }
    if let Err(error) = tls::client_config(config.cloud.ca_file.as_deref()) {
        let problem = Problem::error(error.to_string(), "put the CA's certificate there, in PEM form");
        problems.push(match &config.cloud.ca_file {
            Some(path) => problem.at_path(path),
            None => problem,
        });
    }
    if let Err(error) = tls::gateway::client_config(&config.doip.tls) {
        let fix = "put certificates and key there, in PEM form";
        problems.push(Problem::error(error.to_string(), fix).at_key("doip.tls"));
    }
    for bus in &config.buses {
        let path = match bus.kind {
            BusKind::Can => match bus.device.parse() {
                Ok(CanDevice::SocketCan { interface }) => Path::new(INTERFACES).join(interface),
                Ok(CanDevice::Slcan { path, .. }) => path.into(),
                // said already, as wrong in itself
                Err(_) => continue,
            },
            BusKind::Kline => match kline::device_path(&bus.device) {
                Ok(path) => path.into(),
                Err(_) => continue,
            },
            BusKind::Doip => match bus.device.parse::<super::doip_device::Device>() {
                Ok(device) => match device.interface() {
                    Some(interface) if interface.parse::<u32>().is_err() => {
                        Path::new(INTERFACES).join(interface)
                    }
                    // a gateway that is not there yet is no mistake
                    _ => continue,
                },
                // said already, as wrong in itself
                Err(_) => continue,
            },
        };
        if !path.exists() {
            let what = format!("the device {} is not there", bus.device);
            problems.push(Problem::error(what, "plug it in, or correct bus.device").at_path(&path));
        }
    }
    for BoardProblem { part, path, error, remedy } in LinuxBoard::check(&config.board) {
        problems.push(Problem::error(format!("board.{part}: {error}"), remedy).at_path(&path));
    }
    problems
}

fn pincode_problem(config: &Config, error: &PincodeError) -> Problem {
    let text = error.to_string();
    let (what, fix) = text.split_once("; ").unwrap_or((&text, "correct it"));
    let problem = Problem::error(what, fix);
    match error {
        PincodeError::Read { path, .. }
        | PincodeError::Exposed { path, .. }
        | PincodeError::Owner { path, .. }
        | PincodeError::NoFile(path) => problem.at_path(path),
        PincodeError::Missing | PincodeError::Malformed(_) => match &config.path {
            Some(path) => problem.at_path(path).at_key("connector.pincode_file"),
            None => problem,
        },
    }
}
