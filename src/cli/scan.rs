//! `scan`: of the buses named, or else of the configured ones.

use std::cell::RefCell;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context as _;
use connector_hal::board::{Board, LinuxBoard};

use super::{CONFIG_STATUS, logging};
use crate::config::{BusConfig, BusKind, Config, LogFormat};
use crate::scan::{ScanArgs, ScanBus, run_command};

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
        config.iter().flat_map(|config| &config.buses).filter(|bus| bus.kind == BusKind::Can).collect();
    let wanted: Vec<(String, String, Vec<u32>)> = if args.bus.is_empty() {
        configured.iter().map(|bus| (name_of(bus), bus.device.clone(), bus.bit_rates().to_vec())).collect()
    } else {
        let find = |name: &String| {
            configured.iter().find(|bus| bus.name.as_ref() == Some(name) || bus.device == *name)
        };
        let named = |name: &String| match find(name) {
            Some(bus) => (name.clone(), bus.device.clone(), bus.bit_rates().to_vec()),
            None => (name.clone(), name.clone(), BIT_RATES.to_vec()),
        };
        args.bus.iter().map(named).collect()
    };
    let mut buses = Vec::new();
    for (name, device, bit_rates) in wanted {
        let bus = connector_hal::can::open(&device).with_context(|| format!("cannot scan {name}"))?;
        let bit_rates = if args.bit_rate.is_empty() { bit_rates } else { args.bit_rate.clone() };
        buses.push(ScanBus { name, bit_rates, bus });
    }
    let board = RefCell::new(config.map(|config| LinuxBoard::open(&config.board)));
    let ignition = || board.borrow_mut().as_mut().and_then(Board::ignition);
    run_command(args, buses, ignition).await
}

fn name_of(bus: &BusConfig) -> String {
    bus.name.clone().unwrap_or_else(|| bus.device.clone())
}
