//! K-lines (ISO 9141-2, ISO 14230-1): one wire on which every node hears every byte, its own too.
//!
//! What a node puts on the line is a byte at the line's bit rate, or one of the two slow signals that wake an ECU. The
//! interface keeps the bit times of all of them; the times between them are the protocol's.

mod device;
mod line;
mod serial;
#[cfg(feature = "sim")]
pub mod sim;

pub use device::{DEVICE_PREFIX, OpeningKLine, device_path, open};
pub use line::{ADDRESS_BIT, ADDRESS_TIME, KLine, KLineError, KLineEvent, Signal, byte_time};
