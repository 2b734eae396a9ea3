//! TP2.0, the transport protocol of the Volkswagen group's older ECUs on CAN (SAE J2819), as pure state machines.
//!
//! Other than ISO-TP it is connected: a [`Channel`] to an ECU is set up on identifier 0x200, its parameters are agreed
//! upon, it is tested while nobody speaks, and it is disconnected at the end. [`Connection`] is the part of it that both
//! sides have in common once identifiers are agreed upon.
//!
//! The contract is that of the [`isotp`](crate::protocol::isotp) module: frames and the time go in by `handle_*`, frames, events
//! and the next deadline come out by `poll_*`, and every frame given out has one outcome, in order.
//!
//! What a bus can bring costs a bounded amount of memory: a PDU's buffer grows with what came, up to 32 KiB; frames that
//! come while events pile up unread are dropped, so that the ECU sends them again; and no frames are given out while many
//! have no outcome.
//!
//! The standard is not public. What is here follows descriptions and traces that are (<https://jazdw.net/tp20>,
//! <https://icanhack.nl/knowledge-base/diagnostics/vw-tp20/>, and those named in the tests).

mod channel;
mod config;
mod connection;
mod event;
mod receiver;
mod sender;
mod setup;
mod time;
mod tpdu;

#[cfg(test)]
mod tests;

pub use channel::Channel;
pub use config::{ChannelConfig, ConnectionConfig, LogicalAddress, LogicalAddressError, MAX_PDU, Opening};
pub use connection::Connection;
pub use event::{CloseReason, Event, ReceiveFailure, SendError, Timer};
pub use setup::{APPLICATION_DIAGNOSTICS, Refusal, SETUP_ID, SetupMessage, SetupOpcode};
pub use time::TimeByte;
pub use tpdu::{Parameters, Tpdu, TpduError};
