//! The shell around one connection: its byte stream, its deadlines, and the time during which nothing is
//! read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use connector_hal::clock::now;
use connector_hal::timer::{Deadline, TimerKind};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::protocol::doip::LogicalAddress;
use crate::protocol::doip::connection::{Connection, ConnectionSettings, Event, SendError, SendId};
use crate::vehicle::doip_network::network::Stream;

/// The interval of alive check responses to the gateway while nothing is read. T_TCP_Alive_Check of ISO
/// 13400-2 is 500 ms: half of it leaves time for a late timer (docs/adr/0008-hold-back-doip-by-tcp.md).
const ALIVE_EVERY: Duration = Duration::from_millis(250);
/// The most bytes that are read at a time. The buffer is memory of each connection; a larger one would save
/// few system calls, since an Ethernet frame carries 1460 bytes.
const READ: usize = 16 * 1024;

/// Drives a connection over its stream.
pub(super) struct ConnectionDriver {
    connection: Connection,
    stream: Box<dyn Stream>,
    /// The bytes that the stream has not taken yet, from `written` on.
    unsent: Vec<u8>,
    written: usize,
    buffer: Box<[u8]>,
    paused: Option<Pause>,
    deadline: Deadline,
}

/// The time during which nothing is read.
struct Pause {
    since: Instant,
    /// The time of the next alive check response.
    alive_at: Instant,
}

impl ConnectionDriver {
    pub(super) fn new(stream: Box<dyn Stream>, settings: ConnectionSettings, now: Instant) -> Self {
        Self {
            connection: Connection::new(settings, now),
            stream,
            unsent: Vec::new(),
            written: 0,
            buffer: vec![0; READ].into(),
            paused: None,
            deadline: Deadline::new(TimerKind::Runtime),
        }
    }

    /// Stops reading, or reads again. While paused, the driver still sends, and sends alive check responses.
    pub(super) fn set_paused(&mut self, now: Instant, paused: bool) {
        match &self.paused {
            None if paused => self.paused = Some(Pause { since: now, alive_at: now }),
            Some(Pause { since, .. }) if !paused => {
                self.connection.handle_pause(now, now.saturating_duration_since(*since));
                self.paused = None;
            }
            _ => {}
        }
    }

    /// Sends a diagnostic message.
    pub(super) fn send(&mut self, target: LogicalAddress, data: &[u8]) -> Result<SendId, SendError> {
        self.connection.send(target, data)
    }

    /// The next event of the connection; pending when there is nothing to do.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Event> {
        loop {
            if let Some(event) = self.connection.poll_event() {
                return Poll::Ready(event);
            }
            // reads before a deadline expires that may wait for these bytes
            if self.process_bytes(cx).is_ready() {
                continue;
            }
            if let Err(error) = self.transmit(cx) {
                self.connection.handle_stream_error(&error);
                continue;
            }
            ready!(self.process_deadline(cx));
        }
    }

    /// Passes the next received bytes, or the end of the stream, to the connection.
    fn process_bytes(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.paused.is_some() {
            return Poll::Pending;
        }
        let mut buffer = ReadBuf::new(&mut self.buffer);
        match ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer)) {
            Ok(()) => self.connection.handle_bytes(now(), buffer.filled()),
            Err(error) => self.connection.handle_stream_error(&error),
        }
        Poll::Ready(())
    }

    /// Writes the connection's pending bytes, as far as the stream takes them.
    fn transmit(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.poll_transmit(cx) {
            Poll::Ready(written) => written,
            Poll::Pending => Ok(()),
        }
    }

    /// Ready when all pending bytes are written.
    fn poll_transmit(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            while let Some(rest) = self.unsent.get(self.written..).filter(|rest| !rest.is_empty()) {
                let written = ready!(Pin::new(&mut self.stream).poll_write(cx, rest))?;
                if written == 0 {
                    return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
                }
                self.written += written;
            }
            match self.connection.poll_transmit(now()) {
                Some(next) => {
                    self.unsent = next;
                    self.written = 0;
                }
                None => return Pin::new(&mut self.stream).poll_flush(cx),
            }
        }
    }

    /// Ready after the handling of a deadline.
    fn process_deadline(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.deadline.set(self.poll_timeout());
        ready!(self.deadline.poll_expired(cx));
        self.handle_timeout(now());
        Poll::Ready(())
    }

    /// The time of the next [`ConnectionDriver::handle_timeout`]. While nothing is read, the deadlines of the
    /// connection do not count: the message that they wait for may have come already.
    fn poll_timeout(&self) -> Option<Instant> {
        match &self.paused {
            Some(pause) => Some(pause.alive_at),
            None => self.connection.poll_timeout().map(|(at, _)| at),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match &mut self.paused {
            Some(pause) => {
                pause.alive_at = now + ALIVE_EVERY;
                self.connection.volunteer_alive();
            }
            None => self.connection.handle_timeout(now),
        }
    }
}
