//! What every CAN adapter offers: frames in and out, its state, and how it is set up.

use std::future::{Future, poll_fn};
use std::task::{Context, Poll};
use std::time::Instant;

use super::{CanError, CanFrame, CanId, IsotpOptions, IsotpSocket};
use crate::bus::{BusState, BusStatus};
use crate::future::BoxFuture;

/// How a bus is to be set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanSettings {
    /// The nominal bit rate, in bit/s.
    pub bit_rate: u32,
    /// The data phase's bit rate, in bit/s; present means CAN FD.
    pub data_bit_rate: Option<u32>,
    /// Receive without acknowledging or sending anything.
    pub listen_only: bool,
}

/// What an adapter can do beyond sending and receiving classic frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CanCapabilities {
    /// CAN FD frames.
    pub fd: bool,
    /// Listening without acknowledging.
    pub listen_only: bool,
    /// Setting the bit rate (a SocketCAN interface may be set up by the system, and not be ours to change).
    pub set_bit_rate: bool,
    /// [`CanEvent::Transmitted`] tells that a frame was on the wire, not only that the adapter took it.
    pub confirms_transmission: bool,
}

/// What happened on a bus.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CanEvent {
    /// A frame of another node, or an error frame.
    Received {
        /// The frame.
        frame: CanFrame,
        /// When its end was on the bus, as near as the adapter can tell.
        at: Instant,
    },
    /// The oldest frame accepted by [`CanBus::poll_send`] that has no outcome yet was acknowledged on the bus.
    Transmitted {
        /// When its end was on the bus.
        at: Instant,
    },
    /// The oldest frame accepted by [`CanBus::poll_send`] that has no outcome yet will not be sent.
    TransmitFailed {
        /// When that was known.
        at: Instant,
    },
    /// The state changed. Going [`BusState::Off`], every frame without an outcome is lost, and gets no event.
    State(BusState),
    /// Received frames were lost before we could read them (a full buffer): how many, at least.
    Lost(u32),
}

/// Which frames are received: those whose identifier is `id` in the bits of `mask`, in the same format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CanFilter {
    /// The identifier to match.
    pub id: CanId,
    /// The bits that count.
    pub mask: u32,
}

impl CanFilter {
    /// Receives just one identifier.
    pub fn exactly(id: CanId) -> Self {
        Self { id, mask: 0x1FFF_FFFF }
    }

    /// Whether a frame with this identifier passes.
    pub(crate) fn matches(&self, id: CanId) -> bool {
        id.is_extended() == self.id.is_extended() && (id.raw() ^ self.id.raw()) & self.mask == 0
    }
}

/// One CAN bus, opened, owned by one task.
///
/// Frames leave in the order in which [`CanBus::poll_send`] took them, and each has one outcome event, in the same
/// order. A frame dropped with the bus object may still leave: callers keep few frames without an outcome.
pub trait CanBus: Send {
    /// The device's name as the configuration spells it.
    fn device(&self) -> &str;

    /// What the adapter can do.
    fn capabilities(&self) -> CanCapabilities;

    /// State and load as last known.
    fn status(&self) -> BusStatus;

    /// Sets bit rates and mode, and goes on the bus; frames waiting in the adapter are discarded.
    ///
    /// Setting what is already set succeeds also where the adapter cannot change it.
    fn configure(&mut self, settings: CanSettings) -> BoxFuture<'_, Result<(), CanError>>;

    /// Leaves the bus-off state, where the adapter does not by itself.
    fn restart(&mut self) -> BoxFuture<'_, Result<(), CanError>>;

    /// Receives only frames that one of the filters matches; an empty list receives everything, error frames always.
    fn set_filters(&mut self, filters: &[CanFilter]) -> Result<(), CanError>;

    /// Opens a socket by which the system itself speaks ISO-TP on this bus; `max_pdu` is the longest PDU taken, in bytes.
    ///
    /// Errors: the system or the adapter has none ([`CanError::Unsupported`]), or no such device.
    fn open_isotp(&self, _options: &IsotpOptions, _max_pdu: usize) -> Result<IsotpSocket, CanError> {
        let what = "speak ISO-TP by itself".to_owned();
        Err(CanError::Unsupported { device: self.device().to_owned(), what })
    }

    /// Hands a frame to the adapter; pending while it has no room (ENOBUFS is waited out here).
    fn poll_send(&mut self, cx: &mut Context<'_>, frame: &CanFrame) -> Poll<Result<(), CanError>>;

    /// The next event; after a fatal error, only dropping the bus and opening it again helps.
    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Result<CanEvent, CanError>>;
}

/// The asynchronous face of [`CanBus`]; both calls are cancel-safe.
pub trait CanBusExt: CanBus {
    /// Waits until the adapter has taken the frame.
    fn send(&mut self, frame: &CanFrame) -> impl Future<Output = Result<(), CanError>> + Send {
        poll_fn(|cx| self.poll_send(cx, frame))
    }

    /// Waits for the next event.
    fn event(&mut self) -> impl Future<Output = Result<CanEvent, CanError>> + Send {
        poll_fn(|cx| self.poll_event(cx))
    }
}

impl<B: CanBus + ?Sized> CanBusExt for B {}
