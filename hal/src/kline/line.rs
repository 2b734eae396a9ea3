//! A K-line: its signals, events, errors and bit times.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::bus::bit_time;

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

/// The levels of a byte at 5 baud: for each change, when it is, counted from the start, and whether the line is low
/// then; the line is high at the end, after 2 s.
pub(crate) fn address_levels(address: u8) -> Vec<(Duration, bool)> {
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
    bit_time(10, bit_rate)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
