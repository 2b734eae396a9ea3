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
use crate::vehicle::reopened::Reopened;

/// The outcome of polling a bus.
#[derive(Debug)]
pub(crate) enum Progress {
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
    /// Whether the device is there, but cannot do what the operator asked for.
    pub(crate) is_unsupported: bool,
}

/// The outcome of one turn of a driver.
pub(crate) enum Driven<D, E> {
    /// There was nothing to do.
    Idle,
    /// Frames, bytes or time moved.
    Changed,
    /// The device has to start again: this makes it do so.
    Restart(Box<dyn FnOnce(D) -> BoxFuture<'static, Result<D, E>> + Send>),
    /// The device is lost.
    Lost(E),
}

/// What moves frames or bytes between a device and the channels of one kind of bus.
pub(crate) trait Driver: Send {
    /// The channels of this kind of bus.
    type Channels: Channels;
    /// The device, once it is open.
    type Device: Send;
    /// Why a device is not usable.
    type Error: std::error::Error + Send;

    /// The device in log messages, such as "CAN device".
    const DEVICE: &str;

    /// Opens the device and sets it up.
    fn open(&self) -> BoxFuture<'static, Result<Self::Device, Self::Error>>;

    /// Whether the device is there, but cannot do what the operator asked for.
    fn is_unsupported(_error: &Self::Error) -> bool {
        false
    }

    /// The device is open, for the first time or again.
    fn handle_opened(&mut self, now: Instant, device: &mut Self::Device, channels: &mut Self::Channels);

    /// The device is lost, or could not be opened again.
    fn handle_lost(&mut self, now: Instant, error: &Self::Error, channels: &mut Self::Channels);

    /// Moves frames or bytes, and time: first events of the device, then deadlines, then transmissions.
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

    /// Leaves the bus: whatever ECUs should still hear is sent.
    fn leave(&mut self, _device: Self::Device, _channels: &mut Self::Channels) {}
}

/// A bus of any kind, as a connection holds it.
pub(crate) trait AnyBus: Send {
    /// The name that the operator gave it.
    fn name(&self) -> &str;

    /// Moves the device, the channels and time along; pending when there is nothing to do.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress>;

    /// Whether the device has been ready once.
    fn has_started(&self) -> bool;

    /// State and load.
    fn status(&self) -> BusStatus;

    /// Whether the state differs from the one when this was last called.
    fn take_state_change(&mut self) -> bool;

    /// Its channels.
    fn channels(&self) -> &dyn Channels;

    /// Its channels, for use.
    fn channels_mut(&mut self) -> &mut dyn Channels;

    /// Opens a channel, as [`Channels::open_channel`].
    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &RelayLimits,
    ) -> Result<Opening, Problem>;

    /// Closes a channel, as [`Channels::close_channel`].
    fn close_channel(&mut self, number: u16);
}

/// A bus: the channels and the device of one kind.
pub(crate) struct Bus<D: Driver> {
    name: String,
    channels: D::Channels,
    driver: D,
    device: Reopened<D::Device, D::Error>,
    timer: TimerKind,
    deadline: Deadline,
    has_started: bool,
    /// The state when [`AnyBus::take_state_change`] was last called.
    reported_state: Option<BusState>,
}

impl<D: Driver> Bus<D> {
    /// A bus whose device is opened as the bus is polled.
    pub(crate) fn new(name: String, channels: D::Channels, driver: D, timer: TimerKind) -> Self {
        let device = Reopened::new(driver.open());
        let deadline = Deadline::new(timer);
        Self { name, channels, driver, device, timer, deadline, has_started: false, reported_state: None }
    }

    fn handle_opened(&mut self, now: Instant, opened: Result<(), D::Error>) -> Progress {
        match (opened, self.device.get_mut()) {
            (Ok(()), Some(device)) => {
                self.driver.handle_opened(now, device, &mut self.channels);
                if std::mem::replace(&mut self.has_started, true) {
                    Progress::Changed
                } else {
                    Progress::Started
                }
            }
            (Ok(()), None) => Progress::Changed,
            (Err(error), _) if !self.has_started => {
                let is_unsupported = D::is_unsupported(&error);
                Progress::StartFailed(StartFailure { detail: error.to_string(), is_unsupported })
            }
            (Err(error), _) => {
                tracing::debug!(bus = self.name, %error, "the {} is still not usable", D::DEVICE);
                self.driver.handle_lost(now, &error, &mut self.channels);
                Progress::Changed
            }
        }
    }

    /// Moves the open device, the channels and time; whether anything changed.
    fn drive(&mut self, cx: &mut Context<'_>, now: Instant) -> bool {
        let Some(device) = self.device.get_mut() else { return self.handle_due(now) };
        match self.driver.drive(cx, now, device, &mut self.channels) {
            Driven::Idle => return false,
            Driven::Changed => {}
            Driven::Restart(restart) => self.device.restart(now, restart),
            Driven::Lost(error) => {
                tracing::warn!(bus = self.name, %error, "lost the {}; opening it again every second", D::DEVICE);
                self.device.lose(now);
                self.driver.handle_lost(now, &error, &mut self.channels);
            }
        }
        true
    }

    /// The time of the channels goes on without a device.
    fn handle_due(&mut self, now: Instant) -> bool {
        let is_due = self.channels.poll_timeout().is_some_and(|at| at <= now);
        if is_due {
            self.channels.handle_timeout(now);
        }
        is_due
    }
}

impl<D: Driver> AnyBus for Bus<D> {
    fn name(&self) -> &str {
        &self.name
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        let now = self.timer.now();
        if let Poll::Ready(opened) = self.device.poll(cx, now, || self.driver.open()) {
            return Poll::Ready(self.handle_opened(now, opened));
        }
        if self.drive(cx, now) {
            return Poll::Ready(Progress::Changed);
        }
        let deadlines = [self.device.retry_at(), self.channels.poll_timeout(), self.driver.poll_timeout()];
        self.deadline.set(deadlines.into_iter().flatten().min());
        // the next turn handles the deadline, with the events that are there by then
        self.deadline.poll_expired(cx).map(|()| Progress::Changed)
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

impl<D: Driver> Drop for Bus<D> {
    fn drop(&mut self) {
        if let Some(device) = self.device.take(self.timer.now()) {
            self.driver.leave(device, &mut self.channels);
        }
    }
}
