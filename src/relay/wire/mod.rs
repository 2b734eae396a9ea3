//! The wire, `connector-relay.v1`: the messages between connector, cloud and operator.

mod closed_message;
pub mod codec;
mod envelope;
mod number;
mod policy;
mod problem_kind;
pub mod request;
mod timestamp;

pub use closed_message::CloseReason;
pub(crate) use closed_message::ConnectionClosed;
pub use envelope::Envelope;
pub(crate) use policy::{PolicyReport, PolicyStateReport};
pub use problem_kind::ProblemKind;
pub use timestamp::rfc3339;
