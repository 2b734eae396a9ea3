//! The meeting point of the websockets: the online connectors, and the connections between them and
//! operators.
//!
//! All operations run under one short lock and never wait. An operation that needs room in a socket's queue
//! returns the message to its caller, which waits in its own task, so that no connection delays another.

mod connector;
mod deadline;
mod joining;
mod link;
mod outbox;
mod pending;
mod relay;
mod reporting;
mod route;
mod state;

pub(crate) use connector::{Hello, Status};
pub(crate) use outbox::{Closing, Outbox};
pub(crate) use relay::{Join, RelayPlan, RelayStage, unknown_connection};
pub(crate) use reporting::Watcher;
pub(crate) use route::{problem_of, unknown_action};
pub(crate) use state::{Changed, EventKind, Hub};
