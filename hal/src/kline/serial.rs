//! A K-line behind a UART whose transceiver joins the two data lines on one wire.
//!
//! The pulse of the fast initialisation is a zero byte whose nine low bits last as long as the pulse (25 ms:
//! 360 baud), so that the UART keeps the length, not the scheduler. If the UART has no such bit rate, and for
//! the 5-baud address, the break condition holds the line low, bit by bit. A pseudo-terminal has neither bit
//! times nor a break condition: there, both signals are bytes at those bit rates, which the other end can
//! read, and the echo marks their end.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{SerialPort, SerialPortBuilderExt, SerialStream};

use super::line::{ADDRESS_TIME, KLine, KLineError, KLineEvent, Signal, address_levels, byte_time};
use crate::system::borrow;
use crate::timer::{Deadline, TimerKind};

/// The bit rate until another one is set; every UART supports it.
const FIRST_BIT_RATE: u32 = 9600;
/// The bit rate of an address on a pseudo-terminal.
const ADDRESS_BIT_RATE: u32 = 5;
/// How late the echo of a slow byte may arrive after the byte's end: the latency of a USB adapter. The 25 ms
/// of high level in the fast initialisation allow no more.
const ECHO_TIME: Duration = Duration::from_millis(16);
/// How late the echo of a slow byte may arrive on a pseudo-terminal, where another process keeps the time:
/// that process may get no processor time for a while.
const PSEUDO_TERMINAL_ECHO_TIME: Duration = Duration::from_millis(500);
/// The major device numbers of pseudo-terminals (Linux, admin-guide/devices.txt).
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// A K-line behind a UART.
pub(super) struct SerialKLine {
    device: String,
    stream: SerialStream,
    is_pseudo_terminal: bool,
    bit_rate: u32,
    slow: Option<Slow>,
    /// A byte that the kernel's buffer had no room for.
    unsent: Option<u8>,
    deadline: Deadline,
}

/// A slow signal that is being transmitted.
#[derive(Debug)]
enum Slow {
    /// A byte at its own bit rate.
    Byte {
        byte: u8,
        /// When the byte's stop bit ends, according to its bit rate.
        over: Instant,
        /// When the byte counts as ended without an echo.
        give_up: Instant,
        /// The time to report as the end of the signal.
        end: Instant,
        is_echoed: bool,
    },
    /// Levels still to set, and the end of the signal.
    Levels { levels: VecDeque<(Instant, bool)>, end: Instant },
}

/// Distinguishes a busy device from a missing one: the library reports both as `NoDevice`.
fn io_error(error: tokio_serial::Error, path: &str) -> std::io::Error {
    if error.kind() == tokio_serial::ErrorKind::NoDevice && std::path::Path::new(path).exists() {
        return std::io::Error::new(std::io::ErrorKind::ResourceBusy, error);
    }
    error.into()
}

impl SerialKLine {
    /// Opens a serial device. Errors name `device`.
    pub(super) fn open(device: &str, path: &str) -> Result<Self, KLineError> {
        let failed = |source| KLineError::Device { device: device.to_owned(), source };
        let stream = tokio_serial::new(path, FIRST_BIT_RATE)
            .open_native_async()
            .map_err(|error| failed(io_error(error, path)))?;
        let status = rustix::fs::fstat(borrow(&stream)).map_err(|error| failed(error.into()))?;
        let is_pseudo_terminal = PSEUDO_TERMINALS.contains(&rustix::fs::major(status.st_rdev));
        Ok(Self {
            device: device.to_owned(),
            stream,
            is_pseudo_terminal,
            bit_rate: FIRST_BIT_RATE,
            slow: None,
            unsent: None,
            deadline: Deadline::new(TimerKind::Precise),
        })
    }

    fn lost(&self, source: impl Into<io::Error>) -> KLineError {
        KLineError::Device { device: self.device.clone(), source: source.into() }
    }

    /// Sets any bit rate; returns the bit rate that the driver actually set.
    fn set_speed(&self, bit_rate: u32) -> Result<u32, KLineError> {
        let set = || {
            let fd = borrow(&self.stream);
            let mut attributes = tcgetattr(fd)?;
            attributes.set_speed(bit_rate)?;
            tcsetattr(fd, OptionalActions::Now, &attributes)?;
            Ok(tcgetattr(fd)?.output_speed())
        };
        set().map_err(|error: rustix::io::Errno| self.lost(error))
    }

    fn write(&mut self, byte: u8) -> Result<(), KLineError> {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        match Pin::new(&mut self.stream).poll_write(&mut cx, &[byte]) {
            Poll::Ready(Ok(1..)) => Ok(()),
            Poll::Ready(Ok(0)) => Err(self.lost(io::ErrorKind::WriteZero)),
            Poll::Ready(Err(error)) => Err(self.lost(error)),
            // the next poll tries again and registers a waker
            Poll::Pending => {
                self.unsent = Some(byte);
                Ok(())
            }
        }
    }

    /// Sends a byte at another bit rate; returns false if the UART does not support that rate.
    fn transmit_slowly(&mut self, byte: u8, bit_rate: u32, low: Duration) -> Result<bool, KLineError> {
        if !is_near(self.set_speed(bit_rate)?, bit_rate, 3) {
            self.set_speed(self.bit_rate)?;
            return Ok(false);
        }
        self.write(byte)?;
        let start = Instant::now();
        let over = start + byte_time(bit_rate);
        let echo_time = if self.is_pseudo_terminal { PSEUDO_TERMINAL_ECHO_TIME } else { ECHO_TIME };
        self.slow =
            Some(Slow::Byte { byte, over, give_up: over + echo_time, end: start + low, is_echoed: false });
        Ok(true)
    }

    fn set_break(&self, is_low: bool) -> Result<(), KLineError> {
        let set = if is_low { self.stream.set_break() } else { self.stream.clear_break() };
        set.map_err(|error| self.lost(error))
    }

    fn transmit_levels(&mut self, levels: Vec<(Duration, bool)>, end: Duration) -> Result<(), KLineError> {
        let start = Instant::now();
        let levels = levels.into_iter().map(|(at, is_low)| (start + at, is_low)).collect();
        self.slow = Some(Slow::Levels { levels, end: start + end });
        self.drive_slow(start).map(|_| ())
    }

    /// Continues a slow signal; returns its end once it has ended.
    fn drive_slow(&mut self, now: Instant) -> Result<Option<Instant>, KLineError> {
        let end = match &mut self.slow {
            None => return Ok(None),
            Some(Slow::Byte { over, give_up, end, is_echoed, .. }) => {
                // on a pseudo-terminal another process keeps the time, and its echo marks the end
                let is_over = *is_echoed && (self.is_pseudo_terminal || *over <= now) || *give_up <= now;
                if !is_over {
                    return Ok(None);
                }
                let end = if self.is_pseudo_terminal { now } else { *end };
                self.set_speed(self.bit_rate)?;
                end
            }
            Some(Slow::Levels { levels, end }) => {
                let (mut due, end) = (None, *end);
                while levels.front().is_some_and(|(at, _)| *at <= now) {
                    due = levels.pop_front();
                }
                if let Some((_, is_low)) = due {
                    self.set_break(is_low)?;
                }
                if now < end {
                    return Ok(None);
                }
                end
            }
        };
        self.slow = None;
        Ok(Some(end))
    }

    fn poll_timeout(&self) -> Option<Instant> {
        match self.slow.as_ref()? {
            Slow::Byte { over, is_echoed: true, .. } => Some(*over),
            Slow::Byte { give_up, .. } => Some(*give_up),
            Slow::Levels { levels, end } => levels.front().map(|(at, _)| *at).or(Some(*end)),
        }
    }

    /// Whether a byte is the echo of a slow signal, or arrived during the signal.
    fn is_slow_echo(&mut self, now: Instant, received: u8) -> bool {
        match &mut self.slow {
            Some(Slow::Byte { byte, is_echoed, over, .. }) => {
                let is_echo = received == *byte && !*is_echoed;
                *is_echoed |= is_echo;
                if !is_echo && *over <= now {
                    // the line has no echo, and this byte is already the ECU's answer
                    *is_echoed = true;
                    return false;
                }
                true
            }
            Some(Slow::Levels { .. }) => true,
            None => false,
        }
    }
}

/// Whether a bit rate differs from the wanted one by at most `percent`.
fn is_near(actual: u32, wanted: u32, percent: u32) -> bool {
    u64::from(actual.abs_diff(wanted)) * 100 <= u64::from(wanted) * u64::from(percent)
}

impl KLine for SerialKLine {
    fn device(&self) -> &str {
        &self.device
    }

    fn set_bit_rate(&mut self, bit_rate: u32) -> Result<(), KLineError> {
        let actual = self.set_speed(bit_rate)?;
        if !is_near(actual, bit_rate, 2) {
            let what = format!("send at {bit_rate} baud, only at {actual}");
            return Err(KLineError::Unsupported { device: self.device.clone(), what });
        }
        self.bit_rate = bit_rate;
        // bytes received at another bit rate are meaningless
        tcflush(borrow(&self.stream), QueueSelector::IFlush).map_err(|error| self.lost(error))
    }

    fn transmit(&mut self, signal: Signal) -> Result<(), KLineError> {
        match signal {
            Signal::Byte(byte) => self.write(byte),
            Signal::Pulse(low) => {
                // the low bits are the start bit and eight zeros
                let nanoseconds = u64::try_from(low.as_nanos()).unwrap_or(u64::MAX).max(1);
                let bit_rate = u32::try_from(9_000_000_000 / nanoseconds).unwrap_or(u32::MAX).max(1);
                if self.transmit_slowly(0, bit_rate, low)? {
                    return Ok(());
                }
                self.transmit_levels(vec![(Duration::ZERO, true), (low, false)], low)
            }
            Signal::Address(address) if self.is_pseudo_terminal => {
                self.transmit_slowly(address, ADDRESS_BIT_RATE, ADDRESS_TIME).map(|_| ())
            }
            Signal::Address(address) => self.transmit_levels(address_levels(address), ADDRESS_TIME),
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<KLineEvent, KLineError>> {
        loop {
            if let Some(byte) = self.unsent
                && let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, &[byte])
            {
                self.unsent = None;
                written.map_err(|error| self.lost(error))?;
            }
            // first end the due signal: after a late wake-up, the ECU's answer must not count as an echo
            if let Some(at) = self.drive_slow(Instant::now())? {
                return Poll::Ready(Ok(KLineEvent::Sent { at }));
            }
            let mut byte = [0];
            let mut buffer = ReadBuf::new(&mut byte);
            if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                read.map_err(|error| self.lost(error))?;
                let Some(&byte) = buffer.filled().first() else {
                    return Poll::Ready(Err(self.lost(io::ErrorKind::UnexpectedEof)));
                };
                let at = Instant::now();
                if !self.is_slow_echo(at, byte) {
                    return Poll::Ready(Ok(KLineEvent::Received { byte, at }));
                }
                continue;
            }
            self.deadline.set(self.poll_timeout());
            if self.deadline.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    }
}

impl Drop for SerialKLine {
    /// Releases the line: a line that stays low blocks every other node.
    fn drop(&mut self) {
        if matches!(self.slow, Some(Slow::Levels { .. })) {
            let _device_is_gone = self.set_break(false);
        }
    }
}
