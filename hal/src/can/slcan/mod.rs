//! CAN adapters on a serial line that speak SLCAN.
//!
//! Adapters differ: Lawicel's answer each frame by `z` once it was sent, others by a bare CR once they took it, and
//! much firmware answers nothing but `V`. Which it is, is found out when the bus is configured, and shows in
//! [`CanCapabilities::confirms_transmission`] once the first frame was answered.

#[cfg(feature = "sim")]
mod adapter;
pub mod codec;
mod host;
mod reader;
mod values;

use std::future::poll_fn;
use std::io;
use std::os::fd::{FromRawFd as _, IntoRawFd as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use serialport::TTYPort;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{SerialPortBuilderExt, SerialStream};

#[cfg(feature = "sim")]
pub use self::adapter::{Controller, SlcanAdapter};
use self::codec::{BELL, Line, LineError};
use self::host::{Host, Manners};
use self::reader::{LineReader, RawLine};
use crate::bus::{BusState, BusStatus};
use crate::can::{CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings};
use crate::future::BoxFuture;
use crate::timer::{Deadline, TimerKind};

/// The baud rate of a serial line when none is given; USB and pty ones don't care.
pub const DEFAULT_BAUD: u32 = 115_200;
/// How often an adapter is called before it counts as absent: one that restarts when opened takes up to 2 s.
const CALLS: u32 = 5;
const CALL_TIMEOUT: Duration = Duration::from_millis(500);
const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Answers that belong together come closer than this.
const QUIET: Duration = Duration::from_millis(125);
/// How long what an adapter sends may last that was left on the bus, before it hears the call.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(3);
/// Commands waiting for the line; a frame is only taken while there are fewer bytes.
const OUT_LIMIT: usize = 1024;

/// A CAN bus behind an SLCAN adapter.
pub struct Slcan<S: AsyncRead + AsyncWrite + Unpin + Send = SerialStream> {
    device: String,
    stream: S,
    reader: LineReader,
    out: Vec<u8>,
    filters: Vec<CanFilter>,
    /// `None` while off the bus.
    host: Option<Host>,
    capabilities: CanCapabilities,
    /// It was asked for its status flags once, and gave none.
    lacks_status: bool,
    deadline: Deadline,
}

enum Answer {
    Done,
    Refused,
    Text,
    None,
}

impl Slcan {
    /// Opens a serial device. `device` is how errors name it.
    pub fn open(device: &str, path: &str, baud: u32) -> Result<Self, CanError> {
        let stream = tokio_serial::new(path, baud)
            .open_native_async()
            .or_else(|error| match error.kind() {
                // which is what the library makes of ENOSYS
                tokio_serial::ErrorKind::Unknown => open_as_it_is(path, error.into()),
                _ => Err(error.into()),
            })
            .map_err(|source| CanError::Device { device: device.to_owned(), source })?;
        Ok(Self::over(device, stream))
    }
}

/// Opens a device whose speed cannot be set, as qemu's user-mode emulation has no `TCGETS2`: a speed means nothing to
/// USB and pseudo-terminals. It has been made raw before that was found out.
fn open_as_it_is(path: &str, error: io::Error) -> io::Result<SerialStream> {
    let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path)?;
    if !rustix::termios::isatty(&file) {
        return Err(error);
    }
    // SAFETY: the descriptor is open, and nobody else's any more
    #[allow(unsafe_code)]
    let port = unsafe { TTYPort::from_raw_fd(file.into_raw_fd()) };
    Ok(SerialStream::try_from(port)?)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Slcan<S> {
    /// Speaks to an adapter over any byte stream.
    pub fn over(device: &str, stream: S) -> Self {
        Self {
            device: device.to_owned(),
            stream,
            reader: LineReader::default(),
            out: Vec::new(),
            filters: Vec::new(),
            host: None,
            // believed until refused
            capabilities: CanCapabilities {
                fd: true,
                listen_only: true,
                set_bit_rate: true,
                confirms_transmission: false,
            },
            lacks_status: false,
            deadline: Deadline::new(TimerKind::Runtime),
        }
    }

    fn now() -> Instant {
        TimerKind::Runtime.now()
    }

    fn lost(&self, source: io::Error) -> CanError {
        CanError::Device { device: self.device.clone(), source }
    }

    fn unsupported(&self, what: impl Into<String>) -> CanError {
        CanError::Unsupported { device: self.device.clone(), what: what.into() }
    }

    /// It cannot have this bit rate, in bit/s; says which it should be able to have.
    fn cannot_set(&self, rate: u32) -> CanError {
        let others = codec::bit_rates().filter(|other| *other != rate);
        let others = others.map(|other| other.to_string()).collect::<Vec<_>>().join(", ");
        self.unsupported(format!("set {rate} bit/s; SLCAN has {others}"))
    }

    fn protocol(&self, detail: impl Into<String>) -> CanError {
        CanError::Protocol { device: self.device.clone(), detail: detail.into() }
    }

    /// Writes what waits; ready when nothing does.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CanError>> {
        while !self.out.is_empty() {
            match ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out)) {
                Ok(0) => return Poll::Ready(Err(self.lost(io::ErrorKind::WriteZero.into()))),
                Ok(written) => drop(self.out.drain(..written)),
                Err(error) => return Poll::Ready(Err(self.lost(error))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<Result<RawLine, CanError>> {
        loop {
            if let Some(line) = self.reader.next_line() {
                return Poll::Ready(Ok(line));
            }
            let mut bytes = [0; 4096];
            let mut buffer = ReadBuf::new(&mut bytes);
            match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
                Ok(()) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(self.lost(io::ErrorKind::UnexpectedEof.into())));
                }
                Ok(()) => self.reader.push(buffer.filled()),
                Err(error) => return Poll::Ready(Err(self.lost(error))),
            }
        }
    }

    /// Writes what waits, takes what came, asks what is due. Only errors are ready.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<CanError> {
        loop {
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(error);
            }
            match self.poll_line(cx) {
                Poll::Ready(Ok(line)) => {
                    if let Err(error) = self.handle_line(&line) {
                        return Poll::Ready(error);
                    }
                    continue;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(error),
                Poll::Pending => {}
            }
            self.deadline.set(self.host.as_ref().and_then(Host::poll_timeout));
            ready!(self.deadline.poll_expired(cx));
            match self.host.as_mut().map(|host| host.handle_timeout(Self::now())) {
                Some(Ok(Some(line))) => line.encode(&mut self.out),
                Some(Err(host::Silence)) => {
                    return Poll::Ready(self.protocol("does not answer any more"));
                }
                _ => {}
            }
        }
    }

    fn handle_line(&mut self, line: &RawLine) -> Result<(), CanError> {
        let Some(host) = &mut self.host else { return Ok(()) };
        let decoded = match line {
            RawLine::Bytes(bytes) => codec::decode(bytes),
            RawLine::TooLong => Err(LineError::TooLong),
        };
        match decoded {
            Ok(line) => host.handle_line(Self::now(), &line),
            Err(error) => {
                tracing::debug!(device = %self.device, %error, "not SLCAN");
                if !host.handle_garbage() {
                    return Err(self.protocol(format!("sends no SLCAN ({error}); is the baud rate right?")));
                }
            }
        }
        Ok(())
    }

    /// The next line, unless it takes longer than this.
    async fn line_within(&mut self, limit: Duration) -> Result<Option<RawLine>, CanError> {
        let line = poll_fn(|cx| {
            if let Poll::Ready(Err(error)) = self.poll_flush(cx) {
                return Poll::Ready(Err(error));
            }
            self.poll_line(cx)
        });
        tokio::time::timeout(limit, line).await.ok().transpose()
    }

    /// Calls the adapter off the bus and finds out whether it answers commands.
    async fn call(&mut self) -> Result<bool, CanError> {
        let until = Self::now() + DRAIN_TIMEOUT;
        for call in 0..CALLS {
            // empty lines end what an earlier host may have begun
            self.out.extend_from_slice(b"\r\rC\rV\r");
            let (mut answered, mut named) = (false, false);
            // the version ends the answers to the first call; after others, and after free text, they end with silence
            while let Some(line) =
                self.line_within(if answered || named { QUIET } else { CALL_TIMEOUT }).await?
            {
                if let RawLine::Bytes(bytes) = line {
                    answered |= bytes.is_empty() || bytes == [BELL];
                    named |= is_version(&bytes);
                    if call == 0 && bytes.first() == Some(&b'V') {
                        break;
                    }
                }
                if Self::now() > until {
                    break;
                }
            }
            if answered || named {
                return Ok(answered);
            }
        }
        Err(self.protocol("does not answer; is it an SLCAN adapter?"))
    }

    async fn ask(&mut self, command: Line, limit: Duration) -> Result<Answer, CanError> {
        command.encode(&mut self.out);
        while let Some(line) = self.line_within(limit).await? {
            let RawLine::Bytes(bytes) = line else { continue };
            match codec::decode(&bytes) {
                Ok(Line::Done) => return Ok(Answer::Done),
                Ok(Line::Refused) => return Ok(Answer::Refused),
                Ok(Line::Status(_)) => return Ok(Answer::Text),
                _ => {}
            }
        }
        Ok(Answer::None)
    }

    /// Gives a command that an adapter answers by yes or no, if it answers at all.
    async fn command(&mut self, answers: bool, command: Line) -> Result<bool, CanError> {
        if !answers {
            command.encode(&mut self.out);
            return Ok(true);
        }
        let text = format!("{command:?}");
        let is_extension = matches!(command, Line::SetDataBitRate(_) | Line::SetBitTiming(_) | Line::Listen);
        match self.ask(command, ANSWER_TIMEOUT).await? {
            Answer::Refused => Ok(false),
            // some firmware says nothing to a command that it does not know
            Answer::None if is_extension => Ok(false),
            Answer::None => Err(self.protocol(format!("does not answer to {text}"))),
            Answer::Done | Answer::Text => Ok(true),
        }
    }

    async fn set_up(&mut self, settings: CanSettings) -> Result<(), CanError> {
        let rate = settings.bit_rate;
        let by_number = codec::bit_rate_number(rate).map(Line::SetBitRate);
        let by_timing = || codec::bit_timing(rate).map(|registers| Line::SetBitTiming(registers.into()));
        let Some(set_bit_rate) = by_number.or_else(by_timing) else {
            return Err(self.cannot_set(rate));
        };
        let data_what = settings.data_bit_rate.map(|rate| format!("set {rate} bit/s for the data phase"));
        let data_rate = settings.data_bit_rate.map(codec::data_bit_rate_number);
        if let (Some(None), Some(what)) = (data_rate, &data_what) {
            return Err(self.unsupported(what));
        }
        self.host = None;
        // nothing of an earlier configuration may leave after this one
        self.out.clear();
        let answers = self.call().await?;
        // one that does not answer cannot be believed to know more than it must: it would disturb the bus
        let is_known = answers || matches!(set_bit_rate, Line::SetBitRate(_));
        if !is_known || !self.command(answers, set_bit_rate).await? {
            return Err(self.cannot_set(rate));
        }
        if let (Some(Some(rate)), Some(what)) = (data_rate, data_what)
            && !self.command(answers, Line::SetDataBitRate(rate)).await?
        {
            self.capabilities.fd = false;
            return Err(self.unsupported(what));
        }
        let open = if settings.listen_only { Line::Listen } else { Line::Open };
        if !self.command(answers, open).await? {
            if settings.listen_only {
                self.capabilities.listen_only = false;
                return Err(self.unsupported("listen only"));
            }
            return Err(self.protocol("refuses to go on the bus"));
        }
        let mut manners = Manners { answers, has_status: false };
        // from here on frames may come; a host takes them, while the status flags are asked for
        self.host = Some(Host::new(settings, manners, self.filters.clone(), Self::now()));
        manners.has_status = answers && !self.lacks_status && self.has_status().await?;
        self.lacks_status |= answers && !manners.has_status;
        if let Some(host) = &mut self.host {
            host.set_manners(manners);
        }
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    async fn has_status(&mut self) -> Result<bool, CanError> {
        Line::ReadStatus.encode(&mut self.out);
        let until = Self::now() + ANSWER_TIMEOUT;
        while let Some(line) = self.line_within(until.saturating_duration_since(Self::now())).await? {
            if let RawLine::Bytes(bytes) = &line {
                match codec::decode(bytes) {
                    Ok(Line::Status(_)) => return Ok(true),
                    Ok(Line::Refused) => return Ok(false),
                    _ => {}
                }
            }
            self.handle_line(&line)?;
        }
        Ok(false)
    }

    fn check_send(&self, frame: &CanFrame) -> Result<(), CanError> {
        let Some(host) = &self.host else { return Err(self.unsupported("send before it is configured")) };
        let settings = host.settings();
        if frame.is_error() {
            return Err(self.unsupported("send an error frame"));
        }
        if settings.listen_only {
            return Err(self.unsupported("send while it only listens"));
        }
        if frame.is_fd() && settings.data_bit_rate.is_none() {
            return Err(self.unsupported("send an FD frame on a classic bus"));
        }
        Ok(())
    }
}

/// `V1013`, or the free text that some firmware has for it; not what is left of frames.
fn is_version(line: &[u8]) -> bool {
    let Some((first, rest)) = line.split_first() else { return false };
    let is_text = line.iter().all(|byte| (b' '..=b'~').contains(byte));
    let is_words = rest.len() >= 4 && !rest.iter().all(u8::is_ascii_hexdigit);
    let is_report = matches!(codec::decode(line), Ok(Line::State { .. } | Line::Errors(_)));
    is_text && !is_report && (*first == b'V' || is_words)
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> CanBus for Slcan<S> {
    fn device(&self) -> &str {
        &self.device
    }

    fn capabilities(&self) -> CanCapabilities {
        let confirms_transmission = self.host.as_ref().is_some_and(Host::confirms_transmission);
        CanCapabilities { confirms_transmission, ..self.capabilities }
    }

    fn status(&self) -> BusStatus {
        self.host.as_ref().map_or(BusStatus { state: BusState::Off, ..BusStatus::default() }, |host| {
            host.status(Self::now())
        })
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(self.set_up(settings))
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            match self.host.as_ref().map(Host::settings) {
                Some(settings) => self.set_up(settings).await,
                None => Err(self.unsupported("restart before it is configured")),
            }
        })
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
        // answers make room, so they are taken here too
        if let Poll::Ready(error) = self.poll_drive(cx) {
            return Poll::Ready(Err(error));
        }
        let has_room = self.out.len() < OUT_LIMIT;
        let Some(host) = self.host.as_mut().filter(|host| has_room && host.has_room()) else {
            return Poll::Pending;
        };
        host.handle_sent(Self::now(), frame);
        Line::Frame(*frame, None).encode(&mut self.out);
        match self.poll_flush(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        // what came before the device went away is still told
        let driven = self.poll_drive(cx);
        if let Some(event) = self.host.as_mut().and_then(|host| host.events.pop()) {
            return Poll::Ready(Ok(event));
        }
        driven.map(Err)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Drop for Slcan<S> {
    /// Leaves the bus as far as that goes without waiting: an adapter left on it would go on acknowledging.
    fn drop(&mut self) {
        if self.host.is_some() {
            self.out.clear();
            self.out.extend_from_slice(b"\rC\r");
            let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
        }
    }
}
