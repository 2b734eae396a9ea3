//! The gRPC status of each failure, with a sentence. Pure.

use connector_agent::cli::clean;
use connector_agent::protocol::problem::Problem;
use connector_agent::relay::wire::codec::{EventCode, SendFailedDetail};
use tonic::{Code, Status};

use super::contexts::ContextError;
use super::mapping::MappingError;
use super::registry::{RegistryError, State};
use crate::client::{CloseReason, ExchangeError, Item, OperatorError, SendFailure, failure};

/// The detail of `bus-state` for a bus that is off.
const OFF: u16 = 2;

impl From<RegistryError> for Status {
    fn from(error: RegistryError) -> Self {
        let code = match &error {
            RegistryError::Token(_) => Code::Unauthenticated,
            RegistryError::Context(error) => return error.clone().into(),
            RegistryError::NoSession(_) => Code::NotFound,
            RegistryError::Over(State::Interrupted) => Code::Aborted,
            RegistryError::Over(State::Failed) => Code::Unavailable,
            RegistryError::Over(_) => Code::FailedPrecondition,
            RegistryError::Full => Code::ResourceExhausted,
        };
        Self::new(code, clean(&error.to_string()))
    }
}

impl From<ContextError> for Status {
    fn from(error: ContextError) -> Self {
        let code = match &error {
            ContextError::NoVariable(_) | ContextError::NoDetails => Code::NotFound,
            ContextError::NoKey | ContextError::NoValue(_) | ContextError::NoScope => Code::InvalidArgument,
            ContextError::Full | ContextError::TooDeep => Code::ResourceExhausted,
            ContextError::Finished | ContextError::NoCall => Code::FailedPrecondition,
        };
        Self::new(code, clean(&error.to_string()))
    }
}

impl From<MappingError> for Status {
    fn from(error: MappingError) -> Self {
        Self::invalid_argument(clean(&error.to_string()))
    }
}

/// The status for a problem of the cloud or the connector.
fn code_of(problem: &Problem) -> Code {
    match problem.status {
        400 | 422 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        403 => Code::PermissionDenied,
        404 => Code::NotFound,
        409 => Code::FailedPrecondition,
        429 => Code::ResourceExhausted,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        504 => Code::DeadlineExceeded,
        _ => Code::Internal,
    }
}

impl From<OperatorError> for Status {
    fn from(error: OperatorError) -> Self {
        let code = match &error {
            OperatorError::Login(_) => Code::Unauthenticated,
            OperatorError::Timeout { .. } => Code::DeadlineExceeded,
            OperatorError::Answer { .. } => Code::Internal,
            OperatorError::Tls(_) | OperatorError::Http { .. } | OperatorError::Dial(_) => Code::Unavailable,
            OperatorError::Closed(reason) => return reason.clone().into(),
            OperatorError::Refused { problem, .. } => code_of(problem),
        };
        Self::new(code, clean(&error.to_string()))
    }
}

impl From<CloseReason> for Status {
    fn from(reason: CloseReason) -> Self {
        let code = match &reason {
            CloseReason::Overflow => Code::ResourceExhausted,
            CloseReason::TakenOver => Code::Aborted,
            CloseReason::Protocol(_) => Code::Internal,
            CloseReason::Remote(reason) => match reason.as_str() {
                "overflow" => Code::ResourceExhausted,
                "policy" => Code::PermissionDenied,
                _ => Code::Unavailable,
            },
            CloseReason::Refused(_) | CloseReason::LinkLost | CloseReason::Dropped => Code::Unavailable,
        };
        let sentence = format!("the connection to the vehicle has ended: {}", reason.describe());
        Self::new(code, clean(&sentence))
    }
}

fn code_of_failure(failure: &SendFailure) -> Code {
    match SendFailedDetail::from_wire(failure.detail) {
        Some(SendFailedDetail::FlowControlTimeout | SendFailedDetail::TooOld) => Code::DeadlineExceeded,
        Some(SendFailedDetail::FlowControlOverflow | SendFailedDetail::QueueFull) => Code::ResourceExhausted,
        Some(SendFailedDetail::BusOff | SendFailedDetail::NotAcknowledged) => Code::Unavailable,
        Some(SendFailedDetail::RefusedByPolicy) => Code::PermissionDenied,
        Some(SendFailedDetail::ChannelClosed) => Code::Aborted,
        None => Code::Unknown,
    }
}

impl From<ExchangeError> for Status {
    fn from(error: ExchangeError) -> Self {
        let code = match &error {
            ExchangeError::Closed(reason) => return reason.clone().into(),
            ExchangeError::NotSent(failure) => code_of_failure(failure),
            ExchangeError::ReceiveFailed(_) => Code::DataLoss,
            ExchangeError::NoResponse { .. } => Code::DeadlineExceeded,
            ExchangeError::Negative { .. } | ExchangeError::ChainBroken { .. } => Code::Aborted,
        };
        Self::new(code, clean(&error.to_string()))
    }
}

/// The status with which an event ends a channel's stream, or `None` if the stream goes on.
pub(super) fn status_of_event(item: &Item) -> Option<Status> {
    if let Some(error) = failure(item) {
        return Some(error.into());
    }
    match item {
        Item::Event { code: EventCode::BusState, detail: OFF, .. } => {
            Some(Status::unavailable("the bus is off: too many frames had errors"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(code: EventCode, detail: u16) -> Item {
        Item::Event { code, detail, value: 1, text: String::new() }
    }

    #[test]
    fn each_event_that_a_script_must_know_ends_the_stream_with_a_sentence() {
        for (code, detail, expected) in [
            (EventCode::SendFailed, 1, Code::DeadlineExceeded),
            (EventCode::SendFailed, 2, Code::ResourceExhausted),
            (EventCode::SendFailed, 3, Code::Unavailable),
            (EventCode::SendFailed, 4, Code::Unavailable),
            (EventCode::SendFailed, 5, Code::ResourceExhausted),
            (EventCode::SendFailed, 6, Code::PermissionDenied),
            (EventCode::SendFailed, 7, Code::Aborted),
            (EventCode::SendFailed, 8, Code::DeadlineExceeded),
            (EventCode::SendFailed, 99, Code::Unknown),
            (EventCode::ReceiveFailed, 1, Code::DataLoss),
            (EventCode::BusState, 2, Code::Unavailable),
            (EventCode::ChainBroken, 0x31, Code::Aborted),
        ] {
            let status = status_of_event(&event(code, detail)).unwrap();
            assert_eq!(status.code(), expected, "{code:?} {detail}");
            assert!(status.message().contains(' '), "{status:?}");
        }
        for (code, detail) in [
            (EventCode::Sent, 0),
            (EventCode::Gap, 0),
            (EventCode::BusState, 0),
            (EventCode::BusState, 1),
            (EventCode::KeepAliveFailed, 1),
        ] {
            assert!(status_of_event(&event(code, detail)).is_none(), "{code:?} {detail}");
        }
    }

    #[test]
    fn each_end_of_the_connection_has_its_status_and_its_sentence() {
        let remote = |reason: &str| CloseReason::Remote(reason.to_owned());
        for (reason, expected, sentence) in [
            (remote("closed"), Code::Unavailable, "the other side closed"),
            (remote("link-lost"), Code::Unavailable, "the connector's link was lost"),
            (remote("vehicle-lost"), Code::Unavailable, "at another vehicle"),
            (remote("policy"), Code::PermissionDenied, "the person at the vehicle ended"),
            (remote("overflow"), Code::ResourceExhausted, "the vehicle sent more"),
            (remote("shutdown"), Code::Unavailable, "switched off"),
            (CloseReason::TakenOver, Code::Aborted, "another operator"),
            (CloseReason::LinkLost, Code::Unavailable, "did not come back in time"),
            (CloseReason::Overflow, Code::ResourceExhausted, "did not keep up"),
            (CloseReason::Protocol("x".to_owned()), Code::Internal, "incompatible protocols (x)"),
        ] {
            let errors: [Status; 3] = [
                reason.clone().into(),
                OperatorError::Closed(reason.clone()).into(),
                ExchangeError::Closed(reason.clone()).into(),
            ];
            for status in errors {
                assert_eq!(status.code(), expected, "{reason:?}");
                assert!(status.message().contains(sentence), "{status:?}");
            }
        }
    }

    #[test]
    fn a_refused_request_has_the_status_of_its_problem() {
        for (status, expected) in [
            (400, Code::InvalidArgument),
            (401, Code::Unauthenticated),
            (403, Code::PermissionDenied),
            (404, Code::NotFound),
            (409, Code::FailedPrecondition),
            (429, Code::ResourceExhausted),
            (500, Code::Internal),
            (501, Code::Unimplemented),
            (503, Code::Unavailable),
            (504, Code::DeadlineExceeded),
        ] {
            let problem = Problem::new(status, "x", "Title", "Detail\u{1b}[2J".to_owned());
            let error = OperatorError::Refused { what: "openChannel".to_owned(), problem };
            let answer = Status::from(error);
            assert_eq!(answer.code(), expected);
            assert!(!answer.message().contains('\u{1b}'));
        }
    }
}
