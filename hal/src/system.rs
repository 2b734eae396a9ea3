//! System calls that no library wraps safely.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// A type that owns one file descriptor for its whole life.
pub(crate) trait OwnsFd: AsRawFd {}

impl OwnsFd for OwnedFd {}
impl OwnsFd for socketcan::CanFdSocket {}
impl OwnsFd for tokio_serial::SerialStream {}

/// Borrows the owner's file descriptor.
#[allow(unsafe_code, reason = "not every owner of a descriptor implements AsFd")]
pub(crate) fn borrow<F: OwnsFd>(owner: &F) -> BorrowedFd<'_> {
    // SAFETY: an `OwnsFd` keeps its descriptor open for its whole life, and the borrow cannot outlive the
    // owner.
    unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) }
}

/// Registers a file descriptor with the runtime.
#[allow(unsafe_code, reason = "tokio has no sound safe constructor of AsyncFd")]
pub(crate) fn async_fd<F: OwnsFd>(fd: F, interest: Interest) -> io::Result<AsyncFd<F>> {
    // SAFETY: an `OwnsFd` keeps its descriptor open, and `AsyncFd` releases its owner only by consuming
    // itself.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest)? })
}

/// A descriptor that is readable while `fd` is readable or has a pending error: the runtime does not report a
/// socket's error as readable.
pub(crate) fn readable_or_failed(fd: impl AsFd) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, fd, epoll::EventData::new_u64(0), epoll::EventFlags::IN)?;
    Ok(epoll)
}

/// Drops a value on a thread that may block; outside of a runtime, here. The kernel closes a raw CAN socket only when
/// no interface is being taken down or up, which takes a USB adapter 100 ms and more.
pub(crate) fn drop_elsewhere<T: Send + 'static>(value: T) {
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => drop(runtime.spawn_blocking(move || drop(value))),
        Err(_) => drop(value),
    }
}

/// What `recvmsg` returns beside the bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ReceivedMessage {
    /// The length of the message, in bytes.
    pub len: usize,
    /// The `MSG_…` flags.
    pub flags: i32,
    /// When the kernel received the message, as real time since 1970 (`SO_TIMESTAMPNS`).
    pub timestamp: Option<Duration>,
    /// How many messages the socket has dropped since its creation, modulo 2³² (`SO_RXQ_OVFL`).
    pub dropped: Option<u32>,
}

/// A buffer for the control messages, with the alignment of their headers.
#[repr(C, align(8))]
struct ControlBuffer([u8; 128]);

/// Receives one message with its control messages.
#[allow(unsafe_code, reason = "no safe wrapper of recvmsg knows SO_RXQ_OVFL and SCM_TIMESTAMPNS")]
pub(crate) fn receive(socket: impl AsFd, bytes: &mut [u8]) -> io::Result<ReceivedMessage> {
    let mut control = ControlBuffer([0; 128]);
    let mut vector = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    // SAFETY: all zeros is a valid, empty msghdr; some of its padding fields are private on musl.
    let mut header: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    header.msg_iov = &raw mut vector;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: the descriptor is open, and the header points to live buffers of the lengths that it states.
    let len = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let len = usize::try_from(len).map_err(|_| io::Error::last_os_error())?;
    let mut received = ReceivedMessage { len, flags: header.msg_flags, ..ReceivedMessage::default() };
    // SAFETY: the header points to the control buffer, which the kernel has filled and which is still alive.
    let mut message = unsafe { libc::CMSG_FIRSTHDR(&raw const header) };
    while !message.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR return headers within the control buffer.
        let (level, kind, length) =
            unsafe { ((*message).cmsg_level, (*message).cmsg_type, (*message).cmsg_len as usize) };
        // SAFETY: CMSG_LEN(0) computes a constant.
        let overhead = unsafe { libc::CMSG_LEN(0) } as usize;
        // SAFETY: the payload follows its header within the control buffer and has the length that the header
        // states.
        let payload =
            unsafe { std::slice::from_raw_parts(libc::CMSG_DATA(message), length.saturating_sub(overhead)) };
        if level == libc::SOL_SOCKET && kind == libc::SO_RXQ_OVFL {
            received.dropped = payload.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        } else if level == libc::SOL_SOCKET && kind == libc::SCM_TIMESTAMPNS {
            received.timestamp = read_timespec(payload);
        }
        // SAFETY: `message` lies within the control buffer of `header`; the result is null after the last
        // message.
        message = unsafe { libc::CMSG_NXTHDR(&raw const header, message) };
    }
    Ok(received)
}

/// Reads seconds and nanoseconds: 64 bits each, or 32 bits each on older 32-bit systems.
fn read_timespec(payload: &[u8]) -> Option<Duration> {
    let (seconds, nanoseconds) = match payload.len() {
        16.. => {
            let (seconds, rest) = payload.split_first_chunk()?;
            (i64::from_ne_bytes(*seconds), i64::from_ne_bytes(*rest.first_chunk()?))
        }
        _ => {
            let (seconds, rest) = payload.split_first_chunk()?;
            (i32::from_ne_bytes(*seconds).into(), i32::from_ne_bytes(*rest.first_chunk()?).into())
        }
    };
    Some(Duration::new(seconds.try_into().ok()?, u32::try_from(nanoseconds).ok()?))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use super::*;

    /// Reports the thread on which it is dropped.
    struct Dropped(mpsc::Sender<ThreadId>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            _ = self.0.send(thread::current().id());
        }
    }

    #[tokio::test]
    async fn a_value_that_may_block_is_not_dropped_on_the_thread_of_the_runtime() {
        let (report, dropped) = mpsc::channel();
        drop_elsewhere(Dropped(report));
        let on = tokio::task::spawn_blocking(move || dropped.recv().unwrap()).await.unwrap();
        assert_ne!(on, thread::current().id());
    }

    #[test]
    fn outside_of_a_runtime_a_value_is_dropped_immediately() {
        let (report, dropped) = mpsc::channel();
        drop_elsewhere(Dropped(report));
        assert_eq!(dropped.try_recv(), Ok(thread::current().id()));
    }
}
