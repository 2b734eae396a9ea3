//! ISO-TP as the Linux kernel speaks it (can-isotp): a socket that takes and gives whole PDUs.

mod options;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use socket2::{Domain, Protocol, Socket, Type};
use socketcan::{CanAddr, ExtendedId, Id, SocketOptions, StandardId};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub use self::options::IsotpOptions;
use super::{CanError, CanId};
use crate::system::async_fd;
use crate::timer::{Deadline, TimerKind};

/// `SOL_CAN_ISOTP` and its options (`linux/can/isotp.h`).
const SOL_CAN_ISOTP: i32 = 100 + libc::CAN_ISOTP;
const CAN_ISOTP_OPTS: i32 = 1;
const CAN_ISOTP_RECV_FC: i32 = 2;
const CAN_ISOTP_LL_OPTS: i32 = 5;
/// The longest PDU of kernels that have no word about it, before 6.4; yet older ones take 8200 bytes, and say so when they
/// are given more.
const OLD_MAX_PDU: usize = 66_000;
/// A full transmit queue tells nobody when it has room again (ENOBUFS).
const RETRY: Duration = Duration::from_millis(2);

/// What a socket reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsotpEvent {
    /// A whole PDU came.
    Received(Vec<u8>),
    /// A PDU that came was not taken whole: it did not come in time, frames of it were missing, or it was too long.
    ReceiveFailed(IsotpReceiveError),
    /// The PDU under way was sent: its last frame is on the bus.
    Sent,
    /// The PDU under way was not sent, or not whole.
    SendFailed(IsotpSendError),
}

/// Why a PDU was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IsotpReceiveError {
    /// No consecutive frame came in time (N_Cr).
    #[error("no consecutive frame came in time")]
    Timeout,
    /// A consecutive frame has the wrong sequence number.
    #[error("a consecutive frame was missing")]
    WrongSequenceNumber,
    /// It is longer than this socket takes.
    #[error("the PDU is longer than allowed")]
    TooLong,
}

/// Why a PDU was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IsotpSendError {
    /// No flow control came in time (N_Bs), or a frame was not acknowledged (N_As): the kernel does not tell them apart.
    #[error("no flow control or acknowledgement came in time")]
    Timeout,
    /// The receiver has no room for the PDU.
    #[error("the receiver has no room for it")]
    Overflow,
    /// The flow control has an invalid status.
    #[error("the flow control has an invalid status")]
    InvalidFlowStatus,
    /// The kernel does not take a PDU of this length, or of none.
    #[error("the kernel does not take a PDU of this length")]
    Length,
    /// The interface is down.
    #[error("the interface is down")]
    InterfaceDown,
}

/// A PDU at a time each way, by the kernel's can-isotp.
///
/// The kernel cannot be told to leave a PDU: one that is under way when the socket is dropped is sent to its end.
#[derive(Debug)]
pub struct IsotpSocket {
    device: String,
    /// `None` only while dropping.
    socket: Option<RawIsotp>,
    /// Tells of anything new: something to read, an error, or that sending has ended.
    news: AsyncFd<OwnedFd>,
    max_pdu: usize,
    buffer: Vec<u8>,
    is_sending: bool,
    retry: Deadline,
}

#[derive(Debug)]
struct RawIsotp(Socket);

impl AsRawFd for RawIsotp {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl SocketOptions for RawIsotp {}

impl IsotpSocket {
    /// Opens a socket on a network interface, within a tokio runtime; `device` is how errors name it, `max_pdu` the
    /// longest PDU taken, in bytes. Errors: no such interface, or a kernel without can-isotp.
    pub fn open(
        device: &str,
        interface: &str,
        options: &IsotpOptions,
        max_pdu: usize,
    ) -> Result<Self, CanError> {
        let lost = |source: io::Error| match source.raw_os_error() {
            Some(libc::EPROTONOSUPPORT | libc::EAFNOSUPPORT) => CanError::Unsupported {
                device: device.to_owned(),
                what: "speak ISO-TP by the kernel, which has no can-isotp".to_owned(),
            },
            _ => CanError::Device { device: device.to_owned(), source },
        };
        let socket = open_socket(interface, options).map_err(lost)?;
        let news = watch(&socket).map_err(lost)?;
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

    /// Hands a PDU to the kernel; pending while it has one under way, or its transmit queue is full.
    ///
    /// What becomes of it is told by [`IsotpSocket::poll_event`], exactly once; that also wakes whoever waits here.
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
            match rustix::io::write(&socket.0, pdu) {
                Ok(_) => {
                    self.is_sending = true;
                    return Poll::Ready(Ok(()));
                }
                // a PDU that the kernel had not left yet, or too many frames: neither tells when it is over
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => {
                    self.retry.set(Some(Instant::now() + RETRY));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::MSGSIZE) => {
                    return Poll::Ready(Err(IsotpSendError::Length));
                }
                Err(error) => {
                    tracing::debug!(device = %self.device, %error, "the kernel does not send a PDU");
                    return Poll::Ready(Err(IsotpSendError::InterfaceDown));
                }
            }
        }
    }

    /// The next event.
    pub fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<IsotpEvent> {
        loop {
            if let Some(event) = self.look() {
                return Poll::Ready(event);
            }
            match ready!(self.news.poll_read_ready(cx)) {
                Ok(mut guard) => guard.clear_ready(),
                Err(error) => {
                    tracing::warn!(device = %self.device, %error, "the runtime does not wait for a socket");
                    return Poll::Pending;
                }
            }
            // something may have come between looking and clearing
            if let Some(event) = self.look() {
                return Poll::Ready(event);
            }
        }
    }

    /// What there is to tell now.
    fn look(&mut self) -> Option<IsotpEvent> {
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
                // an error is set before sending ends: it may have come since the state was asked for
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
        let socket = self.socket.as_ref()?;
        let mut asked = [PollFd::new(&socket.0, PollFlags::IN | PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
        asked.first().map(PollFd::revents)
    }

    /// Reads a PDU, if there is one.
    fn receive(&mut self) -> Result<Option<IsotpEvent>, rustix::io::Errno> {
        let Some(socket) = &self.socket else { return Ok(None) };
        // a byte more than allowed tells what is too long
        self.buffer.resize(self.max_pdu + 1, 0);
        match rustix::io::read(&socket.0, &mut self.buffer) {
            Ok(len) => Ok(Some(match self.buffer.get(..len) {
                Some(pdu) if len <= self.max_pdu => IsotpEvent::Received(pdu.to_vec()),
                _ => IsotpEvent::ReceiveFailed(IsotpReceiveError::TooLong),
            })),
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// One error stands for either direction.
    fn handle_error(&mut self, error: rustix::io::Errno) -> Option<IsotpEvent> {
        use rustix::io::Errno;
        tracing::trace!(device = %self.device, %error, "the kernel's ISO-TP reports");
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

/// Closing waits for the PDU that is under way, which nobody here can.
impl Drop for IsotpSocket {
    fn drop(&mut self) {
        let socket = self.socket.take();
        if self.is_sending {
            std::thread::spawn(move || drop(socket));
        }
    }
}

/// The longest PDU that this kernel's can-isotp takes, in bytes.
pub fn kernel_max_pdu() -> usize {
    let text = std::fs::read_to_string("/sys/module/can_isotp/parameters/max_pdu_size").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(OLD_MAX_PDU)
}

fn open_socket(interface: &str, options: &IsotpOptions) -> io::Result<RawIsotp> {
    let protocol = Protocol::from(libc::CAN_ISOTP);
    let socket =
        Socket::new(Domain::from(libc::AF_CAN), Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
    let socket = RawIsotp(socket);
    socket.set_socket_option_bytes(SOL_CAN_ISOTP, CAN_ISOTP_OPTS, &options.general())?;
    socket.set_socket_option_bytes(SOL_CAN_ISOTP, CAN_ISOTP_RECV_FC, &options.flow_control())?;
    socket.set_socket_option_bytes(SOL_CAN_ISOTP, CAN_ISOTP_LL_OPTS, &options.link_layer())?;
    let address = CanAddr::from_iface_isotp(interface, id(options.receive)?, id(options.transmit)?)?;
    socket.0.bind(&address.into_sock_addr())?;
    Ok(socket)
}

fn id(id: CanId) -> io::Result<Id> {
    let raw = id.raw();
    let id = match id.is_extended() {
        true => ExtendedId::new(raw).map(Id::from),
        false => u16::try_from(raw).ok().and_then(StandardId::new).map(Id::from),
    };
    id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Whatever happens to the socket makes this readable. The runtime itself would take the error of one PDU for the end of
/// writing for good.
fn watch(socket: &RawIsotp) -> io::Result<AsyncFd<OwnedFd>> {
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let what = epoll::EventFlags::IN | epoll::EventFlags::OUT;
    epoll::add(&watch, &socket.0, epoll::EventData::new_u64(0), what)?;
    async_fd(watch, Interest::READABLE)
}
