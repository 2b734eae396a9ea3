//! ISO-TP, the transport protocol of diagnostics on CAN (ISO 15765-2), as pure state machines.
//!
//! No I/O and no clock: frames and the time go in by `handle_*`, frames, events and the next deadline come out by
//! `poll_*`. After every `handle_*` or `send`, call `poll_transmit` until it gives nothing, then `poll_event` until it
//! gives nothing, then look at `poll_timeout` again.
//!
//! [`Endpoint`] talks to one peer, in both directions at once. [`FunctionalEndpoint`] asks many ECUs at once by single
//! frames and puts their answers together, each by itself. [`NPdu`] is what one frame says.

mod address;
mod config;
mod endpoint;
mod event;
mod frame;
mod functional;
mod in_flight;
mod pci;
mod receiver;
mod sender;
#[cfg(test)]
mod tests;

pub use address::{Addressing, physical_request_id};
pub use config::{Config, DEFAULT_MAX_PDU, FrameSize, FrameSizeError, Padding, SeparationTime, Timeouts};
pub use endpoint::Endpoint;
pub use event::{Event, ReceiveFailure, SendError, SendFailure, Timer};
pub use functional::{DEFAULT_MAX_ANSWER, FunctionalConfig, FunctionalEndpoint, Responders};
pub use pci::{FlowStatus, NPdu, NPduError};
