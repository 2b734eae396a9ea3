//! K-line diagnostics, ISO 14230 (KWP 2000): one ECU's link on a line that several may share.
//!
//! [`Endpoint`] is a pure state machine, to be moved along like this, with the time as an argument:
//!
//! 1. [`Endpoint::send`] takes a PDU; [`Endpoint::connect`] has the link set up without one.
//! 2. When [`Endpoint::wants_line`] says so, and no other endpoint of the line is busy, [`Endpoint::start`] gives it the
//!    line, which it keeps until [`Endpoint::is_busy`] is over.
//! 3. While it is busy: [`Endpoint::poll_transmit`] gives what to put on the line, [`Endpoint::handle_byte`] and
//!    [`Endpoint::handle_sent`] take what happened there, [`Endpoint::handle_timeout`] when [`Endpoint::poll_timeout`]
//!    is due, in this order: bytes first, then time.
//! 4. [`Endpoint::poll_event`] says what came of it.
//!
//! The initialisation, the keep-alive and what an error does to the link are the endpoint's own affair. It repeats
//! nothing that the operator sent: a request whose answer was lost may have done its work.

mod config;
mod endpoint;
mod event;
mod key_bytes;
mod line;
mod message;
mod timing;
mod transmitter;

pub use config::{Addressing, Config, Initialisation, OBD_FUNCTIONAL_ADDRESS, TESTER_ADDRESS};
pub use endpoint::Endpoint;
pub use event::{Event, Failure, ReceiveFailure, SendError, Timer};
pub use key_bytes::{KeyByteError, KeyBytes};
pub use line::LineClock;
pub use message::{
    AddressMode, Decoder, HeaderForm, LengthForm, MAX_DATA, Message, MessageError, TooLong, encode,
};
pub use timing::Timing;
