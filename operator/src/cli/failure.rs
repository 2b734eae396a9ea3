//! Failures for technicians: the cause, advice, and an exit code for scripts.

use std::fmt;

use connector_agent::cli::clean;
use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::ProblemKind;

use crate::client::{CloseReason, DialError, ExchangeError, OperatorError, SendFailure};
use crate::flash::{FlashError, Step};
use crate::uds::describe_refusal;

/// The kind of a failure, which is the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FailureKind {
    /// A problem on this machine, such as an unreadable file.
    Local = 1,
    /// The cloud does not accept the login.
    Login = 3,
    /// The cloud is not reachable, or its answer is not valid.
    Cloud = 4,
    /// The ticket does not exist, or cannot be joined.
    Ticket = 5,
    /// The connector is offline, or the connection to the connector ended.
    Connector = 6,
    /// The vehicle or the ECU does not answer.
    Vehicle = 7,
    /// The ECU refused, or its answer is wrong.
    Refused = 8,
}

/// The exit codes, for `--help`.
pub(super) const EXIT_CODES: &str = "Exit codes:
  0  success
  1  a problem on this machine, such as an unreadable file
  2  wrong usage
  3  the cloud does not accept the login
  4  the cloud is not reachable
  5  the ticket does not exist, or cannot be joined
  6  the connector is offline, or the connection to it was lost
  7  the vehicle does not answer
  8  the ECU refused, or its answer is wrong";

const CHECK_IDENTIFIERS: &str =
    "check that the ignition is on, and that request and response identifier belong to the ECU";

/// A failure with advice for a technician.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    what: String,
    advice: String,
}

impl Failure {
    /// A failure from its cause and advice, both without a full stop. The cause may contain a text of the cloud or
    /// the connector, which cannot end the line.
    pub fn new(kind: FailureKind, what: impl AsRef<str>, advice: impl Into<String>) -> Self {
        Self { kind, what: clean(what.as_ref()), advice: advice.into() }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nWhat to do: {}.", self.what, self.advice)
    }
}

impl std::error::Error for Failure {}

/// The text of an error and of its sources.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        source = error.source();
    }
    text
}

impl From<OperatorError> for Failure {
    fn from(error: OperatorError) -> Self {
        use FailureKind::{Cloud, Connector, Local, Login};
        let (kind, advice) = match &error {
            OperatorError::Closed(reason) => return Self::from(reason.clone()),
            OperatorError::Tls(_) => (Local, "pass the cloud's certificate file with --ca-file"),
            OperatorError::Login(_) => (Login, "check --client-id and --client-secret"),
            OperatorError::Dial(DialError::Unauthorized) => {
                (Login, "check that the login belongs to an operator")
            }
            OperatorError::Dial(DialError::Url { .. }) => (Local, "correct --websocket-url"),
            OperatorError::Http { .. } | OperatorError::Dial(_) => {
                (Cloud, "check the cloud's address, that the cloud runs, and the network")
            }
            OperatorError::Answer { .. } => {
                (Cloud, "check that the address belongs to the cloud, and the cloud's version")
            }
            OperatorError::Timeout { .. } => {
                (Connector, "try again; if the failure persists, restart the connector")
            }
            OperatorError::Refused { problem, .. } => refusal_of(problem),
        };
        Self::new(kind, with_sources(&error), advice)
    }
}

/// The kind of failure, and the advice, for a problem that the cloud or the connector reported.
fn refusal_of(problem: &Problem) -> (FailureKind, &'static str) {
    use FailureKind::{Cloud, Connector, Refused, Ticket, Vehicle};
    match ProblemKind::of(problem) {
        Some(ProblemKind::RefusedByPolicy) => (Refused, "do what the connector asks for, and try again"),
        Some(ProblemKind::ConnectorOffline) => (
            Connector,
            "ask the customer to check that the connector is plugged in and its network light is on",
        ),
        Some(ProblemKind::WrongVehicle) => (
            Vehicle,
            "ask the customer to check that the connector is plugged into the vehicle of the ticket",
        ),
        Some(ProblemKind::ConnectionInUse) => (
            Ticket,
            "wait until the other operator has finished, or take the connection over with --take-over",
        ),
        Some(ProblemKind::UnknownPins | ProblemKind::Unsupported) => {
            (Vehicle, "select another bus with --pins and --bit-rate")
        }
        Some(ProblemKind::BusUnavailable) => {
            (Vehicle, "ask the customer to check the connector's adapter for this bus")
        }
        _ => match problem.status {
            403 => (Ticket, "check that the login belongs to an operator, and that the ticket is yours"),
            404 | 409 => (Ticket, "list the tickets with `tickets`"),
            500.. => (Cloud, "try again later"),
            _ => (Ticket, "correct the request"),
        },
    }
}

impl From<CloseReason> for Failure {
    fn from(reason: CloseReason) -> Self {
        use FailureKind::{Connector, Local, Ticket};
        let (kind, advice) = match &reason {
            CloseReason::LinkLost => (Connector, "check the network, and try again"),
            CloseReason::TakenOver => {
                (Ticket, "agree with the other operator; --take-over takes the connection back")
            }
            CloseReason::Remote(reason) => closed_by_other_side(reason),
            CloseReason::Refused(_) => (Connector, "start again from the beginning"),
            CloseReason::Overflow => (Local, "request fewer frames at a time"),
            CloseReason::Protocol(_) => (Connector, "update the older of the two"),
            CloseReason::Dropped => (Local, "try again"),
        };
        Self::new(kind, reason.describe(), advice)
    }
}

/// The kind of failure, and the advice, for a reason of the relay protocol.
fn closed_by_other_side(reason: &str) -> (FailureKind, &'static str) {
    use FailureKind::{Connector, Ticket, Vehicle};
    match reason {
        "link-lost" | "shutdown" => (Connector, "wait until the connector is online again, and try again"),
        "vehicle-lost" => (Vehicle, "ask the customer to plug the connector into the vehicle of the ticket"),
        "overflow" => (Connector, "request less data at a time, or fewer frames"),
        "policy" => {
            (Ticket, "list the tickets with `tickets`, and talk to the customer before you connect again")
        }
        _ => (Connector, "check the ticket with `tickets`, and try again"),
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        use FailureKind::{Refused, Vehicle};
        match error {
            ExchangeError::Closed(reason) => Self::from(reason),
            ExchangeError::Negative { service, code } => {
                let (why, advice) = describe_refusal(code);
                let what = format!("the ECU refused service 0x{service:02X} with 0x{code:02X}: {why}");
                Self::new(Refused, what, advice)
            }
            ExchangeError::ChainBroken { count, code } => {
                let why = match u8::try_from(code).unwrap_or_default() {
                    0 => "an earlier one had no response".to_owned(),
                    code => {
                        format!(
                            "the ECU refused an earlier one with 0x{code:02X}: {}",
                            describe_refusal(code).0
                        )
                    }
                };
                let what = format!("{count} requests were not sent, because {why}");
                Self::new(Refused, what, "start the procedure again from the beginning")
            }
            ExchangeError::NoResponse { .. } => {
                Self::new(Vehicle, "the ECU does not answer", CHECK_IDENTIFIERS)
            }
            ExchangeError::ReceiveFailed(_) => {
                let advice = "try again; if the failure persists, check the vehicle's wiring";
                Self::new(Vehicle, error.to_string(), advice)
            }
            ExchangeError::NotSent(failure) => not_sent(&failure),
        }
    }
}

/// The failure for a `send-failed`.
fn not_sent(failure: &SendFailure) -> Failure {
    use FailureKind::{Connector, Refused, Vehicle};
    let text = failure.to_string();
    // a refusal of the policy ends with its remedy
    if failure.is_by_policy()
        && let Some((why, remedy)) = text.rsplit_once("; ")
    {
        return Failure::new(Refused, format!("the request did not reach the ECU: {why}"), clean(remedy));
    }
    let (kind, advice) = match failure.detail {
        1 => (Vehicle, CHECK_IDENTIFIERS),
        2 => (Vehicle, "send less data at a time"),
        3 => (Vehicle, "check the vehicle's wiring, and that --bit-rate is the bit rate of the bus"),
        4 => (
            Vehicle,
            "check that the connector is plugged in, that the ignition is on, and --bit-rate and --pins",
        ),
        5 | 8 => (Connector, "try again when the network is better"),
        _ => (Connector, "check the request"),
    };
    Failure::new(kind, format!("the request did not reach the ECU: {text}"), advice)
}

impl From<FlashError> for Failure {
    fn from(error: FlashError) -> Self {
        let what = clean(&error.to_string());
        let (step, cause) = match error {
            FlashError::Step { step, source } => (Some(step), Self::from(source)),
            FlashError::Response { step, .. } => {
                let advice = "check that the firmware is made for this ECU";
                (Some(step), Self::new(FailureKind::Refused, "this violates ISO 14229", advice))
            }
            FlashError::Checksum => {
                let cause = Self::new(FailureKind::Refused, "the checksum differs", "flash again");
                (Some(Step::Check), cause)
            }
            FlashError::Size(_) => {
                let advice = "check that this is the right file";
                (None, Self::new(FailureKind::Local, "the file is empty or too long", advice))
            }
        };
        let state = match step {
            Some(step) if step.leaves_ecu_without_firmware() => {
                "\nThe ECU is without valid firmware now: leave the ignition on, and flash again before the vehicle is used."
            }
            Some(_) => "\nThe ECU's firmware was not changed.",
            None => "",
        };
        Self { what: format!("{what}: {}{state}", cause.what), ..cause }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_the_policy_shows_the_connectors_own_text_and_remedy() {
        let text = "policy: moving (12 km/h): ECUReset is refused; stop the vehicle and send again";
        let failure = |text: &str| {
            Failure::from(ExchangeError::NotSent(SendFailure { detail: 6, text: text.to_owned() }))
        };
        let refused = failure(text);
        assert_eq!(refused.exit_code(), 8);
        assert_eq!(
            refused.to_string(),
            "the request did not reach the ECU: policy: moving (12 km/h): ECUReset is refused\n\
             What to do: stop the vehicle and send again."
        );
        let vin = failure("the VIN is not read yet, and no programming service is sent before: send again");
        assert!(vin.to_string().contains("the VIN is not read yet"), "{vin}");
        assert!(failure("").to_string().contains("this channel does not allow this request"));
        let hostile = failure("policy: \u{1b}[2J; \u{1b}[2J").to_string();
        assert!(!hostile.contains('\u{1b}'), "{hostile}");
    }

    #[test]
    fn a_failure_shows_no_text_from_outside_as_it_is() {
        let hostile = format!("Busy\u{1b}[2J\r\nError: forged\u{202e}{}", "x".repeat(100_000));
        let problem = Problem::new(409, "busy", &hostile, hostile.clone());
        let failures = [
            Failure::from(OperatorError::Refused { what: hostile.clone(), problem: problem.clone() }),
            Failure::from(OperatorError::Login(problem.clone())),
            Failure::from(OperatorError::Answer { what: "x", detail: hostile.clone() }),
            Failure::from(CloseReason::Refused(problem.clone())),
            Failure::from(CloseReason::Remote(hostile.clone())),
            Failure::from(CloseReason::Protocol(hostile)),
            Failure::from(ExchangeError::Closed(CloseReason::Refused(problem.clone()))),
            Failure::from(FlashError::Step {
                step: Step::Erase,
                source: ExchangeError::Closed(CloseReason::Refused(problem)),
            }),
        ];
        for failure in failures {
            let text = failure.to_string();
            let lines: Vec<&str> = text.lines().collect();
            assert!(!lines.iter().any(|line| line.starts_with("Error: forged")), "{lines:?}");
            assert!(lines.last().is_some_and(|line| line.starts_with("What to do: ")), "{lines:?}");
            assert!(text.len() < 4_000 && !text.contains(['\u{1b}', '\r', '\u{202e}']), "{text}");
        }
    }
}
