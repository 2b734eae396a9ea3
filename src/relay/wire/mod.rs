//! The wire, `connector-relay.v1`: the messages between connector, cloud and operator.

mod closed_message;
pub mod codec;
mod envelope;
mod number;
mod problem_kind;
pub mod request;

pub use closed_message::CloseReason;
pub(crate) use closed_message::ConnectionClosed;
pub use envelope::Envelope;
pub use problem_kind::ProblemKind;
