//! The interface of every CAN adapter: settings, state, sending and receiving.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{CanError, CanFrame, CanId, IsotpOptions, IsotpSocket};
use crate::bus::{BusState, BusStatus};
use crate::future::BoxFuture;

/// How to set up a bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanSettings {
    /// The nominal bit rate, in bit/s.
    pub bit_rate: u32,
    /// The bit rate of the data phase, in bit/s; `Some` means CAN FD.
    pub data_bit_rate: Option<u32>,
    /// Receive without acknowledging or sending anything.
    pub listen_only: bool,
}

/// What an adapter can do beyond sending and receiving classic frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CanCapabilities {
    /// The adapter sends and receives CAN FD frames.
    pub fd: bool,
    /// The adapter can listen without acknowledging.
    pub listen_only: bool,
    /// The adapter's bit rate can be set. The system may have set up a SocketCAN interface that we may not
    /// change.
    pub set_bit_rate: bool,
    /// [`CanEvent::Transmitted`] means that a frame was on the wire, not only that the adapter accepted it.
    pub confirms_transmission: bool,
}

/// An event on a bus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CanEvent {
    /// A frame from another node, or an error frame.
    Received {
        /// The frame.
        frame: CanFrame,
        /// When the frame ended on the bus, as exactly as the adapter can measure.
        at: Instant,
    },
    /// The oldest frame accepted by [`CanBus::poll_send`] that has no outcome yet was acknowledged on the
    /// bus.
    Transmitted {
        /// When the frame ended on the bus.
        at: Instant,
    },
    /// The oldest frame accepted by [`CanBus::poll_send`] that has no outcome yet will not be sent.
    TransmitFailed {
        /// When the adapter reported the failure.
        at: Instant,
    },
    /// Another frame than the oldest one without an outcome has its outcome, because the controller sends by
    /// identifier. Only after [`CanBus::report_overtaking`]; otherwise the outcome waits for those of the older frames.
    Overtaking {
        /// How many older frames have no outcome yet.
        older: usize,
        /// Whether the frame was acknowledged on the bus; otherwise it will not be sent.
        is_transmitted: bool,
        /// When the frame ended on the bus, or the adapter reported the failure.
        at: Instant,
    },
    /// The state changed. With [`BusState::Off`], every frame without an outcome is lost and gets no event.
    State(BusState),
    /// At least this many received frames were lost because a buffer was full.
    Lost(u32),
}

/// Selects the frames to receive: the identifier equals `id` in the bits of `mask` and has the same format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanFilter {
    /// The identifier to match.
    pub id: CanId,
    /// The bits to compare.
    pub mask: u32,
}

impl CanFilter {
    /// Matches one identifier only.
    pub fn exactly(id: CanId) -> Self {
        Self { id, mask: 0x1FFF_FFFF }
    }

    /// Whether a frame with this identifier matches.
    pub(crate) fn matches(&self, id: CanId) -> bool {
        id.is_extended() == self.id.is_extended() && (id.raw() ^ self.id.raw()) & self.mask == 0
    }
}

/// An open CAN bus, owned by one task.
///
/// The adapter sends frames in the order in which [`CanBus::poll_send`] accepted them, those with different identifiers
/// perhaps in another one. Each frame gets one outcome event, in the order in which the frames were accepted, unless
/// [`CanBus::report_overtaking`] was called. Frames without an outcome may still be sent after the bus is dropped, so
/// callers keep them few, or call [`CanBus::leave`].
pub trait CanBus: Send {
    /// The device's name as the configuration spells it.
    fn device(&self) -> &str;

    /// What the adapter can do.
    fn capabilities(&self) -> CanCapabilities;

    /// The state and load as last known.
    fn status(&self) -> BusStatus;

    /// Sets bit rates and mode and joins the bus. Frames that wait in the adapter are discarded.
    ///
    /// Settings that are already in effect succeed even if the adapter cannot change them.
    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>>;

    /// Leaves the bus-off state, unless the adapter does so by itself.
    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>>;

    /// Leaves the bus. Waits for the outcomes of frames until `patience` is over, and discards the frames that have
    /// none then. An adapter that stays on the bus only listens, if it can. A device that is opened meanwhile
    /// waits.
    ///
    /// Adapters that leave the bus when they are closed are closed immediately.
    fn leave(self: Box<Self>, _patience: Duration) -> BoxFuture<'static, ()> {
        drop(self);
        Box::pin(std::future::ready(()))
    }

    /// Waits, for a bounded time, until [`CanBus::poll_event`] can report every error that a bus to which the adapter
    /// only listens has had so far. Adapters that report errors by themselves are ready immediately.
    ///
    /// Errors: the adapter failed.
    fn hear_out(&mut self) -> BoxFuture<'_, Result<(), CanError>> {
        Box::pin(std::future::ready(Ok(())))
    }

    /// Reports each outcome when it is known, also before those of older frames, by [`CanEvent::Overtaking`]. An
    /// adapter that does not know the order ignores the call.
    fn report_overtaking(&mut self) {}

    /// Receives only frames that one of the filters matches; an empty list receives all. Error frames always
    /// pass.
    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError>;

    /// Opens an ISO-TP socket of the operating system on this bus; `max_pdu` is the longest accepted PDU, in
    /// bytes.
    ///
    /// Errors: the system or the adapter has no ISO-TP ([`CanError::Unsupported`]), or the device does not
    /// exist.
    fn open_isotp(&self, _options: &IsotpOptions, _max_pdu: usize) -> Result<IsotpSocket, CanError> {
        let what = "speak ISO-TP by itself".to_owned();
        Err(CanError::Unsupported { device: self.device().to_owned(), what })
    }

    /// Hands a frame to the adapter; pending while the adapter or the system's queue is full (ENOBUFS).
    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>>;

    /// The next event. After a fatal error, drop the bus and open it again.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>>;
}

/// Asynchronous methods of every [`CanBus`]; both are cancel-safe.
pub trait CanBusExt: CanBus {
    /// Waits until the adapter has accepted the frame.
    fn send(&mut self, frame: &CanFrame) -> impl Future<Output = Result<(), CanError>> + Send {
        poll_fn(|cx| self.poll_send(cx, frame))
    }

    /// Waits for the next event.
    fn event(&mut self) -> impl Future<Output = Result<CanEvent, CanError>> + Send {
        poll_fn(|cx| self.poll_event(cx))
    }
}

impl<B: CanBus + ?Sized> CanBusExt for B {}
