//! TP2.0, the transport protocol of the Volkswagen group's older ECUs on CAN (SAE J2819), as pure state
//! machines.
//!
//! Unlike ISO-TP, TP2.0 is connected. A [`Channel`] to an ECU is set up on identifier 0x200, both sides
//! exchange their parameters, the channel is tested while no PDU is sent, and it is disconnected at the end.
//! [`Connection`] is one side of a channel whose identifiers are agreed; a channel of a tester contains one,
//! and a simulated ECU uses one directly.
//!
//! Input from the bus uses a bounded amount of memory:
//!
//! - The buffer of a PDU grows with the received data, up to 32 KiB.
//! - A channel drops data frames while many events wait to be polled; the ECU sends them again.
//! - A channel returns no more frames while many frames have no outcome.
//!
//! The standard is not public. This implementation follows public descriptions and traces
//! (<https://jazdw.net/tp20>, <https://icanhack.nl/knowledge-base/diagnostics/vw-tp20/>, and those named in
//! the tests).

mod channel;
mod config;
mod connection;
mod event;
mod presence;
mod receiver;
mod sender;
mod setup;
mod setup_exchange;
mod time;
mod tpdu;

#[cfg(test)]
mod tests;

pub use channel::Channel;
pub(crate) use config::APPLICATION_DIAGNOSTICS;
pub use config::{
    ChannelConfig, ConnectionConfig, LogicalAddress, LogicalAddressError, MAX_PDU, Opening, SETUP_ID,
};
pub use connection::Connection;
pub use event::{CloseReason, Event, ReceiveFailure, SendError, Timer};
pub use setup::{Refusal, SetupMessage, SetupOpcode};
pub use time::TimeByte;
pub use tpdu::{Parameters, Tpdu, TpduError};
