//! The shell around a raw CAN socket: receives and writes frames, and tries again while the transmit queue is
//! full.

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use socketcan::{CanFdSocket, CanFilter, Socket, SocketOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::raw_frame::{self, RawFrame};
use super::traffic::SocketMessage;
use crate::system::{ReceivedMessage, async_fd, drop_elsewhere, readable_or_failed, receive};
use crate::timer::{Deadline, TimerKind};

/// The size of the socket's receive buffer, in bytes, or less if the system limits it. The kernel doubles the
/// value, and the buffer then holds 2,730 frames: four times the 586 frames of a PDU of 4095 bytes, or 0.6 s
/// of a full bus at 500 kbit/s.
const RECEIVE_BUFFER: i32 = 1 << 20;
/// After ENOBUFS, try again after this time, in which a bus at 500 kbit/s sends four frames, and then double
/// it up to `LAST_RETRY`: the kernel does not signal when a full transmit queue has room again.
const FIRST_RETRY: Duration = Duration::from_millis(1);
/// The longest time between two attempts after ENOBUFS. The value is a compromise: each attempt costs
/// processor time while the bus is full, and the queue has room unused until the next one.
const LAST_RETRY: Duration = Duration::from_millis(16);
/// An older time stamp is from before the clock was set; it is ignored. No frame waits that long in a socket
/// that is being read.
const OLDEST: Duration = Duration::from_secs(10);

/// A raw CAN socket on one interface.
pub(super) struct RawSocket {
    /// `None` only while the value is dropped.
    socket: Option<AsyncFd<CanFdSocket>>,
    /// Readable when the socket has a frame or an error to read.
    readable: AsyncFd<OwnedFd>,
    retry: Deadline,
    backoff: Duration,
    /// The error number that ended the socket. The kernel reports it once; every later poll returns it again.
    failure: Option<i32>,
}

impl RawSocket {
    /// Uses a prepared socket, within a tokio runtime.
    pub(super) fn new(prepared: PreparedSocket) -> io::Result<Self> {
        let (socket, readable) = prepared.register()?;
        let retry = Deadline::new(TimerKind::Precise);
        Ok(Self { socket: Some(socket), readable, retry, backoff: FIRST_RETRY, failure: None })
    }

    /// Uses a new socket in place of this one: a socket whose interface went down keeps its error.
    pub(super) fn replace(&mut self, prepared: PreparedSocket) -> io::Result<()> {
        let (socket, readable) = prepared.register()?;
        self.close();
        (self.socket, self.readable) = (Some(socket), readable);
        self.retry.set(None);
        self.failure = None;
        Ok(())
    }

    /// Closes the socket on another thread, because the kernel may block.
    fn close(&mut self) {
        if let Some(socket) = self.socket.take() {
            drop_elsewhere(socket.into_inner());
        }
    }

    /// Sets the kernel's filters; `None` to receive everything.
    pub(super) fn set_filters(&self, filters: Option<&[CanFilter]>) -> io::Result<()> {
        let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?.get_ref();
        match filters {
            Some(filters) => socket.set_filters(filters),
            None => socket.set_filter_accept_all(),
        }
    }

    /// The next message. An error comes after all earlier messages.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<SocketMessage>> {
        loop {
            let mut guard = match self.readable.poll_read_ready(cx) {
                Poll::Ready(Ok(guard)) => Some(guard),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                // the kernel reports an error before the frames that arrived earlier
                Poll::Pending if self.failure.is_some() => None,
                Poll::Pending => return Poll::Pending,
            };
            let mut bytes = [0; raw_frame::FD_MTU];
            let Some(socket) = &self.socket else {
                return Poll::Ready(Err(io::ErrorKind::NotConnected.into()));
            };
            match receive(socket.get_ref(), &mut bytes) {
                Ok(received) => {
                    return Poll::Ready(Ok(message(&received, bytes.get(..received.len).unwrap_or(&[]))));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(failure) = self.failure {
                        return Poll::Ready(Err(io::Error::from_raw_os_error(failure)));
                    }
                    if let Some(guard) = &mut guard {
                        guard.clear_ready();
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => self.failure = Some(error.raw_os_error().unwrap_or(libc::EIO)),
            }
        }
    }

    /// Hands a frame to the kernel; pending while the kernel has no room.
    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, frame: &RawFrame) -> Poll<io::Result<()>> {
        loop {
            if self.retry.get().is_some() {
                ready!(self.retry.poll_expired(cx));
            }
            let socket = self.socket.as_ref().ok_or(io::ErrorKind::NotConnected)?;
            let mut guard = ready!(socket.poll_write_ready(cx))?;
            match rustix::io::write(socket.get_ref(), frame.as_bytes()) {
                Ok(_) => {
                    self.backoff = FIRST_RETRY;
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => {
                    self.retry.set(Some(Instant::now() + self.backoff));
                    self.backoff = (self.backoff * 2).min(LAST_RETRY);
                }
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl Drop for RawSocket {
    fn drop(&mut self) {
        self.close();
    }
}

/// A socket that the runtime does not know yet.
#[derive(Debug)]
pub(super) struct PreparedSocket {
    socket: CanFdSocket,
    readable: OwnedFd,
}

impl PreparedSocket {
    /// Opens a socket on an interface. This may block: the kernel binds no socket while it takes an interface down
    /// or up.
    pub(super) fn open(interface: &str) -> io::Result<Self> {
        let socket = CanFdSocket::open(interface)?;
        socket.set_nonblocking(true)?;
        socket.set_error_filter_accept_all()?;
        socket.set_recv_own_msgs(true)?;
        socket.set_recv_timestamp(true)?;
        socket.set_socket_option_int(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
        // exceeding the system's limit needs a privilege
        if socket.set_socket_option_int(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
            socket.set_socket_option_int(libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
        }
        let readable = readable_or_failed(&socket)?;
        Ok(Self { socket, readable })
    }

    fn register(self) -> io::Result<(AsyncFd<CanFdSocket>, AsyncFd<OwnedFd>)> {
        let readable = async_fd(self.readable, Interest::READABLE)?;
        Ok((async_fd(self.socket, Interest::WRITABLE)?, readable))
    }
}

fn message(received: &ReceivedMessage, bytes: &[u8]) -> SocketMessage {
    SocketMessage {
        frame: raw_frame::parse(bytes),
        at: instant(received.timestamp),
        is_echo: received.flags & libc::MSG_CONFIRM != 0,
        dropped: received.dropped,
    }
}

/// Converts a time stamp of the real-time clock.
fn instant(timestamp: Option<Duration>) -> Instant {
    let now = Instant::now();
    let clock = clock_gettime(ClockId::Realtime);
    let real = Duration::new(clock.tv_sec.try_into().unwrap_or(0), clock.tv_nsec.try_into().unwrap_or(0));
    let age = timestamp.and_then(|timestamp| real.checked_sub(timestamp)).filter(|age| *age <= OLDEST);
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
}
