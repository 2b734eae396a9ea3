//! K-lines (ISO 9141-2, ISO 14230-1): one wire on which every node hears every byte, its own too.
//!
//! What a node puts on the line is a byte at the line's bit rate, or one of the two slow signals that wake an ECU. The
//! interface keeps the bit times of all of them; the times between them are the protocol's.

mod serial;
#[cfg(feature = "sim")]
pub mod sim;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::future::BoxFuture;

pub use serial::SerialKLine;

/// How command line and reports tell a K-line's device from a CAN one.
pub const DEVICE_PREFIX: &str = "kline:";

/// What is put on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A byte at the bit rate that is set: a start bit, eight data bits, a stop bit.
    Byte(u8),
    /// A low level for so long (the fast initialisation's T_iniL).
    Pulse(Duration),
    /// A byte at 5 baud (the slow initialisation's address).
    Address(u8),
}

/// What happened on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KLineEvent {
    /// A byte was on the line: another node's, or the echo of ours.
    Received {
        /// The byte.
        byte: u8,
        /// When it was read.
        at: Instant,
    },
    /// A [`Signal::Pulse`] or [`Signal::Address`] of ours is over. Its echo is not received as bytes.
    Sent {
        /// When the pulse's low level ended, or the address' stop bit.
        at: Instant,
    },
}

/// What can go wrong with an interface.
#[derive(Debug, thiserror::Error)]
pub enum KLineError {
    /// The device is not there, or went away.
    #[error("K-line device {device}: {source}")]
    Device {
        /// The device as the configuration names it.
        device: String,
        /// Why.
        source: std::io::Error,
    },
    /// The UART cannot do what was asked of it.
    #[error("K-line device {device} cannot {what}")]
    Unsupported {
        /// The device as the configuration names it.
        device: String,
        /// What was asked, as a verb phrase: `send at 10400 baud`.
        what: String,
    },
    /// The text is no device name.
    #[error("`{0}` names no K-line device; write /dev/ttyUSB0 or kline:/dev/ttyUSB0")]
    Name(String),
}

/// A K-line, opened, owned by one task.
pub trait KLine: Send {
    /// The device's name as the configuration spells it.
    fn device(&self) -> &str;

    /// Sets the line's bit rate, in bit/s; an error where the UART cannot do it within 2 %.
    fn set_bit_rate(&mut self, bit_rate: u32) -> Result<(), KLineError>;

    /// Puts this on the line now; to be called only when what was put there before has come back, as echo or as
    /// [`KLineEvent::Sent`], or will not come any more.
    fn transmit(&mut self, signal: Signal) -> Result<(), KLineError>;

    /// The next event; after a [`KLineError::Device`], only dropping the line and opening it again helps.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<KLineEvent, KLineError>>;
}

/// The path of a device that is named `kline:/dev/ttyUSB0`, or by its path alone.
pub fn device_path(name: &str) -> Result<&str, KLineError> {
    let path = name.strip_prefix(DEVICE_PREFIX).unwrap_or(name);
    let is_path = path.contains('/') && !path.starts_with("slcan:") && !path.starts_with("socketcan:");
    if is_path { Ok(path) } else { Err(KLineError::Name(name.to_owned())) }
}

/// Opens a K-line by its device's name, within a tokio runtime. Errors: no such name, no such device, no permission.
pub fn open(name: &str) -> Result<Box<dyn KLine>, KLineError> {
    Ok(Box::new(SerialKLine::open(name, device_path(name)?)?))
}

/// How opening a K-line later looks to those who must not wait.
pub type OpeningKLine = BoxFuture<'static, Result<Box<dyn KLine>, KLineError>>;

/// The levels of a byte at 5 baud: for each change, when it is, counted from the start, and whether the line is low
/// then; the line is high at the end, after 2 s.
pub fn address_levels(address: u8) -> Vec<(Duration, bool)> {
    let mut levels = vec![(Duration::ZERO, true)];
    for bit in 0..=8 {
        // the stop bit is a high one
        let is_low = bit < 8 && address >> bit & 1 == 0;
        if levels.last().is_none_or(|(_, before)| *before != is_low) {
            levels.push((ADDRESS_BIT * (bit + 1), is_low));
        }
    }
    levels
}

/// A bit at 5 baud.
pub const ADDRESS_BIT: Duration = Duration::from_millis(200);
/// A byte at 5 baud.
pub const ADDRESS_TIME: Duration = Duration::from_secs(2);

/// How long a byte takes with its start and stop bits, at this bit rate in bit/s.
pub fn byte_time(bit_rate: u32) -> Duration {
    crate::bus::bit_time(10, bit_rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_by_its_path_with_or_without_the_kind() {
        assert_eq!(device_path("kline:/dev/ttyUSB0").unwrap(), "/dev/ttyUSB0");
        assert_eq!(device_path("/dev/ttyS1").unwrap(), "/dev/ttyS1");
        for wrong in ["", "kline:", "can0", "slcan:/dev/ttyACM0"] {
            assert!(matches!(device_path(wrong), Err(KLineError::Name(_))), "{wrong}");
        }
    }

    #[test]
    fn an_address_is_sent_least_significant_bit_first() {
        // 0x33: 0 | 1 1 0 0 1 1 0 0 | 1
        let milliseconds: Vec<_> =
            address_levels(0x33).into_iter().map(|(at, low)| (at.as_millis(), low)).collect();
        assert_eq!(
            milliseconds,
            [(0, true), (200, false), (600, true), (1000, false), (1400, true), (1800, false)]
        );
        assert_eq!(address_levels(0xFF), [(Duration::ZERO, true), (ADDRESS_BIT, false)]);
        assert_eq!(address_levels(0x00), [(Duration::ZERO, true), (9 * ADDRESS_BIT, false)]);
    }

    #[tokio::test]
    async fn an_absent_device_is_named_as_it_was_given() {
        let error = open("kline:/dev/nowhere").err().unwrap();
        assert!(error.to_string().starts_with("K-line device kline:/dev/nowhere: "), "{error}");
    }
}
