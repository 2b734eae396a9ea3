//! The Linux kernel's ISO-TP (can-isotp): a socket that sends and receives whole PDUs.

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
/// The longest PDU of kernels before 6.4, which do not publish their limit. Even older kernels accept
/// 8200 bytes and refuse a longer PDU.
const OLD_MAX_PDU: usize = 66_000;
/// When to try again after ENOBUFS: the kernel does not signal when a full transmit queue has room again. A
/// bus at 500 kbit/s sends eight frames in this time.
const RETRY: Duration = Duration::from_millis(2);

/// An event of a socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IsotpEvent {
    /// A PDU was received.
    Received(Vec<u8>),
    /// The reception of a PDU failed: a frame was late or missing, or the PDU was too long.
    ReceiveFailed(IsotpReceiveError),
    /// The PDU was sent: its last frame was on the bus.
    Sent,
    /// The PDU was not sent, or not completely.
    SendFailed(IsotpSendError),
}

/// Why a PDU was not received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IsotpReceiveError {
    /// No consecutive frame arrived in time (N_Cr).
    #[error("no consecutive frame arrived in time")]
    Timeout,
    /// A consecutive frame has the wrong sequence number.
    #[error("a consecutive frame is missing")]
    WrongSequenceNumber,
    /// The PDU is longer than this socket accepts.
    #[error("the PDU is longer than allowed")]
    TooLong,
}

/// Why a PDU was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum IsotpSendError {
    /// No flow control arrived in time (N_Bs), or a frame was not acknowledged (N_As): the kernel does not
    /// distinguish the two.
    #[error("no flow control or acknowledgement arrived in time")]
    Timeout,
    /// The receiver has no room for the PDU.
    #[error("the receiver has no room for the PDU")]
    Overflow,
    /// The flow control has an invalid status.
    #[error("the flow control has an invalid status")]
    InvalidFlowStatus,
    /// The PDU is empty or longer than the kernel accepts.
    #[error("the kernel does not accept a PDU of this length")]
    Length,
    /// The interface is down.
    #[error("the interface is down")]
    InterfaceDown,
}

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

#[derive(Debug)]
struct RawIsotp(Socket);

impl AsRawFd for RawIsotp {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl SocketOptions for RawIsotp {}

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
            match rustix::io::write(&socket.0, pdu) {
                Ok(_) => {
                    self.is_sending = true;
                    return Poll::Ready(Ok(()));
                }
                // an earlier PDU is not sent yet, or the queue is full: the kernel signals the end of neither
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::NOBUFS) => {
                    self.retry.set(Some(Instant::now() + RETRY));
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::INVAL | rustix::io::Errno::MSGSIZE) => {
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
        let socket = self.socket.as_ref()?;
        let mut asked = [PollFd::new(&socket.0, PollFlags::IN | PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
        asked.first().map(PollFd::revents)
    }

    /// Reads a PDU, if one has been received.
    fn receive(&mut self) -> Result<Option<IsotpEvent>, rustix::io::Errno> {
        let Some(socket) = &self.socket else { return Ok(None) };
        // one extra byte reveals a PDU that is too long
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

    /// Maps an error of the socket: the kernel reports errors of both directions in the same way.
    fn handle_error(&mut self, error: rustix::io::Errno) -> Option<IsotpEvent> {
        use rustix::io::Errno;
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

/// The longest PDU that this kernel's can-isotp accepts, in bytes.
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

/// A descriptor that is readable after any event of the socket. Registered directly, the socket would count
/// as closed for writing after the error of one PDU.
fn watch(socket: &RawIsotp) -> io::Result<AsyncFd<OwnedFd>> {
    let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    let what = epoll::EventFlags::IN | epoll::EventFlags::OUT;
    epoll::add(&watch, &socket.0, epoll::EventData::new_u64(0), what)?;
    async_fd(watch, Interest::READABLE)
}
