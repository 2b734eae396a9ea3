//! `check`: reports every problem with configuration and hardware.

use std::path::Path;
use std::process::ExitCode;

use connector_hal::can::CanError;

use super::exit_status::CONFIG_STATUS;
use crate::config::{BusKind, Config, ConfigProblem, ConfiguredBus, Severity};
use crate::policy::explain;
use crate::print_line;

pub(super) fn run(path: &Path) -> anyhow::Result<ExitCode> {
    let mut problems = Config::check_file(path);
    // devices are opened only if the configuration is valid
    if let Ok(config) = Config::load(path) {
        for bus in &config.buses {
            problems.extend(try_device(bus, &problems));
        }
        for line in explain(&config.policy, config.board.button.is_some()) {
            print_line!("{line}");
        }
    }
    for problem in &problems {
        print_line!("{problem}");
    }
    let errors = problems.iter().filter(|problem| problem.severity == Severity::Error).count();
    match errors {
        0 => print_line!("{}: no errors", path.display()),
        1 => print_line!("{}: 1 error", path.display()),
        count => print_line!("{}: {count} errors", path.display()),
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::from(CONFIG_STATUS) })
}

/// Opens the bus's device without joining the bus, unless a problem with the device is known already.
fn try_device(bus: &ConfiguredBus, known: &[ConfigProblem]) -> Option<ConfigProblem> {
    if known.iter().any(|problem| problem.what.contains(&bus.device)) {
        return None;
    }
    if bus.kind == BusKind::Kline {
        let fix = "check that it is connected, and that this user may open it";
        return connector_hal::kline::open(&bus.device)
            .err()
            .map(|error| ConfigProblem::error(error.to_string(), fix));
    }
    if bus.kind == BusKind::Doip {
        // the existence of the interface has been checked already, and a gateway may come later
        return None;
    }
    match connector_hal::can::open(&bus.device) {
        Ok(device) => (bus.fd && !device.capabilities().fd).then(|| {
            let what = format!("{} does not support CAN FD", bus.device);
            ConfigProblem::warning(what, "set bus.fd to false, or change the adapter's configuration")
        }),
        Err(error) => {
            let fix = match &error {
                CanError::Device { .. } => "check that it is connected, up, and that this user may open it",
                CanError::Name(_) => "correct bus.device",
                _ => "check the adapter and its firmware",
            };
            Some(ConfigProblem::error(error.to_string(), fix))
        }
    }
}
