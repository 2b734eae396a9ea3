//! CAN interfaces of the Linux kernel, by raw sockets.
//!
//! The kernel filters frames and takes time stamps. A frame's outcome is its echo, which the driver returns
//! after sending the frame. If the echo of a later frame with the same identifier arrives first, the frame was not
//! sent.

mod exclusive;
mod filters;
mod interface;
mod raw_frame;
mod socket;
mod traffic;

use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use self::exclusive::{InterfaceLock, run_with};
use self::interface::{Facts, SocketCanInterface};
use self::raw_frame::RawFrame;
use self::socket::{PreparedSocket, RawSocket};
use self::traffic::Traffic;
use crate::bus::BusStatus;
use crate::can::{
    CanBus, CanCapabilities, CanError, CanEvent, CanFilter, CanFrame, CanSettings, IsotpOptions, IsotpSocket,
};
use crate::future::BoxFuture;

/// A CAN bus behind a network interface.
pub(crate) struct SocketCan {
    device: String,
    interface: SocketCanInterface,
    lock: InterfaceLock,
    facts: Facts,
    socket: RawSocket,
    traffic: Traffic,
}

impl SocketCan {
    /// Opens an interface, within a tokio runtime, and blocks meanwhile. Errors name `device`.
    pub(crate) fn open(device: &str, interface: &str) -> Result<Self, CanError> {
        let interface = SocketCanInterface::new(device, interface);
        let prepared = prepare(&interface)?;
        Self::with_socket(device, interface, prepared)
    }

    /// Opens an interface, within a tokio runtime, after everything that was begun on it has ended. Errors name
    /// `device`.
    pub(crate) async fn open_in_turn(device: &str, interface: &str) -> Result<Self, CanError> {
        let interface = SocketCanInterface::new(device, interface);
        let own = interface.clone();
        let prepared = InterfaceLock::of(interface.name()).run(move || prepare(&own)).await;
        let prepared = prepared.map_err(|source| CanError::Device { device: device.to_owned(), source })?;
        Self::with_socket(device, interface, prepared?)
    }

    fn with_socket(
        device: &str,
        interface: SocketCanInterface,
        (facts, socket): (Facts, PreparedSocket),
    ) -> Result<Self, CanError> {
        let socket = RawSocket::new(socket)
            .map_err(|source| CanError::Device { device: device.to_owned(), source })?;
        let traffic = Traffic::new(facts.state, Instant::now());
        let lock = InterfaceLock::of(interface.name());
        Ok(Self { device: device.to_owned(), interface, lock, facts, socket, traffic })
    }

    fn lost(&self, source: io::Error) -> CanError {
        CanError::Device { device: self.device.clone(), source }
    }

    fn unsupported(&self, what: &str) -> CanError {
        CanError::Unsupported { device: self.device.clone(), what: what.to_owned() }
    }

    /// Carries out an action that may take the interface down for a moment.
    async fn administer<F>(&mut self, action: F) -> Result<(), CanError>
    where
        F: FnOnce(&SocketCanInterface) -> Result<(), CanError> + Send + 'static,
    {
        // drivers are slow to go down and up
        let interface = self.interface.clone();
        let done = self.lock.run(move || (action(&interface), prepare(&interface))).await;
        let (done, prepared) = done.map_err(|error| self.lost(error))?;
        // even after a refusal, the interface may have been down for a moment
        self.reopen(prepared?)?;
        done
    }

    fn reopen(&mut self, (facts, socket): (Facts, PreparedSocket)) -> Result<(), CanError> {
        self.socket.replace(socket).map_err(|error| self.lost(error))?;
        self.facts = facts;
        self.traffic.handle_reopened(facts.state);
        // a new socket receives everything, and setting filters blocks while any interface goes down or up
        if self.traffic.filters.of_kernel().is_some() { self.apply_filters() } else { Ok(()) }
    }

    /// Waits until every frame has its outcome, or an error.
    async fn settle(&mut self) {
        poll_fn(|cx| match self.process_messages(cx) {
            Poll::Pending if self.traffic.has_unconfirmed() => Poll::Pending,
            _ => Poll::Ready(()),
        })
        .await;
    }

    fn apply_filters(&self) -> Result<(), CanError> {
        let filters = self.traffic.filters.of_kernel();
        self.socket.set_filters(filters.as_deref()).map_err(|error| self.lost(error))
    }

    /// Processes all messages of the socket. Ready only with an error, after all earlier frames.
    fn process_messages(&mut self, cx: &mut Context<'_>) -> Poll<CanError> {
        loop {
            match ready!(self.socket.poll_receive(cx)) {
                Ok(message) => self.traffic.handle_message(Instant::now(), &message),
                Err(error) => return Poll::Ready(self.lost(error)),
            }
        }
    }

    fn check_send(&self, frame: &CanFrame) -> Result<(), CanError> {
        if frame.is_error() {
            return Err(self.unsupported("send an error frame"));
        }
        if self.traffic.is_listen_only() {
            return Err(self.unsupported("send while it only listens"));
        }
        if frame.is_fd() && !self.facts.has_fd_mtu {
            return Err(self.unsupported("send an FD frame on a classic bus"));
        }
        Ok(())
    }
}

/// Reads the facts about an interface and opens a socket on it. This may block.
fn prepare(interface: &SocketCanInterface) -> Result<(Facts, PreparedSocket), CanError> {
    let facts = interface.facts()?;
    let socket = PreparedSocket::open(interface.name()).map_err(|error| interface.lost(error.into()))?;
    Ok((facts, socket))
}

impl CanBus for SocketCan {
    fn device(&self) -> &str {
        &self.device
    }

    fn capabilities(&self) -> CanCapabilities {
        self.facts.capabilities
    }

    fn status(&self) -> BusStatus {
        self.traffic.status(Instant::now())
    }

    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(async move {
            let purge = self.traffic.has_unconfirmed();
            self.administer(move |interface| interface.set_up(&settings, purge)).await?;
            self.traffic.handle_configured(settings);
            Ok(())
        })
    }

    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(self.administer(SocketCanInterface::restart))
    }

    fn report_overtaking(&mut self) {
        self.traffic.report_overtaking();
    }

    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError> {
        self.traffic.filters.set(filters);
        self.apply_filters()
    }

    fn open_isotp(&self, options: &IsotpOptions, max_pdu: usize) -> Result<IsotpSocket, CanError> {
        IsotpSocket::open(&self.device, self.interface.name(), options, max_pdu)
    }

    fn leave(mut self: Box<Self>, patience: Duration) -> BoxFuture<'static, ()> {
        // taken now, so that the next process or task that opens the interface waits
        let guard = self.lock.try_lock();
        Box::pin(async move {
            let guard = match guard {
                Some(guard) => guard,
                None => self.lock.lock().await,
            };
            let _too_late = tokio::time::timeout(patience, self.settle()).await;
            let leave = move || {
                let (interface, purge) = (self.interface.clone(), self.traffic.has_unconfirmed());
                // closing a socket may block too
                drop(self);
                interface.leave(purge);
            };
            if let Err(error) = run_with(guard, leave).await {
                tracing::debug!(%error, "an interface was not left in order");
            }
        })
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>> {
        self.check_send(frame)?;
        // echoes make room, so process them here too
        if let Poll::Ready(error) = self.process_messages(cx) {
            return Poll::Ready(Err(error));
        }
        if !self.traffic.has_room() {
            return Poll::Pending;
        }
        if self.traffic.filters.let_echo_through(frame.id()) {
            self.apply_filters()?;
        }
        let written = ready!(self.socket.poll_write(cx, &RawFrame::from(frame)));
        Poll::Ready(match written {
            Ok(()) => {
                self.traffic.handle_sent(frame);
                Ok(())
            }
            Err(error) => Err(self.lost(error)),
        })
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>> {
        if let Some(event) = self.traffic.poll_event() {
            return Poll::Ready(Ok(event));
        }
        // report the events from before the interface went away first
        let processed = self.process_messages(cx);
        match self.traffic.poll_event() {
            Some(event) => Poll::Ready(Ok(event)),
            None => processed.map(Err),
        }
    }
}
