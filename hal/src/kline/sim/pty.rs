//! A pseudo-terminal as the interface to a simulated K-line: the host that opens it becomes a node of the
//! line.
//!
//! The host's bit rate is read from its terminal settings for every byte in either direction. A byte at up to
//! [`SLOW_BIT_RATE`] is a slow signal: at 5 baud it is an address; at other rates, a zero byte is a pulse of
//! nine bits. Every byte is echoed at its end on the line.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use rustix::termios::tcgetattr;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::line::{LineNode, SimLine};
use super::wire::WireEvent;
use crate::bus::bit_time;
use crate::kline::{ADDRESS_TIME, Signal, byte_time};
use crate::pty::{DeviceLink, Pty};

/// The highest bit rate of slow signals, in bit/s: communication with an ECU is always faster.
const SLOW_BIT_RATE: u32 = 400;
/// The highest bit rate of an address, in bit/s.
const ADDRESS_BIT_RATE: u32 = 10;
/// How many bytes stay unread; further bytes are lost, as in a UART. A K-line at 10,400 bit/s sends them in 4
/// s.
const OUTPUT_LIMIT: usize = 4096;

/// A pseudo-terminal that connects a host to a simulated K-line. The device exists until this is dropped.
pub struct PtyKLine {
    device: PathBuf,
    task: AbortHandle,
    _link: Option<DeviceLink>,
}

impl PtyKLine {
    /// Creates the device and, at `link`, a symbolic link to it. Call this within a tokio runtime. The line
    /// should use [`TimerKind::Precise`](crate::timer::TimerKind).
    pub fn new(link: Option<&Path>, line: &SimLine) -> io::Result<Self> {
        let pty = Pty::new()?;
        let device = pty.slave_path().to_owned();
        let link = link.map(|link| DeviceLink::new(link, &device)).transpose()?;
        let node = line.attach("pty", 10_400);
        let mut bridge = Bridge { pty, node, out: Vec::new(), free_at: line.now(), echoes: VecDeque::new() };
        let task = tokio::spawn(async move {
            let error = poll_fn(|cx| bridge.poll_drive(cx)).await;
            tracing::warn!(%error, "the simulated K-line's pseudo-terminal has stopped");
        });
        Ok(Self { device, task: task.abort_handle(), _link: link })
    }

    /// The path of the pty that a host opens.
    pub fn device(&self) -> &Path {
        &self.device
    }
}

impl Drop for PtyKLine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Bridge {
    pty: Pty,
    node: LineNode,
    out: Vec<u8>,
    /// When the host's last byte ends.
    free_at: Instant,
    /// Slow bytes to echo at their end.
    echoes: VecDeque<u8>,
}

impl Bridge {
    /// Transfers bytes in both directions. Ready with an error at the end of the pseudo-terminal.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        loop {
            while let Poll::Ready(event) = self.poll_wire(cx) {
                match event {
                    WireEvent::Byte { byte, .. } => self.echo(byte),
                    WireEvent::Sent { .. } => {
                        let echo = self.echoes.pop_front();
                        echo.into_iter().for_each(|byte| self.echo(byte));
                    }
                    WireEvent::Level { .. } => {}
                }
            }
            while !self.out.is_empty()
                && let Poll::Ready(written) = Pin::new(&mut self.pty).poll_write(cx, &self.out)
            {
                match written {
                    Ok(written) => drop(self.out.drain(..written)),
                    Err(error) => return Poll::Ready(error),
                }
            }
            if self.pty.poll_closed(cx) {
                self.out.clear();
            }
            let mut bytes = [0; 256];
            let mut buffer = ReadBuf::new(&mut bytes);
            match Pin::new(&mut self.pty).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(io::ErrorKind::UnexpectedEof.into());
                }
                Poll::Ready(Ok(())) => buffer.filled().iter().for_each(|byte| self.take(*byte)),
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// The host's present bit rate, in bit/s.
    fn bit_rate(&self) -> Option<u32> {
        tcgetattr(self.pty.settings()).ok().map(|attributes| attributes.output_speed().max(1))
    }

    /// The next event on the wire, received at the host's bit rate. A host that is still at the bit rate of a
    /// slow signal receives at any rate: the host sets its next bit rate before it reads.
    fn poll_wire(&mut self, cx: &mut Context<'_>) -> Poll<WireEvent> {
        match self.bit_rate() {
            Some(bit_rate) if bit_rate > SLOW_BIT_RATE => self.node.listen_at(bit_rate),
            _ => self.node.listen_at_any(),
        }
        self.node.poll_wire(cx)
    }

    fn echo(&mut self, byte: u8) {
        if self.out.len() < OUTPUT_LIMIT {
            self.out.push(byte);
        }
    }

    /// Transmits a byte of the host after the host's earlier bytes.
    fn take(&mut self, byte: u8) {
        let Some(bit_rate) = self.bit_rate() else { return };
        let start = self.node.now().max(self.free_at);
        let (signal, takes) = if bit_rate <= ADDRESS_BIT_RATE {
            (Signal::Address(byte), ADDRESS_TIME)
        } else if bit_rate <= SLOW_BIT_RATE && byte == 0 {
            (Signal::Pulse(bit_time(9, bit_rate)), byte_time(bit_rate))
        } else {
            self.node.listen_at(bit_rate);
            (Signal::Byte(byte), byte_time(bit_rate))
        };
        if !matches!(signal, Signal::Byte(_)) {
            self.echoes.push_back(byte);
        }
        self.node.transmit_at(start, signal);
        self.free_at = start + takes;
    }
}
