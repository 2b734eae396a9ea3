//! A K-line behind a UART whose transceiver joins the two data lines on one wire.
//!
//! The pulse of the fast initialisation is a zero byte whose nine low bits last as long as the pulse (25 ms:
//! 360 baud), so that the UART keeps the length, not the scheduler. If the UART has no such bit rate, and for
//! the 5-baud address, the break condition holds the line low, bit by bit. A pseudo-terminal has neither bit
//! times nor a break condition: there, both signals are bytes at those bit rates, which the other end can
//! read, and the echo marks their end.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{SerialPort, SerialPortBuilderExt, SerialStream};

use super::line::{ADDRESS_TIME, KLine, KLineError, KLineEvent, Signal, address_levels};
use super::slow_signal::{SlowSignal, SlowStep};
use crate::system::borrow;
use crate::timer::{Deadline, TimerKind};

/// The bit rate until another one is set; every UART supports it.
const FIRST_BIT_RATE: u32 = 9600;
/// The bit rate of an address on a pseudo-terminal.
const ADDRESS_BIT_RATE: u32 = 5;
/// The major device numbers of pseudo-terminals (Linux, admin-guide/devices.txt).
const PSEUDO_TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// A K-line behind a UART.
pub(super) struct SerialKLine {
    device: String,
    stream: SerialStream,
    is_pseudo_terminal: bool,
    bit_rate: u32,
    slow: Option<SlowSignal>,
    /// A byte that the kernel's buffer had no room for.
    unsent: Option<u8>,
    deadline: Deadline,
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
        self.slow = Some(SlowSignal::byte(byte, bit_rate, low, self.is_pseudo_terminal, Instant::now()));
        Ok(true)
    }

    fn set_break(&self, is_low: bool) -> Result<(), KLineError> {
        let set = if is_low { self.stream.set_break() } else { self.stream.clear_break() };
        set.map_err(|error| self.lost(error))
    }

    fn transmit_levels(&mut self, levels: Vec<(Duration, bool)>, end: Duration) -> Result<(), KLineError> {
        let start = Instant::now();
        self.slow = Some(SlowSignal::levels(levels, end, start));
        self.process_slow(start).map(|_| ())
    }

    /// Continues a slow signal; returns its end once it has ended.
    fn process_slow(&mut self, now: Instant) -> Result<Option<Instant>, KLineError> {
        while let Some(step) = self.slow.as_mut().and_then(|slow| slow.poll_step(now)) {
            match step {
                SlowStep::SetBreak(is_low) => self.set_break(is_low)?,
                SlowStep::End(at) => {
                    if let Some(SlowSignal::Byte(_)) = self.slow {
                        self.set_speed(self.bit_rate)?;
                    }
                    self.slow = None;
                    return Ok(Some(at));
                }
            }
        }
        Ok(None)
    }

    /// Writes a byte that the kernel's buffer had no room for.
    fn process_unsent(&mut self, cx: &mut Context<'_>) -> Result<(), KLineError> {
        if let Some(byte) = self.unsent
            && let Poll::Ready(written) = Pin::new(&mut self.stream).poll_write(cx, &[byte])
        {
            self.unsent = None;
            written.map_err(|error| self.lost(error))?;
        }
        Ok(())
    }

    /// The next received byte.
    fn poll_byte(&mut self, cx: &mut Context<'_>) -> Poll<Result<u8, KLineError>> {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
        read.map_err(|error| self.lost(error))?;
        let byte = buffer.filled().first().copied();
        Poll::Ready(byte.ok_or_else(|| self.lost(io::ErrorKind::UnexpectedEof)))
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
            self.process_unsent(cx)?;
            // first end the due signal: after a late wake-up, the ECU's answer must not count as an echo
            if let Some(at) = self.process_slow(Instant::now())? {
                return Poll::Ready(Ok(KLineEvent::Sent { at }));
            }
            if let Poll::Ready(byte) = self.poll_byte(cx) {
                let (byte, at) = (byte?, Instant::now());
                if self.slow.as_mut().is_some_and(|slow| slow.handle_byte(at, byte)) {
                    continue;
                }
                return Poll::Ready(Ok(KLineEvent::Received { byte, at }));
            }
            self.deadline.set(self.slow.as_ref().map(SlowSignal::poll_timeout));
            ready!(self.deadline.poll_expired(cx));
        }
    }
}

impl Drop for SerialKLine {
    /// Releases the line: a line that stays low blocks every other node.
    fn drop(&mut self) {
        if matches!(self.slow, Some(SlowSignal::Levels { .. })) {
            let _device_is_gone = self.set_break(false);
        }
    }
}
