//! The system calls of a can-isotp socket.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use rustix::event::{PollFd, PollFlags, Timespec, epoll, poll};
use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use socketcan::{CanAddr, ExtendedId, Id, SocketOptions, StandardId};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::options::IsotpOptions;
use super::transfer::SocketCalls;
use crate::can::CanId;
use crate::system::async_fd;

/// `SOL_CAN_ISOTP` and its options (`linux/can/isotp.h`).
const SOL_CAN_ISOTP: i32 = 100 + libc::CAN_ISOTP;
const CAN_ISOTP_OPTS: i32 = 1;
const CAN_ISOTP_RECV_FC: i32 = 2;
const CAN_ISOTP_LL_OPTS: i32 = 5;
/// The longest PDU of kernels before 6.4, which do not publish their limit. Even older kernels accept
/// 8200 bytes and refuse a longer PDU.
const OLD_MAX_PDU: usize = 66_000;

#[derive(Debug)]
pub(super) struct RawIsotp(Socket);

impl AsRawFd for RawIsotp {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl SocketOptions for RawIsotp {}

impl RawIsotp {
    /// Opens a socket on a network interface.
    pub(super) fn open(interface: &str, options: &IsotpOptions) -> io::Result<Self> {
        let protocol = Protocol::from(libc::CAN_ISOTP);
        let socket =
            Socket::new(Domain::from(libc::AF_CAN), Type::DGRAM.nonblocking().cloexec(), Some(protocol))?;
        let socket = Self(socket);
        socket.set_socket_option_bytes(SOL_CAN_ISOTP, CAN_ISOTP_OPTS, &options.general())?;
        socket.set_socket_option_bytes(SOL_CAN_ISOTP, CAN_ISOTP_RECV_FC, &options.flow_control())?;
        socket.set_socket_option_bytes(SOL_CAN_ISOTP, CAN_ISOTP_LL_OPTS, &options.link_layer())?;
        let address = CanAddr::from_iface_isotp(interface, id(options.receive)?, id(options.transmit)?)?;
        socket.0.bind(&address.into_sock_addr())?;
        Ok(socket)
    }

    /// A descriptor that is readable after any event of the socket. Registered directly, the socket would
    /// count as closed for writing after the error of one PDU.
    pub(super) fn watch(&self) -> io::Result<AsyncFd<OwnedFd>> {
        let watch = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let what = epoll::EventFlags::IN | epoll::EventFlags::OUT;
        epoll::add(&watch, &self.0, epoll::EventData::new_u64(0), what)?;
        async_fd(watch, Interest::READABLE)
    }
}

impl SocketCalls for RawIsotp {
    fn state(&self) -> Option<PollFlags> {
        let mut asked = [PollFd::new(&self.0, PollFlags::IN | PollFlags::OUT)];
        poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).ok()?;
        asked.first().map(PollFd::revents)
    }

    fn write(&self, pdu: &[u8]) -> Result<(), Errno> {
        rustix::io::write(&self.0, pdu).map(|_| ())
    }

    fn read(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::read(&self.0, buffer)
    }

    fn take_error(&self) -> Option<Errno> {
        self.0.take_error().ok()?.as_ref().and_then(Errno::from_io_error)
    }
}

fn id(id: CanId) -> io::Result<Id> {
    let raw = id.raw();
    let id = match id.is_extended() {
        true => ExtendedId::new(raw).map(Id::from),
        false => u16::try_from(raw).ok().and_then(StandardId::new).map(Id::from),
    };
    id.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))
}

/// The longest PDU that this kernel's can-isotp accepts, in bytes.
pub fn kernel_max_pdu() -> usize {
    let text = std::fs::read_to_string("/sys/module/can_isotp/parameters/max_pdu_size").ok();
    text.and_then(|text| text.trim().parse().ok()).unwrap_or(OLD_MAX_PDU)
}
