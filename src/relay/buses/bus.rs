//! A bus of a connection: its channels, its device, and their deadlines.

use std::task::{Context, Poll};
use std::time::Instant;

use connector_hal::bus::{BusState, BusStatus};
use connector_hal::future::BoxFuture;
use connector_hal::timer::{Deadline, TimerKind};

use super::channel_setup::ChannelKind;
use super::channels::{Channels, Opening};
use crate::protocol::problem::Problem;
use crate::relay::limits::RelayLimits;
use crate::relay::wire::ProblemKind;
use crate::vehicle::reopened::Reopened;

/// The outcome of polling a bus.
#[derive(Debug)]
pub(crate) enum BusProgress {
    /// Something changed: there may be outputs.
    Changed,
    /// The device is ready for the first time.
    Started,
    /// The device could not be opened and set up for the first time.
    StartFailed(StartFailure),
}

/// Why a device could not be opened and set up.
#[derive(Debug)]
pub(crate) struct StartFailure {
    /// A description in words.
    pub(crate) detail: String,
    /// The kind of the problem to report.
    pub(crate) kind: ProblemKind,
}

/// The outcome of one call of [`BusDriver::drive`].
pub(crate) enum Driven<D, E> {
    /// There was nothing to do.
    Idle,
    /// Frames, bytes or time moved.
    Changed,
    /// The device has to be restarted by this function.
    Restart(Box<dyn FnOnce(D) -> BoxFuture<'static, Result<D, E>> + Send>),
    /// The device is lost.
    Lost(E),
}

/// Moves frames or bytes between a device and the channels of one kind of bus.
pub(crate) trait BusDriver: Send {
    /// The channels of this kind of bus.
    type Channels: Channels;
    /// The device, once it is open.
    type Device: Send;
    /// The reason why a device is not usable.
    type Error: std::error::Error + Send;

    /// The device in log messages, such as "CAN device".
    const DEVICE: &str;

    /// Opens the device and sets it up.
    fn open(&self) -> BoxFuture<'static, Result<Self::Device, Self::Error>>;

    /// The kind of the problem to report if the device could not be opened for this reason.
    fn problem_kind(_error: &Self::Error) -> ProblemKind {
        ProblemKind::BusUnavailable
    }

    /// The device is open, for the first time or again.
    fn handle_opened(&mut self, now: Instant, device: &mut Self::Device, channels: &mut Self::Channels);

    /// The device is lost, or could not be opened again.
    fn handle_lost(&mut self, now: Instant, error: &Self::Error, channels: &mut Self::Channels);

    /// Handles events of the device, then deadlines, then transmissions.
    fn drive(
        &mut self,
        cx: &mut Context<'_>,
        now: Instant,
        device: &mut Self::Device,
        channels: &mut Self::Channels,
    ) -> Driven<Self::Device, Self::Error>;

    /// When the driver has to be polled, beside the deadlines of the channels.
    fn poll_timeout(&self) -> Option<Instant> {
        None
    }

    /// A channel was opened.
    fn handle_channel_opened(
        &mut self,
        _now: Instant,
        _number: u16,
        _device: Option<&Self::Device>,
        _channels: &mut Self::Channels,
    ) {
    }

    /// A channel was closed.
    fn handle_channel_closed(&mut self, _number: u16) {}

    /// Leaves the bus. Sends the last messages that ECUs should receive.
    fn leave(&mut self, _device: Self::Device, _channels: &mut Self::Channels) {}
}

/// A bus of any kind, as a connection holds it.
pub(crate) trait AnyBus: Send {
    /// The name that the operator gave it.
    fn name(&self) -> &str;

    /// Drives the device and the channels; pending when there is nothing to do.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BusProgress>;

    /// Whether the device has been ready once.
    fn has_started(&self) -> bool;

    /// The state and load of the bus.
    fn status(&self) -> BusStatus;

    /// Whether the state has changed since the last call of this method.
    fn take_state_change(&mut self) -> bool;

    /// Whether the device, or a gateway of the vehicle, was lost and has returned since the last call of this method.
    fn take_returned(&mut self) -> bool;

    /// The channels of the bus.
    fn channels(&self) -> &dyn Channels;

    /// The channels of the bus, for changes.
    fn channels_mut(&mut self) -> &mut dyn Channels;

    /// Opens a channel, as [`Channels::open_channel`] does.
    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem>;

    /// Closes a channel, as [`Channels::close_channel`] does.
    fn close_channel(&mut self, number: u16);
}

/// A bus: the channels and the device of one kind.
pub(crate) struct Bus<D: BusDriver> {
    name: String,
    channels: D::Channels,
    driver: D,
    device: Reopened<D::Device, D::Error>,
    timer: TimerKind,
    deadline: Deadline,
    has_started: bool,
    is_lost: bool,
    has_returned: bool,
    /// The state when [`AnyBus::take_state_change`] was last called.
    reported_state: Option<BusState>,
}

impl<D: BusDriver> Bus<D> {
    /// A bus whose device is opened as the bus is polled.
    pub(crate) fn new(name: String, channels: D::Channels, driver: D, timer: TimerKind) -> Self {
        let device = Reopened::new(driver.open());
        let deadline = Deadline::new(timer);
        Self {
            name,
            channels,
            driver,
            device,
            timer,
            deadline,
            has_started: false,
            is_lost: false,
            has_returned: false,
            reported_state: None,
        }
    }

    fn handle_opened(&mut self, now: Instant, opened: Result<(), D::Error>) -> BusProgress {
        match (opened, self.device.get_mut()) {
            (Ok(()), Some(device)) => {
                self.has_returned |= std::mem::take(&mut self.is_lost);
                self.driver.handle_opened(now, device, &mut self.channels);
                if std::mem::replace(&mut self.has_started, true) {
                    BusProgress::Changed
                } else {
                    BusProgress::Started
                }
            }
            (Ok(()), None) => BusProgress::Changed,
            (Err(error), _) if !self.has_started => {
                let kind = D::problem_kind(&error);
                BusProgress::StartFailed(StartFailure { detail: error.to_string(), kind })
            }
            (Err(error), _) => {
                tracing::debug!(bus = self.name, %error, "the {} is still not usable", D::DEVICE);
                self.is_lost = true;
                self.driver.handle_lost(now, &error, &mut self.channels);
                BusProgress::Changed
            }
        }
    }

    /// Drives the device if it is open, and the channels. Returns whether anything changed.
    fn drive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(device) = self.device.get_mut() else { return self.handle_due(now) };
        match self.driver.drive(cx, now, device, &mut self.channels) {
            Driven::Idle => return false,
            Driven::Changed => {}
            Driven::Restart(restart) => self.device.restart(now, restart),
            Driven::Lost(error) => {
                tracing::warn!(bus = self.name, %error, "lost the {}; opening it again every second", D::DEVICE);
                self.device.lose(now);
                self.is_lost = true;
                self.driver.handle_lost(now, &error, &mut self.channels);
            }
        }
        true
    }

    /// Handles the deadlines of the channels while there is no device.
    fn handle_due(&mut self, now: Instant) -> bool {
        let is_due = self.channels.poll_timeout().is_some_and(|at| at <= now);
        if is_due {
            self.channels.handle_timeout(now);
        }
        is_due
    }
}

impl<D: BusDriver> AnyBus for Bus<D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<BusProgress> {
        let now = self.timer.now();
        if let Poll::Ready(opened) = self.device.poll(cx, now, || self.driver.open()) {
            return Poll::Ready(self.handle_opened(now, opened));
        }
        if self.drive(cx, now) {
            return Poll::Ready(BusProgress::Changed);
        }
        let deadlines = [self.device.retry_at(), self.channels.poll_timeout(), self.driver.poll_timeout()];
        self.deadline.set(deadlines.into_iter().flatten().min());
        // the next call handles the deadline, after the events that have arrived by then
        self.deadline.poll_expired(cx).map(|()| BusProgress::Changed)
    }

    fn has_started(&self) -> bool {
        self.has_started
    }

    fn status(&self) -> BusStatus {
        BusStatus { state: self.channels.state(), load: self.channels.load(self.timer.now()) }
    }

    fn take_state_change(&mut self) -> bool {
        let state = self.has_started.then(|| self.channels.state());
        std::mem::replace(&mut self.reported_state, state) != state
    }

    fn take_returned(&mut self) -> bool {
        std::mem::take(&mut self.has_returned) | self.channels.take_returned()
    }

    fn channels(&self) -> &dyn Channels {
        &self.channels
    }

    fn channels_mut(&mut self) -> &mut dyn Channels {
        &mut self.channels
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem> {
        let opening = self.channels.open_channel(now, number, kind, limits)?;
        self.driver.handle_channel_opened(now, number, self.device.get(), &mut self.channels);
        Ok(opening)
    }

    fn close_channel(&mut self, number: u16) {
        self.channels.close_channel(number);
        self.driver.handle_channel_closed(number);
    }
}

impl<D: BusDriver> Drop for Bus<D> {
    fn drop(&mut self) {
        if let Some(device) = self.device.take(self.timer.now()) {
            self.driver.leave(device, &mut self.channels);
        }
    }
}
