//! `policy explain`: which rule decides about a request, and why.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::{Args, Subcommand};
use connector_hal::can::CanId;

use super::exit_status::CONFIG_STATUS;
use crate::config::{Config, DEFAULT_PATH};
use crate::policy::{
    AskedSource, Class, Framing, HexBytes, Intent, IntentBus, IntentTarget, Policy, PolicySettings, Stage,
    Verdict, What, explain, services,
};
use crate::{print_error_line, print_line};

/// `connector-agent policy …`
#[derive(Debug, Args)]
pub(super) struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Say in words what the policy does, or which rule decides about a request, and why
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The diagnostic request, in hexadecimal digits, such as "2E F1 90 00"
    #[arg(long, value_name = "HEX", num_args = 1..)]
    pdu: Vec<String>,
    /// The name of the bus
    #[arg(long, value_name = "NAME", default_value = "", requires = "pdu")]
    bus: String,
    /// The CAN identifier of the request, in hexadecimal digits
    #[arg(long, value_name = "HEX", requires = "pdu", value_parser = can_id)]
    id: Option<CanId>,
    /// The address of the ECU on a K-line, of TP2.0 or DoIP, in hexadecimal digits
    #[arg(long, value_name = "HEX", requires = "pdu", conflicts_with = "id", value_parser = address)]
    target: Option<u16>,
    /// The vehicle's speed in km/h; 0 means that the vehicle has stood for two seconds. By default unknown
    #[arg(long, value_name = "KMH", requires = "pdu", value_parser = amount)]
    speed: Option<f32>,
    /// The voltage. By default unknown
    #[arg(long, value_name = "VOLTS", requires = "pdu", value_parser = amount)]
    voltage: Option<f32>,
    /// Whether the engine runs. By default unknown
    #[arg(long, value_name = "ON|OFF", requires = "pdu", value_parser = on_off)]
    engine: Option<bool>,
    /// Whether the ignition is on. By default unknown
    #[arg(long, value_name = "ON|OFF", requires = "pdu", value_parser = on_off)]
    ignition: Option<bool>,
    /// The person at the vehicle has agreed
    #[arg(long, requires = "pdu")]
    consent: bool,
    /// The connection belongs to a ticket
    #[arg(long, requires = "pdu")]
    ticket: bool,
    /// The VIN is that of the ticket
    #[arg(long, requires = "pdu")]
    vin_confirmed: bool,
}

fn can_id(text: &str) -> Result<CanId, String> {
    let digits = text.trim_start_matches("0x");
    let raw = u32::from_str_radix(digits, 16).map_err(|error| error.to_string())?;
    // as candump writes them: more than three digits are an extended identifier
    let id = if digits.len() > 3 { CanId::extended(raw) } else { CanId::standard(raw) };
    id.map_err(|error| error.to_string())
}

fn address(text: &str) -> Result<u16, String> {
    u16::from_str_radix(text.trim_start_matches("0x"), 16).map_err(|error| error.to_string())
}

fn amount(text: &str) -> Result<f32, String> {
    let number = text.parse().ok().filter(|number| (0.0..=1000.0).contains(number));
    number.ok_or_else(|| "write a number from 0 to 1000".to_owned())
}

fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err("write on or off".to_owned()),
    }
}

pub(super) fn run(args: &PolicyArgs, path: &Path) -> anyhow::Result<ExitCode> {
    let PolicyCommand::Explain(args) = &args.command;
    let (settings, has_button) = if path == Path::new(DEFAULT_PATH) && !path.exists() {
        print_error_line!("connector-agent: {DEFAULT_PATH} does not exist; this is the default policy");
        (PolicySettings::default(), false)
    } else {
        match Config::load(path) {
            Ok(config) => (config.policy, config.board.button.is_some()),
            Err(error) => {
                print_error_line!("connector-agent: {error}");
                return Ok(ExitCode::from(CONFIG_STATUS));
            }
        }
    };
    if args.pdu.is_empty() {
        for line in explain(&settings, has_button) {
            print_line!("{line}");
        }
        return Ok(ExitCode::SUCCESS);
    }
    let HexBytes(request) = args.pdu.concat().parse().map_err(anyhow::Error::msg).context("--pdu")?;
    print_line!("{}", judge(args, settings, has_button, &request));
    Ok(ExitCode::SUCCESS)
}

fn judge(args: &ExplainArgs, settings: PolicySettings, has_button: bool, request: &[u8]) -> String {
    let mut policy = Policy::new(settings, has_button);
    let now = set_facts(&mut policy, args);
    let target = match (args.id, args.target) {
        (Some(id), _) => IntentTarget::Can { id, extended: None },
        (None, Some(address)) => {
            u8::try_from(address).map_or(IntentTarget::Logical(address), IntentTarget::Address)
        }
        (None, None) => IntentTarget::None,
    };
    let bus = IntentBus { index: 0, name: &args.bus };
    let verdict = policy.judge(
        now,
        Stage::Arrival,
        &Intent { bus, target, what: What::Pdu(request, Framing::default()) },
    );
    let classified = services::classify(request);
    let decided_by = |rule| match rule {
        0 if classified.always => "requests that keep or end a session are always allowed".to_owned(),
        0 => format!("the conditions of the class {} decide", classified.class),
        rule => format!("rule {rule} decides"),
    };
    let subject = format!("{} (class {})", classified.name(), classified.class);
    match verdict {
        Verdict::Allow { rule } => format!("{subject}: allowed; {}.", decided_by(rule)),
        Verdict::Refuse(refusal) => format!(
            "{subject}: refused, {}; {}. To be allowed: {}.",
            refusal.why,
            decided_by(refusal.rule),
            refusal.why.remedy()
        ),
    }
}

/// Gives the policy the facts of the command line. Returns the moment at which they all hold.
fn set_facts(policy: &mut Policy, args: &ExplainArgs) -> Instant {
    let start = Instant::now();
    let now = start + Duration::from_secs(3);
    policy.handle_opened(start, args.ticket, false);
    policy.handle_vin(None, args.vin_confirmed);
    policy.handle_voltage(now, args.voltage);
    policy.handle_ignition(args.ignition);
    if let Some(is_on) = args.engine {
        policy.handle_engine_speed(now, if is_on { 800.0 } else { 0.0 });
    }
    if let Some(kmh) = args.speed {
        // a vehicle stands after two seconds of zero
        for seconds in 0..=3 {
            policy.handle_asked_speed(start + Duration::from_secs(seconds), AskedSource::Obd, kmh);
        }
    }
    if args.consent {
        for class in Class::ALL {
            policy.handle_consent(now, class);
        }
    }
    now
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct CommandLine {
        #[command(flatten)]
        args: ExplainArgs,
    }

    fn explained(toml: &str, arguments: &[&str]) -> String {
        let line = ["explain"].iter().chain(arguments);
        let args = CommandLine::try_parse_from(line).unwrap().args;
        let HexBytes(request) = args.pdu.concat().parse().unwrap();
        judge(&args, toml::from_str(toml).unwrap(), true, &request)
    }

    #[test]
    fn the_deciding_rule_and_the_reason_are_named() {
        assert_eq!(
            explained("", &["--pdu", "2E", "F1", "90", "00", "--speed", "12"]),
            "WriteDataByIdentifier (class intrusive): refused, moving (12 km/h); the conditions of the class intrusive \
             decide. To be allowed: stop the vehicle and send again."
        );
        assert_eq!(
            explained("", &["--pdu", "2EF19000", "--speed", "0"]),
            "WriteDataByIdentifier (class intrusive): allowed; the conditions of the class intrusive decide."
        );
        let rules = "rule = [{ services = [0x2F], ids = [0x7E0], require = [\"stationary\", \"consent\"] }]";
        let control = ["--pdu", "2F010203", "--id", "7E0", "--speed", "0"];
        assert!(explained(rules, &control).contains("refused, consent asked; rule 1 decides"));
        let with_consent = [&control[..], &["--consent"]].concat();
        assert!(explained(rules, &with_consent).ends_with("allowed; rule 1 decides."));
        assert!(explained("", &["--pdu", "34", "--voltage", "11.6"]).contains("refused, 11.6 V;"));
        assert!(explained("", &["--pdu", "3E00", "--speed", "100"]).contains("always allowed"));
    }

    #[test]
    fn wrong_arguments_are_refused_by_name() {
        for arguments in [
            &["--speed", "12"][..],
            &["--pdu", "2E", "--id", "1FFFFFFFFF"],
            &["--pdu", "2E", "--id", "800"],
            &["--pdu", "2E", "--engine", "maybe"],
            &["--pdu", "2E", "--speed", "NaN"],
            &["--pdu", "2E", "--speed", "inf"],
            &["--pdu", "2E", "--speed=-5"],
            &["--pdu", "2E", "--voltage", "NaN"],
            &["--pdu", "2E", "--voltage=-1"],
            &["--pdu", "2E", "--id", "7E0", "--target", "10"],
        ] {
            let line = ["explain"].iter().chain(arguments);
            assert!(CommandLine::try_parse_from(line).is_err(), "{arguments:?}");
        }
    }
}
