//! The audit: entries about refusals, consent and programming, and the chain of their lines.
//!
//! Entries never have the data of requests. They have the service and its identifiers, and the length of the rest; a
//! long rest is named by its SHA-256. Requests of SecurityAccess and Authentication have no hash at all: a key can be
//! short enough to be guessed from it.

mod chain;
mod entry;
mod line;
mod programming;
mod queue;
mod refusals;
mod subject;

#[cfg(test)]
mod tests;

pub use chain::{AuditHash, ChainBreak, ChainCheck, ChainEnd, ChainFault, CheckedAuditFile};
pub use entry::{AuditEntry, AuditFacts};
pub use line::{AuditStamp, torn_line};

pub(super) use entry::{AuditConnection, AuditWhat, AuditedRefusal};
pub(super) use programming::ends_programming;
pub(super) use queue::Audit;
pub(super) use subject::{AuditSubject, RequestParts};
