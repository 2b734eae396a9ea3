//! K-lines (ISO 9141-2, ISO 14230-1): one wire on which every node receives every byte, even its own.
//!
//! A node transmits bytes at the line's bit rate, or one of the two slow signals that wake an ECU. The device
//! keeps the bit times within a signal; the protocol keeps the times between signals.

mod device;
mod line;
mod serial;
#[cfg(feature = "sim")]
pub mod sim;
mod slow_signal;

pub use device::{DEVICE_PREFIX, OpeningKLine, device_path, open};
pub use line::{ADDRESS_BIT, ADDRESS_TIME, KLine, KLineError, KLineEvent, Signal, byte_time};
