//! Finds faults of a readable configuration: contradictions, and things that the machine lacks.

mod buses;
mod doip;
mod machine;
mod policy;

use std::ops::RangeInclusive;
use std::time::Duration;

use crate::config::configuration::Config;
use crate::config::log_filter::log_filter;
use crate::config::problem::ConfigProblem;

pub(super) use machine::machine;

/// The greatest `relay.max_pdu`, in bytes. A longer PDU would leave no room for others in what a connection
/// keeps for resumption.
const MAX_PDU: u64 = 1 << 20;

/// The intervals of Pings, in milliseconds: less would be a load, more would not notice a lost link.
const PING_INTERVALS: RangeInclusive<u64> = 100..=600_000;

/// The contradictions in a configuration, on any machine.
pub(super) fn contradictions(config: &Config) -> Vec<ConfigProblem> {
    let mut problems = Vec::new();
    let connector = &config.connector;
    if connector.pincode.is_some() && connector.pincode_file.is_some() {
        let problem = ConfigProblem::error("pincode_file is set too", "remove one of the two");
        problems.push(problem.at_key("connector.pincode"));
    }
    problems.extend(cloud_tls(config));
    if config.cloud.proxy_credentials_file.is_some() && config.cloud.proxy.is_none() {
        let problem = ConfigProblem::error("there is no proxy", "set cloud.proxy too, or remove this key");
        problems.push(problem.at_key("cloud.proxy_credentials_file"));
    }
    problems.extend(buses::check(&config.buses));
    problems.extend(terminal15(config));
    problems.extend(sleep(config));
    problems.extend(doip::check(&config.doip));
    problems.extend(policy::check(config));
    problems.extend(bounds(config));
    if log_filter(&config.log.level).is_none() {
        let fix =
            "write error, warn, info, debug or trace, or directives like info,connector_agent::relay=debug";
        problems.push(ConfigProblem::error("not a log level", fix).at_key("log.level"));
    }
    problems
}

/// A certificate without key or the other way round, and a single pin.
fn cloud_tls(config: &Config) -> Option<ConfigProblem> {
    let cloud = &config.cloud;
    let (alone, other) = match (&cloud.client_certificate_file, &cloud.client_key_file) {
        (Some(_), None) => ("client_certificate_file", "client_key_file"),
        (None, Some(_)) => ("client_key_file", "client_certificate_file"),
        _ if cloud.public_key_pins.len() == 1 => {
            let fix = "pin a second key that the cloud keeps in reserve: without one, a lost key locks the connector out";
            return Some(
                ConfigProblem::warning("only one key is pinned", fix).at_key("cloud.public_key_pins"),
            );
        }
        _ => return None,
    };
    let problem = ConfigProblem::error(format!("{other} is missing"), "set both, or neither");
    Some(problem.at_key(format!("cloud.{alone}")))
}

/// A bus at the pin of terminal 15.
fn terminal15(config: &Config) -> Option<ConfigProblem> {
    let pin = config.terminal15_pin()?;
    let index = config.buses.iter().position(|bus| bus.pins.contains(&pin))?;
    let what =
        format!("bus[{index}] needs pin {pin} too, so operators can use only one of the two at a time");
    let fix =
        "set the pin at which the board senses terminal 15; if that is not a pin of the plug, any free pin";
    Some(ConfigProblem::warning(what, fix).at_key("power.terminal15_pin"))
}

/// Voltages at which the agent would never sleep, or wake and sleep for ever.
fn sleep(config: &Config) -> Option<ConfigProblem> {
    let sleep_below = config.power.sleep_below?.get();
    if config.board.voltage.is_none() {
        let problem =
            ConfigProblem::error("the voltage is not measured", "set board.voltage, or remove this key");
        return Some(problem.at_key("power.sleep_below_volts"));
    }
    let wakes_low = config.power.wake_above().is_some_and(|wake_above| wake_above <= sleep_below);
    wakes_low.then(|| {
        let what = "not above sleep_below_volts: the agent would wake and sleep for ever";
        ConfigProblem::error(what, "set some tenths of a volt more, or remove it for 0.5 V more")
            .at_key("power.wake_above_volts")
    })
}

/// The numbers that are out of range.
fn bounds(config: &Config) -> Vec<ConfigProblem> {
    let milliseconds = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let bounds = [
        ("cloud.ping_interval_ms", milliseconds(config.cloud.ping_interval), PING_INTERVALS),
        ("cloud.idle_ping_interval_ms", milliseconds(config.cloud.idle_ping_interval), PING_INTERVALS),
        ("relay.max_pdu", config.relay.max_pdu as u64, 4095..=MAX_PDU),
        ("relay.hold_seconds", config.relay.hold_seconds, 1..=300),
        ("relay.operator_silence_ms", milliseconds(config.relay.operator_silence), 10_000..=3_600_000),
        ("relay.operator_idle_ms", milliseconds(config.relay.operator_idle), 60_000..=3_600_000),
        (
            "power.keep_alive_after_last_request_ms",
            milliseconds(config.power.keep_alive_after_last_request),
            10_000..=3_600_000,
        ),
        ("vin.kline_budget_ms", milliseconds(config.vin.kline_budget), 100..=60_000),
        ("vin.data_bit_rate", config.vin.data_bit_rate.into(), 500_000..=8_000_000),
    ];
    let volts = config.power.keep_alive_above.get();
    let volts = (!(0.0..=60.0).contains(&volts)).then(|| {
        ConfigProblem::error(format!("{volts} V is out of range"), "set 0 to 60")
            .at_key("power.keep_alive_above_volts")
    });
    let wrong = bounds.into_iter().filter(|(_, value, range)| !range.contains(value));
    wrong
        .map(|(key, value, range)| {
            let fix = format!("set {} to {}", range.start(), range.end());
            ConfigProblem::error(format!("{value} is out of range"), fix).at_key(key)
        })
        .chain(volts)
        .collect()
}
