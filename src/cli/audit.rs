//! `audit verify` and `audit show`: the record of refusals, consent and programming.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::Value;

use super::log_line::clean;
use crate::agent::{audit_files, read_audit_file};
use crate::config::Config;
use crate::policy::audit::{AuditHash, ChainCheck};
use crate::print_line;
use crate::relay::wire::rfc3339;

/// `connector-agent audit …`
#[derive(Debug, Args)]
pub(super) struct AuditArgs {
    #[command(subcommand)]
    command: AuditCommand,
    /// The state directory, instead of the configuration's
    #[arg(long, global = true, value_name = "DIR")]
    directory: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum AuditCommand {
    /// Check that no line was changed or removed, and print the hash of the last line
    Verify {
        /// A line with this hash must be there too, such as `audit_head` of a connection
        #[arg(long, value_name = "HASH")]
        head: Option<AuditHash>,
    },
    /// Print the entries, one sentence a line
    Show {
        /// Only the last entries
        #[arg(long, value_name = "N")]
        last: Option<usize>,
    },
}

pub(super) fn run(args: &AuditArgs, config: &Path) -> anyhow::Result<ExitCode> {
    let directory = match &args.directory {
        Some(directory) => directory.clone(),
        None => Config::load(config)?
            .connector
            .state_directory
            .context("the configuration names no connector.state_directory: name one with --directory")?,
    };
    match args.command {
        AuditCommand::Verify { head } => verify(&directory, head),
        AuditCommand::Show { last } => show(&directory, last),
    }
}

/// The files that there are, from the oldest to the newest.
fn files(directory: &Path) -> anyhow::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    for path in audit_files(directory) {
        let text = read_audit_file(&path).with_context(|| format!("cannot read {}", path.display()))?;
        files.extend(text.map(|text| (path, text)));
    }
    anyhow::ensure!(!files.is_empty(), "{} has no audit", directory.display());
    Ok(files)
}

fn verify(directory: &Path, wanted: Option<AuditHash>) -> anyhow::Result<ExitCode> {
    let mut check = ChainCheck::looking_for(wanted);
    for (path, text) in files(directory)? {
        let path = path.display();
        match check.check_file(&text) {
            Ok(checked) if checked.torn > 0 => {
                let torn = checked.torn;
                print_line!("{path}: {} lines, intact; {torn} incomplete and marked", checked.lines);
            }
            Ok(checked) => print_line!("{path}: {} lines, intact", checked.lines),
            Err(broken) => {
                print_line!("{path}:{}: {}", broken.line, broken.fault);
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    if let Some(head) = check.head() {
        print_line!("head: {head}");
    }
    if let Some(wanted) = wanted.filter(|_| !check.has_found()) {
        print_line!(
            "no line has the hash {wanted}: lines were removed at the end, or have left the oldest file"
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

fn show(directory: &Path, last: Option<usize>) -> anyhow::Result<ExitCode> {
    let files = files(directory)?;
    let text: Vec<_> = files.into_iter().map(|(_, text)| text).collect();
    let text = text.concat();
    let lines: Vec<_> = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    let first = lines.len().saturating_sub(last.unwrap_or(lines.len()));
    for line in lines.into_iter().skip(first) {
        print_line!("{}", clean(&sentence(line)));
    }
    Ok(ExitCode::SUCCESS)
}

/// The entry of a line as one sentence.
fn sentence(line: &[u8]) -> String {
    let Ok(entry) = serde_json::from_slice::<Value>(line) else {
        return "An incomplete line.".to_owned();
    };
    let text = |key| entry.get(key).and_then(Value::as_str);
    let number = |key| entry.get(key).and_then(Value::as_u64).unwrap_or_default();
    let time = |key| rfc3339(UNIX_EPOCH + Duration::from_millis(number(key)));
    let (subject, class) = (subject(&entry), text("class").unwrap_or("every class"));
    let why = text("why").unwrap_or_default();
    let by = if text("by") == Some("ticket") { "the ticket" } else { "the person at the vehicle" };
    let refused = || {
        let decided = match number("rule") {
            0 => format!("class {class}"),
            rule => format!("rule {rule}"),
        };
        let sent =
            if entry.get("sent").is_some() { ", but sent, because the policy only observes" } else { "" };
        format!("{subject} was refused: {why} ({decided}){sent}")
    };
    let what = match text("entry").unwrap_or_default() {
        "refused" => refused(),
        "refused-again" => {
            format!("{}, {} more times since {}", refused(), number("count"), time("since_ms"))
        }
        "refused-others" => {
            format!("{} other requests were refused since {}", number("count"), time("since_ms"))
        }
        "consent-asked" => format!("the person at the vehicle was asked for consent to {class}"),
        "consent-given" => format!("{by} gave consent to {class}"),
        "consent-unanswered" => format!("the person at the vehicle did not answer about {class}"),
        "consent-revoked" => "the person at the vehicle revoked every consent".to_owned(),
        "consent-ended" => format!("consent to {class} ended"),
        "programming-begun" => format!("programming began with {subject}"),
        "programming-ended" => format!(
            "programming that began at {} with {subject} ended after {} requests: {why}",
            time("since_ms"),
            number("count").max(number("requests"))
        ),
        "lost" => format!("{} entries could not be recorded", number("count")),
        "torn" => "the agent was interrupted while it wrote the line before".to_owned(),
        other => format!("an entry of the unknown kind {other:?}"),
    };
    format!("{} {what}{}{}.", time("time_ms"), facts(&entry), connection(&entry))
}

/// The request and its ECU.
fn subject(entry: &Value) -> String {
    let text = |key| entry.get(key).and_then(Value::as_str);
    let mut subject = text("name").unwrap_or_default().to_owned();
    let parts = [
        ("service", " "),
        ("sub_function", " sub-function "),
        ("parameter", " parameter "),
        ("identifier", " identifier "),
        ("routine", " routine "),
        ("target", " to "),
        ("bus", " on "),
    ];
    for (key, before) in parts {
        if let Some(value) = text(key) {
            let _never_fails = write!(subject, "{before}{value}");
        }
    }
    subject
}

fn facts(entry: &Value) -> String {
    let value = |key| entry.get(key);
    let Some(motion) = value("motion").and_then(Value::as_str) else { return String::new() };
    let mut facts = match (motion, value("speed_kmh")) {
        ("unknown", _) => "; speed unknown".to_owned(),
        (motion, Some(kmh)) => format!("; {motion} at {kmh} km/h"),
        (motion, None) => format!("; {motion}"),
    };
    if let Some(volts) = value("voltage") {
        let _never_fails = write!(facts, ", {volts} V");
    }
    let engine = value("engine").and_then(Value::as_str).unwrap_or("unknown");
    let ignition = match value("ignition").and_then(Value::as_bool) {
        Some(true) => "on",
        Some(false) => "off",
        None => "unknown",
    };
    let _never_fails = write!(facts, ", engine {engine}, ignition {ignition}");
    facts
}

fn connection(entry: &Value) -> String {
    let text = |key| entry.get(key).and_then(Value::as_str);
    match (text("connection"), text("ticket")) {
        (Some(connection), Some(ticket)) => format!("; connection {connection}, ticket {ticket}"),
        (Some(connection), None) => format!("; connection {connection}"),
        (None, _) => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_one_plain_sentence() {
        let refused = r#"{"previous":"00","entry":"refused","time_ms":1796033009000,"connection":"97a0","ticket":"7",
            "bus":"HS","target":"0x7E0","name":"WriteDataByIdentifier","service":"2E","identifier":"F190","length":17,
            "class":"intrusive","rule":0,"why":"moving (12 km/h)","motion":"moving","speed_kmh":12,"voltage":12.4,
            "engine":"on","ignition":true}"#;
        assert_eq!(
            sentence(refused.as_bytes()),
            "2026-11-30T10:03:29Z WriteDataByIdentifier 2E identifier F190 to 0x7E0 on HS was refused: moving (12 km/h) \
             (class intrusive); moving at 12 km/h, 12.4 V, engine on, ignition on; connection 97a0, ticket 7."
        );
        let given = r#"{"entry":"consent-given","time_ms":0,"class":"bus","by":"button","motion":"unknown"}"#;
        assert_eq!(
            sentence(given.as_bytes()),
            "1970-01-01T00:00:00Z the person at the vehicle gave consent to bus; speed unknown, engine unknown, \
             ignition unknown."
        );
        assert_eq!(sentence(b"{\"entry\":\"lo"), "An incomplete line.");
    }
}
