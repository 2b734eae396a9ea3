//! K-line diagnostics (ISO 14230, KWP2000), as pure state machines.
//!
//! An [`Endpoint`] is the communication with one ECU. Several endpoints can share a line; a [`LineClock`]
//! records when the line was last used. [`Decoder`] and [`encode`] convert between messages and bytes.

mod config;
mod endpoint;
mod event;
mod heard;
mod key_bytes;
mod line;
mod message;
mod receiver;
mod timing;
mod transmitter;

pub(crate) use config::OBD_FUNCTIONAL_ADDRESS;
pub use config::{Addressing, Config, Initialisation};
pub use endpoint::Endpoint;
pub use event::{Event, Failure, ReceiveFailure, SendError, Timer};
pub use heard::Heard;
pub use key_bytes::{KeyByteError, KeyBytes};
pub use line::LineClock;
pub use message::{AddressMode, Decoder, HeaderForm, LengthForm, Message, MessageError, TooLong, encode};
