//! A simulated SLCAN adapter: it connects the program that opens its pty to a virtual bus.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::codec::{self, BusErrors, ControllerState, SlcanLine, StatusFlags};
use super::host_line::{HostLine, StreamLine};
use super::reader::{LineReader, RawLine};
use super::values;
use crate::bus::BusState;
use crate::can::virtual_bus::{VirtualBus, VirtualCan};
use crate::can::{CanBus, CanEvent, CanFrame, CanSettings, FrameKind};
use crate::pty::{DeviceLink, Pty};

/// How many frames of the host wait for the controller. Beyond this number the adapter stops reading, so that
/// the serial device slows down a host that writes faster than the bus. A host keeps far fewer frames without
/// an answer.
const WAITING_LIMIT: usize = 256;
/// How many bytes of output stay unread. Beyond this number received frames are lost, as in a real adapter,
/// and the overrun flag is set. The number is that of 0.7 s on a full bus at 500 kbit/s.
const OUTPUT_LIMIT: usize = 64 * 1024;

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

struct SimAdapter<L, N> {
    line: L,
    node: N,
    reader: LineReader,
    out: Vec<u8>,
    start: Instant,
    bit_rate: Option<u32>,
    data_bit_rate: Option<u32>,
    /// The settings on the bus; `None` while off the bus.
    open: Option<CanSettings>,
    timestamps: bool,
    overrun: bool,
    had_errors: bool,
    waiting: VecDeque<CanFrame>,
    /// For each frame in the controller, whether its identifier has 29 bits.
    sent: VecDeque<bool>,
}

impl<L: HostLine, N: Controller> SimAdapter<L, N> {
    fn new(line: L, node: N) -> Self {
        Self {
            line,
            node,
            reader: LineReader::default(),
            out: Vec::new(),
            start: Instant::now(),
            bit_rate: None,
            data_bit_rate: None,
            open: None,
            timestamps: false,
            overrun: false,
            had_errors: false,
            waiting: VecDeque::new(),
            sent: VecDeque::new(),
        }
    }

    async fn run(mut self) -> io::Result<()> {
        loop {
            let line = poll_fn(|cx| self.poll_drive(cx)).await?;
            self.handle_line(&line).await;
        }
    }

    /// Transfers frames, states and answers. Ready with a line of the host, or with an error at the end of
    /// the stream.
    fn poll_drive(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<RawLine>> {
        loop {
            while let Some(frame) = self.waiting.front()
                && let Poll::Ready(taken) = self.node.poll_send(cx, frame)
            {
                match taken {
                    Ok(()) => self.sent.push_back(frame.id().is_extended()),
                    Err(_) => SlcanLine::Refused.encode(&mut self.out),
                }
                self.waiting.pop_front();
            }
            while let Poll::Ready(event) = self.node.poll_event(cx) {
                self.handle_event(event.map_err(io::Error::other)?);
            }
            while !self.out.is_empty()
                && let Poll::Ready(written) = Pin::new(&mut self.line).poll_write(cx, &self.out)
            {
                self.out.drain(..written?);
            }
            if self.line.poll_closed(cx) {
                self.reset();
            }
            if self.out.len() >= 2 * OUTPUT_LIMIT || self.waiting.len() >= WAITING_LIMIT {
                return Poll::Pending;
            }
            if let Some(line) = self.reader.next_line() {
                return Poll::Ready(Ok(line));
            }
            let mut bytes = [0; 4096];
            let mut buffer = ReadBuf::new(&mut bytes);
            ready!(Pin::new(&mut self.line).poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            // the last host's close is reported before the bytes of the next host
            if self.line.poll_closed(cx) {
                self.reset();
            }
            self.reader.push(buffer.filled());
        }
    }

    fn reset(&mut self) {
        self.leave();
        self.reader = LineReader::default();
        self.out.clear();
        self.bit_rate = None;
        self.data_bit_rate = None;
        self.timestamps = false;
    }

    fn leave(&mut self) {
        self.node.leave();
        self.open = None;
        self.overrun = false;
        self.had_errors = false;
        self.waiting.clear();
        self.sent.clear();
    }

    async fn handle_line(&mut self, line: &RawLine) {
        let RawLine::Bytes(bytes) = line else { return SlcanLine::Refused.encode(&mut self.out) };
        let answer = match codec::decode(bytes) {
            Ok(line) => self.handle_command(line).await,
            Err(_) => Some(SlcanLine::Refused),
        };
        if let Some(answer) = answer {
            answer.encode(&mut self.out);
        }
    }

    /// Executes a command and returns the answer. A frame is answered later, after it was sent.
    async fn handle_command(&mut self, command: SlcanLine) -> Option<SlcanLine> {
        let is_open = self.open.is_some();
        let done = match command {
            SlcanLine::Done => true,
            SlcanLine::Frame(frame, None) => {
                let accepted = self.open.is_some_and(|settings| {
                    !settings.listen_only && (settings.data_bit_rate.is_some() || !frame.is_fd())
                });
                if accepted && self.node.status().state != BusState::Off {
                    self.waiting.push_back(frame);
                    return None;
                }
                false
            }
            SlcanLine::SetBitRate(number) if !is_open => {
                self.bit_rate = values::bit_rate(number);
                self.bit_rate.is_some()
            }
            SlcanLine::SetBitTiming(registers) if !is_open => {
                self.bit_rate = u16::try_from(registers).ok().map(values::bit_rate_of_timing);
                self.bit_rate.is_some()
            }
            SlcanLine::SetDataBitRate(number) if !is_open => {
                self.data_bit_rate = values::data_bit_rate(number);
                self.data_bit_rate.is_some()
            }
            SlcanLine::SetTimestamps(on) if !is_open => {
                self.timestamps = on;
                true
            }
            SlcanLine::Open if !is_open => self.join_bus(false).await,
            SlcanLine::Listen if !is_open => self.join_bus(true).await,
            SlcanLine::Close => {
                self.leave();
                is_open
            }
            SlcanLine::ReadStatus if is_open => return Some(SlcanLine::Status(self.status())),
            SlcanLine::ReadVersion => return Some(SlcanLine::Version("1013".into())),
            SlcanLine::ReadSerialNumber => return Some(SlcanLine::SerialNumber("SIM1".into())),
            _ => false,
        };
        Some(if done { SlcanLine::Done } else { SlcanLine::Refused })
    }

    async fn join_bus(&mut self, listen_only: bool) -> bool {
        let Some(bit_rate) = self.bit_rate else { return false };
        let settings = CanSettings { bit_rate, data_bit_rate: self.data_bit_rate, listen_only };
        let configured = self.node.configure(settings).await.is_ok();
        self.open = configured.then_some(settings);
        configured
    }

    /// Reads and clears the status flags.
    fn status(&mut self) -> StatusFlags {
        let passive = self.node.status().state != BusState::Active;
        let overrun = std::mem::take(&mut self.overrun);
        let errors = std::mem::take(&mut self.had_errors);
        let flag = |set: bool, flag: u8| if set { flag } else { 0 };
        StatusFlags(
            flag(passive, StatusFlags::PASSIVE | StatusFlags::WARNING)
                | flag(overrun, StatusFlags::OVERRUN)
                | flag(errors, StatusFlags::BUS_ERROR),
        )
    }

    fn handle_event(&mut self, event: CanEvent) {
        let line = match event {
            CanEvent::Received { .. } if self.out.len() >= OUTPUT_LIMIT => {
                self.overrun = true;
                return;
            }
            CanEvent::Received { frame, at } => match frame.kind() {
                FrameKind::Error { classes } => {
                    self.had_errors = true;
                    let no_acknowledgement = classes & 0x20 != 0;
                    SlcanLine::Errors(BusErrors(if no_acknowledgement {
                        BusErrors::ACKNOWLEDGEMENT
                    } else {
                        BusErrors::STUFF
                    }))
                }
                _ => SlcanLine::Frame(frame, self.timestamp(at)),
            },
            CanEvent::Transmitted { .. } => match self.sent.pop_front() {
                Some(extended) => SlcanLine::Transmitted { extended },
                None => return,
            },
            CanEvent::TransmitFailed { .. } => {
                self.sent.pop_front();
                SlcanLine::Refused
            }
            CanEvent::State(state) => {
                if state == BusState::Off {
                    self.sent.clear();
                    self.waiting.clear();
                }
                let (state, errors) = match state {
                    BusState::Active => (ControllerState::Active, 0),
                    BusState::Passive => (ControllerState::Passive, 128),
                    BusState::Off => (ControllerState::Off, 255),
                };
                SlcanLine::State { state, receive_errors: 0, transmit_errors: errors }
            }
            CanEvent::Lost(_) => {
                self.overrun = true;
                return;
            }
        };
        line.encode(&mut self.out);
    }

    fn timestamp(&self, at: Instant) -> Option<u32> {
        let milliseconds = at.saturating_duration_since(self.start).as_millis() % 60_000;
        self.timestamps.then_some(milliseconds as u32)
    }
}
