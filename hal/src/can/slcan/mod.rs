//! CAN adapters on a serial line that speak SLCAN.
//!
//! Adapters differ. Lawicel's adapters answer each frame with `z` after sending it. Others answer with a bare
//! CR after accepting it. Much firmware answers `V` and nothing else. [`CanBus::configure`] detects the kind;
//! [`CanCapabilities::confirms_transmission`] shows it after the first frame was answered.

#[cfg(feature = "sim")]
mod adapter;
mod adapter_line;
pub mod codec;
mod dialogue;
mod host;
mod reader;
mod serial_port;
mod setup;
mod unanswered;
mod values;

use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio_serial::SerialStream;

#[cfg(feature = "sim")]
pub use self::adapter::{Controller, SlcanAdapter};
use self::adapter_line::{AdapterLine, CLOCK};
use self::codec::{LineError, SlcanLine};
use self::host::HostState;
use self::reader::RawLine;
use crate::bus::{BusState, BusStatus};
use crate::can::{CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings};
use crate::future::BoxFuture;
use crate::timer::Deadline;

/// The default baud rate of a serial line; USB devices and pseudo-terminals ignore it. Most firmware for
/// serial lines starts with this one.
pub const DEFAULT_BAUD: u32 = 115_200;
/// A frame is accepted only while fewer bytes than this wait for the serial line, so that it does not wait
/// behind more than 90 ms of them at the default baud rate.
const OUT_LIMIT: usize = 1024;

/// A CAN bus behind an SLCAN adapter.
pub struct Slcan<S: AsyncRead + AsyncWrite + Unpin + Send = SerialStream> {
    line: AdapterLine<S>,
    filters: Vec<CanFilter>,
    /// `None` while off the bus.
    host: Option<HostState>,
    /// The adapter is on the bus, or may be: the command was written.
    may_be_open: bool,
    capabilities: CanCapabilities,
    /// The adapter did not answer a request for its status flags.
    lacks_status: bool,
    deadline: Deadline,
}

impl Slcan {
    /// Opens a serial device. Errors name `device`.
    pub fn open(device: &str, path: &str, baud: u32) -> Result<Self, CanError> {
        let stream = serial_port::open(path, baud)
            .map_err(|source| CanError::Device { device: device.to_owned(), source })?;
        Ok(Self::over(device, stream))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Slcan<S> {
    /// Uses an adapter over any byte stream.
    pub fn over(device: &str, stream: S) -> Self {
        Self {
            line: AdapterLine::new(device, stream),
            filters: Vec::new(),
            host: None,
            may_be_open: false,
            // assumed until the adapter refuses them
            capabilities: CanCapabilities {
                fd: true,
                listen_only: true,
                set_bit_rate: true,
                confirms_transmission: false,
            },
            lacks_status: false,
            deadline: Deadline::new(CLOCK),
        }
    }

    /// Writes waiting commands, processes received lines, and asks for the status flags. Ready only with an
    /// error.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<CanError> {
        loop {
            if let Poll::Ready(Err(error)) = self.line.poll_flush(cx) {
                return Poll::Ready(error);
            }
            let processed = match self.line.poll_line(cx) {
                Poll::Ready(line) => line.and_then(|line| self.handle_line(&line)),
                Poll::Pending => ready!(self.process_deadline(cx)),
            };
            if let Err(error) = processed {
                return Poll::Ready(error);
            }
        }
    }

    /// Ready after the handling of a deadline.
    fn process_deadline(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CanError>> {
        self.deadline.set(self.host.as_ref().and_then(HostState::poll_timeout));
        ready!(self.deadline.poll_expired(cx));
        match self.host.as_mut().map(|host| host.handle_timeout(CLOCK.now())) {
            Some(Ok(Some(line))) => line.encode(&mut self.line.out),
            Some(Err(host::Silence)) => return Poll::Ready(Err(self.line.protocol("no longer answers"))),
            _ => {}
        }
        Poll::Ready(Ok(()))
    }

    fn handle_line(&mut self, line: &RawLine) -> Result<(), CanError> {
        let Some(host) = &mut self.host else { return Ok(()) };
        let decoded = match line {
            RawLine::Bytes(bytes) => codec::decode(bytes),
            RawLine::TooLong => Err(LineError::TooLong),
        };
        match decoded {
            Ok(line) => host.handle_line(CLOCK.now(), &line),
            Err(error) => {
                tracing::debug!(device = %self.line.device, %error, "invalid SLCAN line");
                if !host.handle_garbage() {
                    return Err(self
                        .line
                        .protocol(format!("sends invalid SLCAN ({error}); is the baud rate right?")));
                }
            }
        }
        Ok(())
    }

    fn check_send(&self, frame: &CanFrame) -> Result<(), CanError> {
        let Some(host) = &self.host else {
            return Err(self.line.unsupported("send before it is configured"));
        };
        let settings = host.settings();
        if frame.is_error() {
            return Err(self.line.unsupported("send an error frame"));
        }
        if settings.listen_only {
            return Err(self.line.unsupported("send while it only listens"));
        }
        if frame.is_fd() && settings.data_bit_rate.is_none() {
            return Err(self.line.unsupported("send an FD frame on a classic bus"));
        }
        Ok(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> CanBus for Slcan<S> {
    fn device(&self) -> &str {
        &self.line.device
    }

    fn capabilities(&self) -> CanCapabilities {
        let confirms_transmission = self.host.as_ref().is_some_and(HostState::confirms_transmission);
        CanCapabilities { confirms_transmission, ..self.capabilities }
    }

    fn status(&self) -> BusStatus {
        self.host.as_ref().map_or(BusStatus { state: BusState::Off, ..BusStatus::default() }, |host| {
            host.status(CLOCK.now())
        })
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(self.set_up(settings))
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            match self.host.as_ref().map(HostState::settings) {
                Some(settings) => self.set_up(settings).await,
                None => Err(self.line.unsupported("restart before it is configured")),
            }
        })
    }

    fn hear_out(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(self.await_last_flags())
    }

    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError> {
        self.filters = filters.to_vec();
        if let Some(host) = &mut self.host {
            host.set_filters(filters.to_vec());
        }
        Ok(())
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        self.check_send(frame)?;
        // answers make room, so process them here too
        if let Poll::Ready(error) = self.poll_drive(cx) {
            return Poll::Ready(Err(error));
        }
        let has_room = self.line.out.len() < OUT_LIMIT;
        let Some(host) = self.host.as_mut().filter(|host| has_room && host.has_room()) else {
            return Poll::Pending;
        };
        host.handle_sent(CLOCK.now(), frame);
        SlcanLine::Frame(*frame, None).encode(&mut self.line.out);
        match self.line.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        // report the events from before the device went away first
        let driven = self.poll_drive(cx);
        if let Some(event) = self.host.as_mut().and_then(|host| host.events.pop()) {
            return Poll::Ready(Ok(event));
        }
        driven.map(Err)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Drop for Slcan<S> {
    /// Takes the adapter off the bus, as far as that is possible without waiting: otherwise the adapter would
    /// continue to acknowledge frames.
    fn drop(&mut self) {
        if self.may_be_open {
            self.line.out.clear();
            self.line.out.extend_from_slice(b"\rC\r");
            let _ = self.line.poll_flush(&mut Context::from_waker(Waker::noop()));
        }
    }
}
