//! The few system calls that no library wraps safely.

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Registers a file descriptor with the runtime.
#[allow(unsafe_code)]
pub(crate) fn async_fd(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` owns a valid descriptor, and `AsyncFd` gives it away only by consuming itself.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest)? })
}
