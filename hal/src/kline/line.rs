//! A K-line: its signals, events, errors and bit times.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::bus::bit_time;

/// A signal that a node transmits on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    /// A byte at the line's bit rate: a start bit, eight data bits, a stop bit.
    Byte(u8),
    /// A low level with this duration (T_iniL of the fast initialisation).
    Pulse(Duration),
    /// A byte at 5 baud (the address of the slow initialisation).
    Address(u8),
}

/// An event on the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KLineEvent {
    /// A byte was received from another node, or as the echo of our own byte.
    Received {
        /// The byte.
        byte: u8,
        /// When the byte was read.
        at: Instant,
    },
    /// Our [`Signal::Pulse`] or [`Signal::Address`] has ended. Its echo is not reported as received bytes.
    Sent {
        /// When the low level of the pulse or the stop bit of the address ended.
        at: Instant,
    },
}

/// An error of a K-line device.
#[derive(Debug, thiserror::Error)]
pub enum KLineError {
    /// The device does not exist or has gone away.
    #[error("K-line device {device}: {source}")]
    Device {
        /// The device as the configuration names it.
        device: String,
        /// The I/O error that caused this.
        source: std::io::Error,
    },
    /// The UART does not support the request.
    #[error("K-line device {device} cannot {what}")]
    Unsupported {
        /// The device as the configuration names it.
        device: String,
        /// The request, as a verb phrase: `send at 10400 baud`.
        what: String,
    },
    /// The text is not a device name.
    #[error("`{0}` is not a K-line device; write /dev/ttyUSB0 or kline:/dev/ttyUSB0")]
    Name(String),
}

/// An open K-line, owned by one task.
pub trait KLine: Send {
    /// The device's name as the configuration spells it.
    fn device(&self) -> &str;

    /// Sets the line's bit rate, in bit/s; an error if the UART cannot set it within 2 %.
    fn set_bit_rate(&mut self, bit_rate: u32) -> Result<(), KLineError>;

    /// Transmits a signal immediately. Call this only after the echo or [`KLineEvent::Sent`] of the signal
    /// before has arrived, or can no longer arrive.
    fn transmit(&mut self, signal: Signal) -> Result<(), KLineError>;

    /// The next event. After a [`KLineError::Device`], drop the line and open it again.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<KLineEvent, KLineError>>;
}

/// The levels of a byte at 5 baud. Each entry is a change: its time since the start, and whether the line
/// goes low. The byte ends after 2 s with the line high.
pub(crate) fn address_levels(address: u8) -> Vec<(Duration, bool)> {
    let mut levels = vec![(Duration::ZERO, true)];
    for bit in 0..=8 {
        // the stop bit is high
        let is_low = bit < 8 && address >> bit & 1 == 0;
        if levels.last().is_none_or(|(_, before)| *before != is_low) {
            levels.push((ADDRESS_BIT * (bit + 1), is_low));
        }
    }
    levels
}

/// The duration of a bit at 5 baud.
pub const ADDRESS_BIT: Duration = Duration::from_millis(200);
/// The duration of a byte at 5 baud.
pub const ADDRESS_TIME: Duration = Duration::from_secs(2);

/// The duration of a byte with its start and stop bits, at `bit_rate` bit/s.
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
