//! ISO-TP, the transport protocol of diagnostics on CAN (ISO 15765-2), as pure state machines.
//!
//! [`Endpoint`] talks to one peer, in both directions at once. [`FunctionalEndpoint`] asks many ECUs at once by single
//! frames and puts their answers together, each by itself. [`NPdu`] is what one frame says.
//!
//! No I/O and no clock: frames and the time go in by `handle_*`, frames, events and the next deadline come out by
//! `poll_*`. The loop around an endpoint:
//!
//! 1. Hand each frame of `poll_transmit` to the bus, until there is none.
//! 2. Take each event of `poll_event`, until there is none.
//! 3. Wait for the bus, for a PDU to send, or for the moment `poll_timeout` tells.
//! 4. A frame of the bus goes into `handle_frame`. Each frame handed over in step 1 has one outcome, in the same order:
//!    `handle_transmitted` or `handle_transmit_failed`; bus off is the outcome of all of them at once. A PDU goes into
//!    `send`. When the moment has come, call `handle_timeout`. Then begin again.
//!
//! What a bus can bring costs a bounded amount of memory: a PDU's buffer grows with what came, up to the configured
//! bound; segmented answers to a functional request are limited in number; frames that come while events pile up unread
//! are dropped, as if the bus had lost them; and no frames are given out while many have no outcome.

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
