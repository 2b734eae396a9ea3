//! CAN interfaces of the Linux kernel, by raw sockets.
//!
//! The kernel filters frames and takes time stamps. A frame's outcome is its echo, which the driver returns
//! after sending the frame. If the echo of a later frame arrives first, the frame was not sent.

mod filters;
mod interface;
mod raw_frame;

use std::collections::VecDeque;
use std::io;
use std::os::fd::OwnedFd;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use socketcan::{CanFdSocket, Socket, SocketOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use self::filters::Filters;
use self::interface::{Facts, SocketCanInterface};
use self::raw_frame::RawFrame;
use super::events::EventQueue;
use crate::bus::{BusState, BusStatus, LoadMeter};
use crate::can::{
    CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings, FrameKind, IsotpOptions,
    IsotpSocket, WireLength,
};
use crate::future::BoxFuture;
use crate::system::{ReceivedMessage, async_fd, readable_or_failed, receive};
use crate::timer::{Deadline, TimerKind};

/// How many frames may be without an outcome; sending waits beyond this number. They keep a bus at 500 kbit/s
/// busy for 15 ms, the time that this process may need to be woken.
const WINDOW: usize = 64;
/// How many received frames are kept unread; further frames are lost and counted. The number is that of a
/// second on a full bus at 500 kbit/s.
const EVENTS: usize = 4096;
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

/// SocketCAN's error classes (`linux/can/error.h`), and the controller problems in the second byte of detail.
const CLASS_CONTROLLER: u32 = 0x04;
const CLASS_BUS_OFF: u32 = 0x40;
const CLASS_RESTARTED: u32 = 0x100;
const CONTROLLER_PASSIVE: u8 = 0x10 | 0x20;
const CONTROLLER_ACTIVE: u8 = 0x40;

/// A CAN bus behind a network interface.
pub(crate) struct SocketCan {
    device: String,
    interface: SocketCanInterface,
    facts: Facts,
    socket: AsyncFd<CanFdSocket>,
    /// Readable when the socket has a frame or an error to read.
    readable: AsyncFd<OwnedFd>,
    settings: Option<CanSettings>,
    filters: Filters,
    unconfirmed: VecDeque<CanFrame>,
    events: EventQueue,
    state: BusState,
    load: LoadMeter,
    /// The kernel's count of dropped frames, as last read.
    dropped: u32,
    /// The count has increased since the last echo.
    echoes_lost: bool,
    retry: Deadline,
    backoff: Duration,
    /// The error number that ended the socket. The kernel reports it once; every later poll returns it again.
    failure: Option<i32>,
}

impl SocketCan {
    /// Opens an interface, within a tokio runtime. Errors name `device`.
    pub(crate) fn open(device: &str, interface: &str) -> Result<Self, CanError> {
        let interface = SocketCanInterface::new(device, interface);
        let facts = interface.facts()?;
        let (socket, readable) = open_socket(&interface)
            .map_err(|source| CanError::Device { device: device.to_owned(), source })?;
        Ok(Self {
            device: device.to_owned(),
            interface,
            facts,
            socket,
            readable,
            settings: None,
            filters: Filters::default(),
            unconfirmed: VecDeque::new(),
            events: EventQueue::new(EVENTS),
            state: facts.state,
            load: LoadMeter::new(Instant::now()),
            dropped: 0,
            echoes_lost: false,
            retry: Deadline::new(TimerKind::Precise),
            backoff: FIRST_RETRY,
            failure: None,
        })
    }

    fn lost(&self, source: io::Error) -> CanError {
        CanError::Device { device: self.device.clone(), source }
    }

    fn unsupported(&self, what: &str) -> CanError {
        CanError::Unsupported { device: self.device.clone(), what: what.to_owned() }
    }

    /// Opens a new socket: a socket whose interface went down keeps its error.
    fn reopen(&mut self, facts: Facts) -> Result<(), CanError> {
        (self.socket, self.readable) = open_socket(&self.interface).map_err(|error| self.lost(error))?;
        self.facts = facts;
        self.state = facts.state;
        self.filters.forget_echoes();
        self.unconfirmed.clear();
        self.events = EventQueue::new(EVENTS);
        self.dropped = 0;
        self.echoes_lost = false;
        self.retry.set(None);
        self.failure = None;
        self.apply_filters()
    }

    async fn administer<F>(&mut self, action: F) -> Result<(), CanError>
    where
        F: FnOnce(&SocketCanInterface) -> Result<(), CanError> + Send + 'static,
    {
        // drivers are slow to go down and up
        let interface = self.interface.clone();
        let done = tokio::task::spawn_blocking(move || (action(&interface), interface.facts()));
        let (done, facts) = done.await.map_err(|error| self.lost(error.into()))?;
        // even after a refusal, the interface may have been down for a moment
        self.reopen(facts?)?;
        done
    }

    fn apply_filters(&self) -> Result<(), CanError> {
        let socket = self.socket.get_ref();
        let set = match self.filters.of_kernel() {
            Some(filters) => socket.set_filters(&filters),
            None => socket.set_filter_accept_all(),
        };
        set.map_err(|error| self.lost(error))
    }

    /// Processes everything that the socket has received. Ready only with an error, after all earlier frames.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<CanError> {
        loop {
            let mut guard = match self.readable.poll_read_ready(cx) {
                Poll::Ready(Ok(guard)) => Some(guard),
                Poll::Ready(Err(error)) => return Poll::Ready(self.lost(error)),
                // the kernel reports an error before the frames that arrived earlier
                Poll::Pending if self.failure.is_some() => None,
                Poll::Pending => return Poll::Pending,
            };
            let mut bytes = [0; raw_frame::FD_MTU];
            match receive(self.socket.get_ref(), &mut bytes) {
                Ok(received) => {
                    self.handle_received(&received, bytes.get(..received.len).unwrap_or(&[]));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if let Some(failure) = self.failure {
                        return Poll::Ready(self.lost(io::Error::from_raw_os_error(failure)));
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

    fn handle_received(&mut self, received: &ReceivedMessage, bytes: &[u8]) {
        if let Some(dropped) = received.dropped {
            let lost = dropped.wrapping_sub(self.dropped);
            self.dropped = dropped;
            if lost > 0 {
                self.echoes_lost = true;
                self.events.push(CanEvent::Lost(lost));
            }
        }
        let Some(frame) = raw_frame::parse(bytes) else { return };
        let at = instant(received.timestamp);
        match frame.kind() {
            FrameKind::Error { classes } => self.handle_error(frame, classes, at),
            _ if received.flags & libc::MSG_CONFIRM != 0 => {
                self.account(&frame);
                self.handle_echo(&frame, at);
            }
            _ => {
                self.account(&frame);
                // other frames passed only because of an echo's filter
                if self.filters.pass(frame.id()) {
                    self.events.push(CanEvent::Received { frame, at });
                }
            }
        }
    }

    fn account(&mut self, frame: &CanFrame) {
        if let Some(settings) = &self.settings {
            self.load.add(Instant::now(), WireLength::of(frame).occupancy(settings));
        }
    }

    fn handle_echo(&mut self, frame: &CanFrame, at: Instant) {
        // an unexpected echo belongs to a frame that an earlier user left in the interface
        let Some(place) = self.unconfirmed.iter().position(|sent| sent == frame) else { return };
        for _ in self.unconfirmed.drain(..place) {
            self.events.push(match self.echoes_lost {
                true => CanEvent::Transmitted { at },
                false => CanEvent::TransmitFailed { at },
            });
        }
        self.echoes_lost = false;
        self.unconfirmed.pop_front();
        self.events.push(CanEvent::Transmitted { at });
    }

    fn handle_error(&mut self, frame: CanFrame, classes: u32, at: Instant) {
        self.events.push(CanEvent::Received { frame, at });
        let controller =
            frame.data().get(1).copied().filter(|_| classes & CLASS_CONTROLLER != 0).unwrap_or(0);
        if classes & CLASS_BUS_OFF != 0 {
            self.set_state(BusState::Off);
        } else if controller & CONTROLLER_PASSIVE != 0 {
            self.set_state(BusState::Passive);
        } else if classes & CLASS_RESTARTED != 0 || controller & CONTROLLER_ACTIVE != 0 {
            self.set_state(BusState::Active);
        }
    }

    fn set_state(&mut self, state: BusState) {
        if state == self.state {
            return;
        }
        self.state = state;
        if state == BusState::Off {
            self.unconfirmed.clear();
        }
        self.events.push(CanEvent::State(state));
    }

    fn check_send(&self, frame: &CanFrame) -> Result<(), CanError> {
        if frame.is_error() {
            return Err(self.unsupported("send an error frame"));
        }
        if self.settings.is_some_and(|settings| settings.listen_only) {
            return Err(self.unsupported("send while it only listens"));
        }
        if frame.is_fd() && !self.facts.has_fd_mtu {
            return Err(self.unsupported("send an FD frame on a classic bus"));
        }
        Ok(())
    }
}

fn open_socket(interface: &SocketCanInterface) -> io::Result<(AsyncFd<CanFdSocket>, AsyncFd<OwnedFd>)> {
    let socket = CanFdSocket::open(interface.name())?;
    socket.set_nonblocking(true)?;
    socket.set_error_filter_accept_all()?;
    socket.set_recv_own_msgs(true)?;
    socket.set_recv_timestamp(true)?;
    socket.set_socket_option_int(libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1)?;
    // exceeding the system's limit needs a privilege
    if socket.set_socket_option_int(libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, RECEIVE_BUFFER).is_err() {
        socket.set_socket_option_int(libc::SOL_SOCKET, libc::SO_RCVBUF, RECEIVE_BUFFER)?;
    }
    let readable = async_fd(readable_or_failed(&socket)?, Interest::READABLE)?;
    Ok((async_fd(socket, Interest::WRITABLE)?, readable))
}

/// Converts a time stamp of the real-time clock.
fn instant(timestamp: Option<Duration>) -> Instant {
    let now = Instant::now();
    let clock = clock_gettime(ClockId::Realtime);
    let real = Duration::new(clock.tv_sec.try_into().unwrap_or(0), clock.tv_nsec.try_into().unwrap_or(0));
    let age = timestamp.and_then(|timestamp| real.checked_sub(timestamp)).filter(|age| *age <= OLDEST);
    age.and_then(|age| now.checked_sub(age)).unwrap_or(now)
}

impl CanBus for SocketCan {
    fn device(&self) -> &str {
        &self.device
    }

    fn capabilities(&self) -> CanCapabilities {
        self.facts.capabilities
    }

    fn status(&self) -> BusStatus {
        BusStatus { state: self.state, load: self.load.load(Instant::now()) }
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            let purge = !self.unconfirmed.is_empty();
            self.administer(move |interface| interface.set_up(&settings, purge)).await?;
            self.settings = Some(settings);
            Ok(())
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(self.administer(SocketCanInterface::restart))
    }

    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError> {
        self.filters.set(filters);
        self.apply_filters()
    }

    fn open_isotp(&self, options: &IsotpOptions, max_pdu: usize) -> Result<IsotpSocket, CanError> {
        IsotpSocket::open(&self.device, self.interface.name(), options, max_pdu)
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        self.check_send(frame)?;
        // echoes make room, so process them here too
        if let Poll::Ready(error) = self.poll_drive(cx) {
            return Poll::Ready(Err(error));
        }
        if self.unconfirmed.len() >= WINDOW || self.state == BusState::Off || self.events.is_full() {
            return Poll::Pending;
        }
        if self.filters.let_echo_through(frame.id()) {
            self.apply_filters()?;
        }
        let raw = RawFrame::from(frame);
        loop {
            if self.retry.get().is_some() {
                ready!(self.retry.poll_expired(cx));
            }
            let mut guard = match ready!(self.socket.poll_write_ready(cx)) {
                Ok(guard) => guard,
                Err(error) => return Poll::Ready(Err(self.lost(error))),
            };
            match rustix::io::write(self.socket.get_ref(), raw.as_bytes()) {
                Ok(_) => {
                    self.backoff = FIRST_RETRY;
                    self.unconfirmed.push_back(*frame);
                    return Poll::Ready(Ok(()));
                }
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::NOBUFS) => {
                    self.retry.set(Some(Instant::now() + self.backoff));
                    self.backoff = (self.backoff * 2).min(LAST_RETRY);
                }
                Err(error) => return Poll::Ready(Err(self.lost(error.into()))),
            }
        }
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        if let Some(event) = self.events.pop() {
            return Poll::Ready(Ok(event));
        }
        // report the events from before the interface went away first
        let driven = self.poll_drive(cx);
        match self.events.pop() {
            Some(event) => Poll::Ready(Ok(event)),
            None => driven.map(Err),
        }
    }
}
