//! A simulated SLCAN adapter: it connects the program that opens its pty to a virtual bus.
//!
//! `protocol` decides what the adapter answers; [`SimAdapter`] moves bytes and frames.

mod host_line;
mod protocol;

use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use self::host_line::{HostLine, StreamLine};
use self::protocol::{AdapterProtocol, ControllerAction};
use super::reader::{LineReader, RawLine};
use crate::can::CanBus;
use crate::can::virtual_bus::{VirtualBus, VirtualCan};
use crate::pty::{DeviceLink, Pty};

/// The CAN controller of an adapter: a node of a virtual bus, or another implementation of [`CanBus`].
pub trait Controller: CanBus {
    /// Leaves the bus and discards waiting frames in both directions, as when a host closes the device.
    fn leave(&mut self);
}

impl Controller for VirtualCan {
    fn leave(&mut self) {
        VirtualCan::leave(self);
    }
}

/// An SLCAN adapter on a pty, for any host program. The device exists until this is dropped.
///
/// The adapter answers a frame with `z` or `Z` after the bus has acknowledged it, and reports states and
/// errors as the slcan driver of Linux expects. A host that closes the device takes the adapter off the bus.
pub struct SlcanAdapter {
    device: PathBuf,
    task: AbortHandle,
    _link: Option<DeviceLink>,
}

impl SlcanAdapter {
    /// Creates an adapter and, at `link`, a symbolic link to its device. Call this within a tokio runtime.
    /// The bus should use [`TimerKind::Precise`](crate::timer::TimerKind).
    pub fn new(link: Option<&Path>, bus: &VirtualBus, name: &str) -> io::Result<Self> {
        Self::with_controller(link, bus.attach_adapter(name, VirtualBus::full_capabilities()))
    }

    /// Creates an adapter with its own controller instead of a virtual bus; `link` becomes a link to its
    /// device.
    pub fn with_controller<N: Controller + 'static>(link: Option<&Path>, node: N) -> io::Result<Self> {
        let pty = Pty::new()?;
        let device = pty.slave_path().to_owned();
        let link = link.map(|link| DeviceLink::new(link, &device)).transpose()?;
        let task = tokio::spawn(async move {
            if let Err(error) = SimAdapter::new(pty, node).run().await {
                tracing::warn!(%error, "the simulated SLCAN adapter has stopped");
            }
        });
        Ok(Self { device, task: task.abort_handle(), _link: link })
    }

    /// The path of the pty that a host opens.
    pub fn device(&self) -> &Path {
        &self.device
    }

    /// Serves one host over any byte stream until the stream ends.
    pub async fn serve<S>(stream: S, bus: &VirtualBus, name: &str) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send,
    {
        let node = bus.attach_adapter(name, VirtualBus::full_capabilities());
        SimAdapter::new(StreamLine(stream), node).run().await
    }
}

impl Drop for SlcanAdapter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The shell of an adapter: moves lines between the host and the protocol, and frames between the protocol and
/// the controller.
struct SimAdapter<L, N> {
    line: L,
    node: N,
    reader: LineReader,
    protocol: AdapterProtocol,
}

impl<L: HostLine, N: Controller> SimAdapter<L, N> {
    fn new(line: L, node: N) -> Self {
        let protocol = AdapterProtocol::new(Instant::now());
        Self { line, node, reader: LineReader::default(), protocol }
    }

    async fn run(mut self) -> io::Result<()> {
        loop {
            let line = poll_fn(|cx| self.poll_line(cx)).await?;
            self.handle_line(&line).await;
        }
    }

    /// Transfers frames, states and answers. Ready with a line of the host, or with an error at the end of
    /// the stream.
    fn poll_line(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<RawLine>> {
        loop {
            self.transmit_frames(cx);
            self.process_events(cx)?;
            self.write_answers(cx)?;
            self.process_close(cx);
            if !self.protocol.has_room() {
                return Poll::Pending;
            }
            if let Some(line) = self.reader.next_line() {
                return Poll::Ready(Ok(line));
            }
            ready!(self.read_lines(cx))?;
        }
    }

    /// Hands the host's frames to the controller, as far as the controller takes them.
    fn transmit_frames(&mut self, cx: &mut Context<'_>) {
        while let Some(frame) = self.protocol.next_frame()
            && let Poll::Ready(taken) = self.node.poll_send(cx, frame)
        {
            self.protocol.handle_taken(taken.is_ok());
        }
    }

    fn process_events(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while let Poll::Ready(event) = self.node.poll_event(cx) {
            self.protocol.handle_event(event.map_err(io::Error::other)?);
        }
        Ok(())
    }

    fn write_answers(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        while !self.protocol.out().is_empty()
            && let Poll::Ready(written) = Pin::new(&mut self.line).poll_write(cx, self.protocol.out())
        {
            self.protocol.handle_written(written?);
        }
        Ok(())
    }

    /// Takes the adapter off the bus if the host has closed the line.
    fn process_close(&mut self, cx: &mut Context<'_>) {
        if self.line.poll_closed(cx) {
            self.node.leave();
            self.reader = LineReader::default();
            self.protocol.reset();
        }
    }

    /// Ready when the reader has more bytes.
    fn read_lines(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut bytes = [0; 4096];
        let mut buffer = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.line).poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
        }
        // the last host's close is reported before the bytes of the next host
        self.process_close(cx);
        self.reader.push(buffer.filled());
        Poll::Ready(Ok(()))
    }

    async fn handle_line(&mut self, line: &RawLine) {
        match self.protocol.handle_line(line, self.node.status().state) {
            Some(ControllerAction::Join(settings)) => {
                let is_joined = self.node.configure(settings).await.is_ok();
                self.protocol.handle_joined(settings, is_joined);
            }
            Some(ControllerAction::Leave) => self.node.leave(),
            None => {}
        }
    }
}
