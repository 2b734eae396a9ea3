//! `check`: everything wrong in configuration and hardware, at once.

use std::path::Path;
use std::process::ExitCode;

use connector_hal::can::CanError;

use super::CONFIG_STATUS;
use crate::config::{BusConfig, BusKind, Config, Problem, Severity};

pub(super) fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let mut problems = Config::check_file(path);
    // devices are only looked at when it is clear which ones are meant
    if let Ok(config) = Config::load(path) {
        for bus in &config.buses {
            problems.extend(try_device(bus, &problems));
        }
    }
    for problem in &problems {
        println!("{problem}");
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    match errors {
        0 => println!("{}: no errors", path.display()),
        1 => println!("{}: 1 error", path.display()),
        count => println!("{}: {count} errors", path.display()),
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(CONFIG_STATUS) })
}

/// Opens a device that is there, without going on the bus.
fn try_device(bus: &BusConfig, known: &[Problem]) -> Option<Problem> {
    if known.iter().any(|problem| problem.what.contains(&bus.device)) {
        return None;
    }
    if bus.kind == BusKind::Kline {
        let fix = "check that it is plugged in, and that this user may open it";
        return connector_hal::kline::open(&bus.device)
            .err()
            .map(|error| Problem::error(error.to_string(), fix));
    }
    if bus.kind == BusKind::Doip {
        // whether its interface is there is known already, and a gateway may come later
        return None;
    }
    match connector_hal::can::open(&bus.device) {
        Ok(device) => (bus.fd && !device.capabilities().fd).then(|| {
            let what = format!("{} cannot do CAN FD", bus.device);
            Problem::warning(what, "set bus.fd to false, or change the adapter's set-up")
        }),
        Err(error) => {
            let fix = match &error {
                CanError::Device { .. } => "check that it is plugged in, up, and that this user may open it",
                CanError::Name(_) => "correct bus.device",
                _ => "check the adapter and its firmware",
            };
            Some(Problem::error(error.to_string(), fix))
        }
    }
}
