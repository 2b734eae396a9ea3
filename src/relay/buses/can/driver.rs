//! Moves frames between a CAN adapter and the channels of its bus.

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use connector_hal::bus::BusState;
use connector_hal::can::{CanBus, CanError, CanEvent, CanSettings};
use connector_hal::future::BoxFuture;
use connector_hal::timer::has_read_all;

use super::bus_offs::BusOffs;
use super::channels::CanChannels;
use super::kernel_sockets::KernelSockets;
use super::open::{CanBusError, open};
use super::restart::{BUS_OFF_PAUSE, CanDriven, restart, set_up_again, stay_off};
use super::setup::CanBusSetup;
use crate::relay::buses::bus::{BusDriver, Driven};
use crate::relay::buses::channels::Channels;
use crate::relay::wire::ProblemKind;
use crate::vehicle::hardware::Hardware;

/// The number of events that are read from one bus before the next one is polled: those of about 15 ms of a full bus
/// at 500 kbit/s.
const BATCH: usize = 64;
/// The number of consecutive events after which deadlines are handled although more events may be left.
/// Otherwise a bus that is faster than the agent would block all deadlines.
const MAX_UNREAD: usize = 16 * BATCH;

/// The time that the last frames have after the end of a bus. The adapter discards those that no node has
/// acknowledged by then: stale frames must not reach a node that joins later.
const LEAVE_TIME: Duration = Duration::from_millis(100);

/// Drives the adapter of a CAN bus.
pub(crate) struct CanDriver {
    setup: CanBusSetup,
    hardware: Hardware,
    sockets: KernelSockets,
    bus_offs: BusOffs,
    /// The number of events since the adapter had none left.
    unread_for: usize,
    /// The adapter has no event left.
    has_read_all: bool,
}

impl CanDriver {
    pub(crate) fn new(setup: CanBusSetup, hardware: &Hardware) -> Self {
        Self {
            setup,
            hardware: hardware.clone(),
            sockets: KernelSockets::default(),
            bus_offs: BusOffs::default(),
            unread_for: 0,
            has_read_all: false,
        }
    }

    /// Handles up to a batch of the adapter's events. Returns whether there were any.
    fn process_events(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        device: &mut dyn CanBus,
        channels: &mut CanChannels,
    ) -> Result<bool, CanDriven> {
        self.has_read_all = false;
        for taken in 0..BATCH {
            match device.poll_event(cx) {
                Poll::Ready(Ok(event)) => {
                    self.unread_for += 1;
                    channels.handle_event(now, &event);
                    if event == CanEvent::State(BusState::Off) {
                        return Err(self.handle_bus_off(now, channels));
                    }
                }
                Poll::Ready(Err(error)) => return Err(Driven::Lost(error.into())),
                Poll::Pending => {
                    self.has_read_all = has_read_all(cx);
                    return Ok(taken > 0);
                }
            }
        }
        Ok(true)
    }

    /// Lets the adapter return to the bus after a pause, unless the bus goes off again and again.
    fn handle_bus_off(&mut self, now: Instant, channels: &mut CanChannels) -> CanDriven {
        let bus = &self.setup.name;
        if self.bus_offs.handle_bus_off(now) {
            tracing::warn!(bus, "the bus is off; restarting the adapter in a second");
            return restart(BUS_OFF_PAUSE);
        }
        tracing::warn!(bus, "the bus is off too often; it stays off until the buses are configured again");
        channels.handle_given_up(now);
        stay_off(self.setup.settings)
    }

    /// Handles deadlines. Does nothing while the event that they wait for may still be in the adapter.
    fn process_deadlines(&mut self, now: Instant, channels: &mut CanChannels) -> Result<bool, CanDriven> {
        let may_be_missed = self.has_read_all || self.unread_for >= MAX_UNREAD;
        let mut changed = false;
        if self.has_read_all {
            self.unread_for = 0;
        }
        if may_be_missed && channels.poll_timeout().is_some_and(|at| at <= now) {
            changed = true;
            self.unread_for = 0;
            channels.handle_timeout(now);
            if channels.is_stuck(now) {
                tracing::debug!(
                    bus = self.setup.name,
                    "no node acknowledges a frame; setting the adapter up again"
                );
                channels.handle_reset(now);
                return Err(set_up_again(self.setup.settings));
            }
        }
        if channels.is_kernel_stuck() {
            tracing::debug!(
                bus = self.setup.name,
                "no node acknowledges a frame of the kernel; restarting the adapter"
            );
            channels.handle_reset(now);
            return Err(restart(Duration::ZERO));
        }
        Ok(changed)
    }

    /// Passes frames to the adapter while it takes them. Returns whether it took or refused any.
    fn transmit(
        &self,
        cx: &mut Context<'_>,
        now: Instant,
        device: &mut dyn CanBus,
        channels: &mut CanChannels,
    ) -> Result<bool, CanDriven> {
        let mut changed = false;
        while let Some(frame) = channels.poll_transmit(now) {
            match device.poll_send(cx, &frame) {
                Poll::Ready(Ok(())) => channels.handle_accepted(now),
                Poll::Ready(Err(error)) if error.is_fatal() => return Err(Driven::Lost(error.into())),
                Poll::Ready(Err(error)) => {
                    tracing::debug!(bus = self.setup.name, %error, "the adapter refused a frame");
                    channels.handle_refused(now);
                }
                Poll::Pending => break,
            }
            changed = true;
        }
        Ok(changed)
    }

    fn turn(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        device: &mut dyn CanBus,
        channels: &mut CanChannels,
    ) -> Result<bool, CanDriven> {
        // socket events are read before the frames and handled after them, so that a PDU follows its frames
        self.sockets.poll_events(cx);
        let mut changed = self.process_events(cx, now, device, channels)?;
        changed |= self.sockets.forward_events(now, channels);
        changed |= self.process_deadlines(now, channels)?;
        changed |= self.sockets.poll_send(cx, now, channels);
        changed |= self.transmit(cx, now, device, channels)?;
        channels.set_load(device.status().load);
        Ok(changed)
    }
}

impl BusDriver for CanDriver {
    type Channels = CanChannels;
    type Device = Box<dyn CanBus>;
    type Error = CanBusError;

    const DEVICE: &str = "CAN device";

    fn open(&self) -> BoxFuture<'static, Result<Self::Device, CanBusError>> {
        let opening = (self.hardware.open_can)(&self.setup.port.device);
        if self.bus_offs.is_given_up() {
            let settings = CanSettings { listen_only: true, ..self.setup.settings };
            return Box::pin(async move {
                let mut device = opening.await?;
                device.configure(settings).await?;
                Ok(device)
            });
        }
        open(opening, &self.setup, self.hardware.timer)
    }

    fn problem_kind(error: &CanBusError) -> ProblemKind {
        match error {
            CanBusError::Can(CanError::Unsupported { .. }) => ProblemKind::Unsupported,
            CanBusError::Can(_) => ProblemKind::BusUnavailable,
            CanBusError::WrongBitRate { .. } => ProblemKind::WrongBitRate,
        }
    }

    fn handle_opened(&mut self, now: Instant, device: &mut Self::Device, channels: &mut CanChannels) {
        if self.bus_offs.is_given_up() {
            return;
        }
        device.report_overtaking();
        let status = device.status();
        channels.handle_reset(now);
        channels.handle_state(now, status.state);
        channels.set_load(status.load);
        self.sockets.reset(device.as_ref());
    }

    fn handle_lost(&mut self, now: Instant, _error: &CanBusError, channels: &mut CanChannels) {
        channels.handle_state(now, BusState::Off);
    }

    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        device: &mut Self::Device,
        channels: &mut CanChannels,
    ) -> CanDriven {
        if self.bus_offs.is_given_up() {
            return handle_deadlines_while_off(now, channels);
        }
        match self.turn(cx, now, device.as_mut(), channels) {
            Ok(true) => Driven::Changed,
            Ok(false) => Driven::Idle,
            Err(interrupted) => interrupted,
        }
    }

    fn handle_channel_opened(
        &mut self,
        now: Instant,
        number: u16,
        device: Option<&Self::Device>,
        channels: &mut CanChannels,
    ) {
        let Some(socket) = channels.kernel_socket(number) else { return };
        if let Err(error) = self.sockets.add(number, socket, device.map(Box::as_ref)) {
            tracing::warn!(bus = self.setup.name, %error, "the kernel's ISO-TP is not available; using the agent's own");
            channels.use_own_isotp(now, number);
        }
    }

    fn handle_channel_closed(&mut self, number: u16) {
        self.sockets.remove(number);
    }

    /// Sends the last frames of TP2.0 channels, as far as the adapter takes them immediately. Then the adapter leaves
    /// the bus in the background.
    fn leave(&mut self, mut device: Self::Device, channels: &mut CanChannels) {
        let mut cx = Context::from_waker(Waker::noop());
        for farewell in channels.farewells() {
            if !matches!(device.poll_send(&mut cx, &farewell), Poll::Ready(Ok(()))) {
                break;
            }
        }
        self.hardware.departures.spawn(device.leave(LEAVE_TIME));
    }
}

/// Handles deadlines; nothing is sent, and no event counts.
fn handle_deadlines_while_off(now: Instant, channels: &mut CanChannels) -> CanDriven {
    if channels.poll_timeout().is_none_or(|at| at > now) {
        return Driven::Idle;
    }
    channels.handle_timeout(now);
    Driven::Changed
}
