//! The Linux kernel's ISO-TP (can-isotp): a socket that sends and receives whole PDUs.

mod event;
mod options;
mod raw;

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use tokio::io::unix::AsyncFd;

pub use self::event::{IsotpEvent, IsotpReceiveError, IsotpSendError};
pub use self::options::IsotpOptions;
use self::raw::RawIsotp;
pub use self::raw::kernel_max_pdu;
use super::CanError;
use crate::timer::{Deadline, TimerKind};

/// When to try again after ENOBUFS: the kernel does not signal when a full transmit queue has room again. A
/// bus at 500 kbit/s sends eight frames in this time.
const RETRY: Duration = Duration::from_millis(2);

/// A socket of the kernel's can-isotp, which sends and receives one PDU at a time.
///
/// The kernel cannot cancel a PDU: after the socket is dropped, the kernel still sends the PDU to its end.
#[derive(Debug)]
pub struct IsotpSocket {
    device: String,
    /// `None` only during drop.
    socket: Option<RawIsotp>,
    /// Readable when there is a PDU to read, an error, or the end of sending.
    news: AsyncFd<OwnedFd>,
    max_pdu: usize,
    buffer: Vec<u8>,
    is_sending: bool,
    retry: Deadline,
}

impl IsotpSocket {
    /// Opens a socket on a network interface, within a tokio runtime. Errors name `device`; `max_pdu` is the
    /// longest accepted PDU, in bytes. Errors: a missing interface, or a kernel without can-isotp.
    pub fn open(
        device: &str,
        interface: &str,
        options: &IsotpOptions,
        max_pdu: usize,
    ) -> Result<Self, CanError> {
        let lost = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => CanError::Unsupported {
                device: device.to_owned(),
                what: "use the kernel's ISO-TP: the kernel has no can-isotp".to_owned(),
            },
            _ => CanError::Device { device: device.to_owned(), source },
        };
        let socket = RawIsotp::open(interface, options).map_err(lost)?;
        let news = socket.watch().map_err(lost)?;
        let max_pdu = max_pdu.min(kernel_max_pdu());
        Ok(Self {
            device: device.to_owned(),
            socket: Some(socket),
            news,
            max_pdu,
            buffer: Vec::new(),
            is_sending: false,
            retry: Deadline::new(TimerKind::Precise),
        })
    }

    /// The longest PDU that can be sent or received, in bytes.
    pub fn max_pdu(&self) -> usize {
        self.max_pdu
    }

    /// Hands a PDU to the kernel; pending while the kernel is sending another one or its transmit queue is
    /// full.
    ///
    /// [`IsotpSocket::poll_event`] reports the outcome exactly once. Poll it too: it wakes a task that waits
    /// here.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, pdu: &[u8]) -> Poll<Result<(), IsotpSendError>> {
        if self.is_sending {
            return Poll::Pending;
        }
        if pdu.is_empty() || pdu.len() > self.max_pdu {
            return Poll::Ready(Err(IsotpSendError::Length));
        }
        loop {
            if self.retry.get().is_some() {
                ready!(self.retry.poll_expired(cx));
            }
            let Some(socket) = &self.socket else { return Poll::Ready(Err(IsotpSendError::InterfaceDown)) };
            match socket.write(pdu) {
                Ok(()) => {
                    self.is_sending = true;
                    return Poll::Ready(Ok(()));
                }
                // an earlier PDU is not sent yet, or the queue is full: the kernel signals the end of neither
                Err(Errno::AGAIN | Errno::NOBUFS) => {
                    self.retry.set(Some(Instant::now() + RETRY));
                }
                Err(Errno::INTR) => {}
                Err(Errno::INVAL | Errno::MSGSIZE) => {
                    return Poll::Ready(Err(IsotpSendError::Length));
                }
                Err(error) => {
                    tracing::debug!(device = %self.device, %error, "the kernel refuses to send a PDU");
                    return Poll::Ready(Err(IsotpSendError::InterfaceDown));
                }
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<IsotpEvent> {
        loop {
            if let Some(event) = self.next_event() {
                return Poll::Ready(event);
            }
            match ready!(self.news.poll_read_ready(cx)) {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => {
                    tracing::warn!(device = %self.device, %error, "cannot wait for the ISO-TP socket");
                    return Poll::Pending;
                }
            }
            // an event may have arrived between the check and the clearing
            if let Some(event) = self.next_event() {
                return Poll::Ready(event);
            }
        }
    }

    /// The event that is ready now, if any.
    fn next_event(&mut self) -> Option<IsotpEvent> {
        loop {
            let state = self.state()?;
            if state.intersects(PollFlags::IN | PollFlags::ERR) {
                match self.receive() {
                    Ok(Some(event)) => return Some(event),
                    Ok(None) => {}
                    Err(error) => match self.handle_error(error) {
                        Some(event) => return Some(event),
                        None => continue,
                    },
                }
            }
            if self.is_sending && state.contains(PollFlags::OUT) {
                // the kernel sets an error before sending ends: an error may be newer than `state`
                if self.state()?.contains(PollFlags::ERR) {
                    continue;
                }
                self.is_sending = false;
                return Some(IsotpEvent::Sent);
            }
            return None;
        }
    }

    fn state(&self) -> Option<PollFlags> {
        self.socket.as_ref()?.state()
    }

    /// Reads a PDU, if one has been received.
    fn receive(&mut self) -> Result<Option<IsotpEvent>, Errno> {
        let Some(socket) = &self.socket else { return Ok(None) };
        // one extra byte reveals a PDU that is too long
        self.buffer.resize(self.max_pdu + 1, 0);
        match socket.read(&mut self.buffer) {
            Ok(len) => Ok(Some(match self.buffer.get(..len) {
                Some(pdu) if len <= self.max_pdu => IsotpEvent::Received(pdu.to_vec()),
                _ => IsotpEvent::ReceiveFailed(IsotpReceiveError::TooLong),
            })),
            Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Maps an error of the socket: the kernel reports errors of both directions in the same way.
    fn handle_error(&mut self, error: Errno) -> Option<IsotpEvent> {
        tracing::trace!(device = %self.device, %error, "ISO-TP socket error");
        let receive_error = match error {
            Errno::ILSEQ => Some(IsotpReceiveError::WrongSequenceNumber),
            Errno::TIMEDOUT => Some(IsotpReceiveError::Timeout),
            _ => None,
        };
        if let Some(error) = receive_error {
            return Some(IsotpEvent::ReceiveFailed(error));
        }
        if !std::mem::take(&mut self.is_sending) {
            return None;
        }
        Some(IsotpEvent::SendFailed(match error {
            Errno::COMM => IsotpSendError::Timeout,
            Errno::MSGSIZE => IsotpSendError::Overflow,
            Errno::BADMSG => IsotpSendError::InvalidFlowStatus,
            _ => IsotpSendError::InterfaceDown,
        }))
    }
}

/// Closes the socket on a thread while a PDU is being sent: closing blocks until the PDU has ended.
impl Drop for IsotpSocket {
    fn drop(&mut self) {
        let socket = self.socket.take();
        if self.is_sending {
            std::thread::spawn(move || drop(socket));
        }
    }
}
