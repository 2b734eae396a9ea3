//! A pseudo-terminal whose other end looks like a serial device.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use rustix::fs::{Mode, OFlags, inotify};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, QueueSelector, tcflush, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::system::async_fd;

/// The simulated adapter's end of a pseudo-terminal.
pub(crate) struct Pty {
    master: AsyncFd<OwnedFd>,
    /// Stays open, so that a host that closes the device does not hang up the master.
    slave: OwnedFd,
    slave_path: PathBuf,
    watch: Option<HostWatch>,
}

/// Counts how many times hosts have the device open.
struct HostWatch {
    notifications: AsyncFd<OwnedFd>,
    open: u32,
}

impl Pty {
    pub(crate) fn new() -> io::Result<Self> {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let name = ptsname(&master, Vec::new())?;
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
        rustix::io::ioctl_fionbio(&master, true)?;
        let slave_path = PathBuf::from(name.to_string_lossy().into_owned());
        let watch = HostWatch::new(&slave_path)
            .inspect_err(|error| tracing::warn!(%error, "cannot detect when a host closes the pty"))
            .ok();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let pty = Self { master: async_fd(master, interest)?, slave, slave_path, watch };
        pty.set_raw()?;
        Ok(pty)
    }

    /// The path of the device that a host opens.
    pub(crate) fn slave_path(&self) -> &Path {
        &self.slave_path
    }

    /// The descriptor that holds the host's terminal settings.
    pub(crate) fn settings(&self) -> impl AsFd {
        self.slave.as_fd()
    }

    /// Whether the last host has closed the device since the last call. Call this after each read: the bytes
    /// may come from another host than the bytes before.
    pub(crate) fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        let closed = self.watch.as_mut().is_some_and(|watch| watch.poll_closed(cx));
        if closed {
            // the next host gets a fresh device: not exclusive, as a killed host may have left it, and
            // without old output
            let _ = rustix::termios::ioctl_tiocnxcl(&self.slave);
            let _ = tcflush(&self.slave, QueueSelector::IFlush);
            let _ = self.set_raw();
        }
        closed
    }

    fn set_raw(&self) -> io::Result<()> {
        let mut attributes = tcgetattr(&self.slave)?;
        attributes.make_raw();
        Ok(tcsetattr(&self.slave, OptionalActions::Now, &attributes)?)
    }
}

impl HostWatch {
    fn new(path: &Path) -> io::Result<Self> {
        let notifications = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)?;
        inotify::add_watch(&notifications, path, inotify::WatchFlags::OPEN | inotify::WatchFlags::CLOSE)?;
        Ok(Self { notifications: async_fd(notifications, Interest::READABLE)?, open: 0 })
    }

    fn poll_closed(&mut self, cx: &mut Context<'_>) -> bool {
        let mut closed = false;
        while let Poll::Ready(Ok(mut guard)) = self.notifications.poll_read_ready(cx) {
            let mut buffer = [MaybeUninit::uninit(); 1024];
            let mut reader = inotify::Reader::new(self.notifications.get_ref(), &mut buffer);
            loop {
                match reader.next() {
                    Ok(event) if event.events().contains(inotify::ReadFlags::OPEN) => self.open += 1,
                    Ok(_) => {
                        self.open = self.open.saturating_sub(1);
                        closed |= self.open == 0;
                    }
                    Err(_) => break,
                }
            }
            guard.clear_ready();
        }
        closed
    }
}

impl AsyncRead for Pty {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.master.poll_read_ready(cx))?;
            match rustix::io::read(self.master.get_ref(), buffer.initialize_unfilled()) {
                Ok(read) => {
                    buffer.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.master.poll_write_ready(cx))?;
            match rustix::io::write(self.master.get_ref(), bytes) {
                Ok(written) => return Poll::Ready(Ok(written)),
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(error) => return Poll::Ready(Err(error.into())),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A symbolic link to the device; dropping removes it.
pub(crate) struct DeviceLink {
    path: PathBuf,
    target: PathBuf,
}

impl DeviceLink {
    /// Creates the link and replaces an existing link; an error if anything else exists at `path`.
    pub(crate) fn new(path: &Path, target: &Path) -> io::Result<Self> {
        match std::fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_symlink() => std::fs::remove_file(path)?,
            Ok(_) => {
                let what = format!("{} exists and is not a symbolic link", path.display());
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, what));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        std::os::unix::fs::symlink(target, path)?;
        Ok(Self { path: path.to_owned(), target: target.to_owned() })
    }
}

impl Drop for DeviceLink {
    fn drop(&mut self) {
        // another adapter may have replaced the link
        if std::fs::read_link(&self.path).is_ok_and(|target| target == self.target) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
