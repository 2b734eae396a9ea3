//! ISO-TP, the transport protocol of diagnostics on CAN (ISO 15765-2), as pure state machines.
//!
//! [`Endpoint`] exchanges PDUs with one peer, in both directions simultaneously. [`FunctionalEndpoint`] sends
//! a request to many ECUs in a single frame and reassembles the answer of each ECU. [`NPdu`] is the content
//! of one frame. [`Endpoint`] describes how to drive an endpoint of either kind.
//!
//! Input from the bus uses a bounded amount of memory:
//!
//! - The buffer of a PDU grows with the received data, up to the configured maximum.
//! - A functional endpoint reassembles a limited number of answers simultaneously.
//! - An endpoint drops frames while many events wait to be polled, as if the bus had lost the frames.
//! - An endpoint returns no more frames while many frames have no outcome.

mod address;
mod config;
mod endpoint;
mod event;
mod frame;
mod functional;
mod in_flight;
mod pci;
mod receiver;
mod responders;
mod sender;
#[cfg(test)]
mod tests;

pub use address::{Addressing, physical_request_id};
pub use config::{Config, FrameSize, FrameSizeError, Padding, SeparationTime, Timeouts};
pub use endpoint::Endpoint;
pub use event::{Event, ReceiveFailure, SendError, SendFailure, Timer};
pub(crate) use functional::DEFAULT_MAX_ANSWER;
pub use functional::{FunctionalConfig, FunctionalEndpoint};
pub use pci::{FlowStatus, NPdu, NPduError};
pub use responders::{FlowControlAddress, Responder, Responders};
