//! `scan`: of the buses named, or else of the configured ones.

use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use connector_hal::board::{Board, LinuxBoard};

use super::{CONFIG_STATUS, logging};
use crate::cli::scan_command::{ScanArgs, ScanBus, ScanTarget};
use crate::config::DoipPort;
use crate::config::{BusConfig, BusKind, Config, LogFormat};
use crate::vehicle::hardware::Hardware;

/// How a DoIP network or gateway is named.
const DOIP_PREFIX: &str = "doip:";
/// The bit rates to try where nothing else is said, in bit/s.
const BIT_RATES: [u32; 2] = [500_000, 250_000];

pub(super) async fn run(args: &ScanArgs, path: &Path, format: Option<LogFormat>) -> anyhow::Result<ExitCode> {
    logging::init("warn", format.unwrap_or(LogFormat::Text))?;
    // a bus that is named by its device needs no configuration
    let config = match Config::load(path) {
        Ok(config) => Some(config),
        Err(error) if args.bus.is_empty() => {
            eprintln!("{error}");
            eprintln!("connector-agent: or name a bus: connector-agent scan --bus can0");
            return Ok(ExitCode::from(CONFIG_STATUS));
        }
        Err(_) => None,
    };
    let configured: Vec<&BusConfig> =
        config.iter().flat_map(|config| &config.buses).filter(|bus| bus.kind != BusKind::Kline).collect();
    let wanted: Vec<(String, Option<&BusConfig>)> = if args.bus.is_empty() {
        configured.iter().map(|bus| (name_of(bus), Some(*bus))).collect()
    } else {
        let find = |name: &String| {
            configured.iter().find(|bus| bus.name.as_ref() == Some(name) || bus.device == *name).copied()
        };
        args.bus.iter().map(|name| (name.clone(), find(name))).collect()
    };
    let mut buses = Vec::new();
    for (name, bus) in wanted {
        let target = target(args, &name, bus).with_context(|| format!("cannot scan {name}"))?;
        buses.push(ScanBus { name, target });
    }
    let board = config.as_ref().map(|config| LinuxBoard::open(&config.board));
    let activation = board.as_ref().and_then(Board::doip_activation);
    let doip = config.map(|config| config.doip).unwrap_or_default();
    let hardware = Hardware::new([]).with_doip([], doip, activation);
    let board = RefCell::new(board);
    let ignition = || board.borrow_mut().as_mut().and_then(Board::ignition);
    super::scan_command::run(args, buses, &hardware, ignition).await
}

/// What is behind the name of a bus, or behind a configured one.
fn target(args: &ScanArgs, name: &str, bus: Option<&BusConfig>) -> anyhow::Result<ScanTarget> {
    let device = bus.map_or(name, |bus| bus.device.as_str());
    if bus.map_or(name.starts_with(DOIP_PREFIX), |bus| bus.kind == BusKind::Doip) {
        // which pins it has makes no difference here
        return Ok(ScanTarget::Doip(DoipPort { pins: [3, 11], device: device.parse()? }));
    }
    let usual = bus.map_or(&BIT_RATES[..], BusConfig::bit_rates);
    let bit_rates = if args.bit_rate.is_empty() { usual.to_vec() } else { args.bit_rate.clone() };
    Ok(ScanTarget::Can { bit_rates, bus: connector_hal::can::open(device)? })
}

fn name_of(bus: &BusConfig) -> String {
    bus.name.clone().unwrap_or_else(|| bus.device.clone())
}
