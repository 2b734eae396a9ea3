//! The Linux kernel's ISO-TP (can-isotp): a socket that sends and receives whole PDUs.

mod event;
mod options;
mod raw;
mod transfer;

use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::unix::AsyncFd;

pub use self::event::{IsotpEvent, IsotpReceiveError, IsotpSendError};
pub use self::options::IsotpOptions;
use self::raw::RawIsotp;
pub use self::raw::kernel_max_pdu;
use self::transfer::Transfer;
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
    transfer: Transfer<RawIsotp>,
    /// Readable when there is a PDU to read, an error, or the end of sending.
    news: AsyncFd<OwnedFd>,
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
        let transfer = Transfer::new(device, socket, max_pdu);
        Ok(Self { transfer, news, retry: Deadline::new(TimerKind::Precise) })
    }

    /// The longest PDU that can be sent or received, in bytes.
    pub fn max_pdu(&self) -> usize {
        self.transfer.max_pdu()
    }

    /// Hands a PDU to the kernel; pending while the kernel is sending another one or its transmit queue is
    /// full.
    ///
    /// [`IsotpSocket::poll_event`] reports the outcome exactly once. Poll it too: it wakes a task that waits
    /// here.
    pub fn poll_send(&mut self, cx: &mut Context<'_>, pdu: &[u8]) -> Poll<Result<(), IsotpSendError>> {
        if self.transfer.is_sending() {
            return Poll::Pending;
        }
        loop {
            if self.retry.get().is_some() {
                ready!(self.retry.poll_expired(cx));
            }
            match self.transfer.send(pdu) {
                Some(taken) => return Poll::Ready(taken),
                // an earlier PDU is not sent yet, or the queue is full: the kernel signals the end of neither
                None => self.retry.set(Some(Instant::now() + RETRY)),
            }
        }
    }

    /// The next event. Pending for ever after the interface has gone away: open the device and the socket
    /// again.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<IsotpEvent> {
        loop {
            if let Some(event) = self.transfer.next_event() {
                return Poll::Ready(event);
            }
            if self.transfer.is_dead() {
                return Poll::Pending;
            }
            match ready!(self.news.poll_read_ready(cx)) {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => {
                    tracing::warn!(device = %self.transfer.device(), %error, "cannot wait for the ISO-TP socket");
                    return Poll::Pending;
                }
            }
            // an event may have arrived between the check and the clearing
            if let Some(event) = self.transfer.next_event() {
                return Poll::Ready(event);
            }
        }
    }
}

/// Closes the socket on a thread while a PDU is being sent: closing blocks until the PDU has ended.
impl Drop for IsotpSocket {
    fn drop(&mut self) {
        if let Some(socket) = self.transfer.take_busy() {
            std::thread::spawn(move || drop(socket));
        }
    }
}
