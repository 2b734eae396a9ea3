//! Errors for technicians: what happened, what to do, and an exit code for scripts.

use std::fmt;

use super::client::{CloseReason, DialError, ExchangeError, OperatorError, describe_send_failure};
use super::flash::FlashError;
use super::uds::describe_refusal;

/// What kind of failure it is: the exit code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FailureKind {
    /// Something on this machine, such as a file that cannot be read.
    Local = 1,
    /// The login is wrong.
    Login = 3,
    /// The cloud cannot be reached, or what it says makes no sense.
    Cloud = 4,
    /// There is no such ticket, or it cannot be joined.
    Ticket = 5,
    /// The connector is offline, or the connection to it is over.
    Connector = 6,
    /// The vehicle or the ECU does not answer.
    Vehicle = 7,
    /// The ECU refused, or its answer is wrong.
    Refused = 8,
}

/// The exit codes, for `--help`.
pub const EXIT_CODES: &str = "Exit codes:
  0  done
  1  something on this machine, such as a file that cannot be read
  2  wrong usage
  3  the cloud does not accept the login
  4  the cloud cannot be reached
  5  no such ticket, or it cannot be joined
  6  the connector is offline, or the connection to it was lost
  7  the vehicle does not answer
  8  the ECU refused, or its answer is wrong";

/// A failure that a technician can do something about.
#[derive(Debug)]
pub struct Failure {
    kind: FailureKind,
    what: String,
    advice: String,
}

impl Failure {
    /// A failure: what happened, without a full stop, and what to do.
    pub fn new(kind: FailureKind, what: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { kind, what: what.into(), advice: advice.into() }
    }

    /// The exit code.
    pub fn exit_code(&self) -> u8 {
        self.kind as u8
    }

    /// The same, saying first what was being done.
    #[must_use]
    pub fn while_doing(self, doing: &str) -> Self {
        Self { what: format!("{doing}: {}", self.what), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}\nWhat to do: {}.", self.what, self.advice)
    }
}

impl std::error::Error for Failure {}

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
        use FailureKind::{Cloud, Connector, Local, Login, Ticket, Vehicle};
        let what = with_sources(&error);
        let unreachable = "check that the cloud runs, its address, and the network between";
        match &error {
            OperatorError::Tls(_) => {
                Self::new(Local, what, "name the cloud's certificate file with --ca-file")
            }
            OperatorError::Login(_) => Self::new(Login, what, "check --client-id and --client-secret"),
            OperatorError::Dial(DialError::Unauthorized) => {
                Self::new(Login, what, "check that this login is an operator's")
            }
            OperatorError::Dial(DialError::Url { .. }) => Self::new(Local, what, "correct --websocket-url"),
            OperatorError::Http { .. } | OperatorError::Dial(_) => Self::new(Cloud, what, unreachable),
            OperatorError::Answer { .. } => {
                Self::new(Cloud, what, "check that the address is that of the cloud, and its version")
            }
            OperatorError::Timeout { .. } => {
                Self::new(Connector, what, "try again; if it stays so, restart the connector")
            }
            OperatorError::Closed(reason) => Self::from(reason.clone()),
            OperatorError::Refused { problem, .. } => match problem.kind.as_str() {
                "/problems/connector-offline" => Self::new(
                    Connector,
                    what,
                    "have somebody check that the connector is plugged in and its network light is on",
                ),
                "/problems/wrong-vehicle" => Self::new(
                    Vehicle,
                    what,
                    "have somebody check that the connector is in the vehicle that the ticket is for",
                ),
                "/problems/unknown-pins" | "/problems/unsupported" => {
                    Self::new(Vehicle, what, "choose another bus with --pins and --bit-rate")
                }
                "/problems/bus-unavailable" => {
                    Self::new(Vehicle, what, "have somebody check the connector's adapter for this bus")
                }
                _ => match problem.status {
                    403 => Self::new(
                        Ticket,
                        what,
                        "check that this login is an operator's, and the ticket yours",
                    ),
                    404 | 409 => Self::new(Ticket, what, "list what there is with the subcommand `tickets`"),
                    500.. => Self::new(Cloud, what, "try again later"),
                    _ => Self::new(Ticket, what, "correct the request"),
                },
            },
        }
    }
}

impl From<CloseReason> for Failure {
    fn from(reason: CloseReason) -> Self {
        use FailureKind::{Connector, Local, Ticket, Vehicle};
        let (kind, what, advice) = match &reason {
            CloseReason::LinkLost => (
                Connector,
                "the link was lost and did not come back in time",
                "wait for the network, and try again",
            ),
            CloseReason::Remote(reason) => match reason.as_str() {
                "link-lost" => (
                    Connector,
                    "the connector's link was lost and did not come back in time",
                    "wait until the connector is online again, and try again",
                ),
                "vehicle-lost" => (
                    Vehicle,
                    "another vehicle is at the connector now, or none",
                    "have somebody plug the connector into the vehicle that the ticket is for",
                ),
                "shutdown" => (Connector, "the connector was switched off", "wait until it is online again"),
                "overflow" => (
                    Connector,
                    "the vehicle sent more than the network could take away",
                    "ask for less at a time, or for fewer frames",
                ),
                "policy" => {
                    (Ticket, "the ticket is not in progress any more", "list the tickets with `tickets`")
                }
                _ => (
                    Connector,
                    "the connection was closed by the other side",
                    "check the ticket with `tickets`, and try again",
                ),
            },
            CloseReason::Refused(_) => (
                Connector,
                "the connection could not be taken up again after the link was lost",
                "try again from the beginning",
            ),
            CloseReason::Overflow => {
                (Local, "this program did not keep up with the vehicle", "ask for fewer frames at a time")
            }
            CloseReason::Protocol(_) => (
                Connector,
                "connector and operator do not understand each other",
                "update whichever is older",
            ),
            CloseReason::Dropped => (Local, "this program has closed the connection", "try again"),
        };
        let what = match reason {
            CloseReason::Refused(problem) => format!("{what} ({problem})"),
            CloseReason::Protocol(detail) => format!("{what} ({detail})"),
            _ => what.to_owned(),
        };
        Self::new(kind, what, advice)
    }
}

impl From<ExchangeError> for Failure {
    fn from(error: ExchangeError) -> Self {
        use FailureKind::{Connector, Refused, Vehicle};
        match error {
            ExchangeError::Closed(reason) => Self::from(reason),
            ExchangeError::Negative { service, code } => {
                let (why, advice) = describe_refusal(code);
                let what = format!("the ECU refused service 0x{service:02X} with 0x{code:02X}: {why}");
                Self::new(Refused, what, advice)
            }
            ExchangeError::ChainBroken { count, code } => {
                let why = match u8::try_from(code).unwrap_or_default() {
                    0 => "one before them had no answer".to_owned(),
                    code => {
                        format!("one before them was refused with 0x{code:02X}: {}", describe_refusal(code).0)
                    }
                };
                let what = format!("{count} requests were not sent, because {why}");
                Self::new(Refused, what, "begin the procedure anew")
            }
            ExchangeError::NoResponse { .. } => Self::new(
                Vehicle,
                "the ECU does not answer",
                "check ignition on, and that request and response identifier are the ECU's",
            ),
            ExchangeError::ReceiveFailed(_) => {
                Self::new(Vehicle, error.to_string(), "try again; if it stays so, check the vehicle's wiring")
            }
            ExchangeError::NotSent(detail) => {
                let what = format!("the request did not get to the ECU: {}", describe_send_failure(detail));
                let (kind, advice) = match detail {
                    1 => {
                        (Vehicle, "check ignition on, and that request and response identifier are the ECU's")
                    }
                    3 => (Vehicle, "check the vehicle's wiring, and that --bit-rate is the bus's"),
                    4 => (
                        Vehicle,
                        "check that the connector is plugged in, ignition on, and --bit-rate and --pins",
                    ),
                    2 => (Vehicle, "send less at a time"),
                    5 | 8 => (Connector, "try again when the network is better"),
                    _ => (Connector, "check the request"),
                };
                Self::new(kind, what, advice)
            }
        }
    }
}

impl From<FlashError> for Failure {
    fn from(error: FlashError) -> Self {
        let what = error.to_string();
        let (step, cause) = match error {
            FlashError::Step { step, source } => (Some(step), Self::from(source)),
            FlashError::Response { step, .. } => {
                let advice = "check that the firmware and the ECU belong together";
                (Some(step), Self::new(FailureKind::Refused, "the answer is not as ISO 14229 has it", advice))
            }
            FlashError::Checksum => {
                let cause = Self::new(FailureKind::Refused, "its checksum is another one", "flash again");
                (Some(super::flash::Step::Check), cause)
            }
            FlashError::Size(_) => {
                let advice = "check that it is the right file";
                (None, Self::new(FailureKind::Local, "it is empty, or too long", advice))
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
