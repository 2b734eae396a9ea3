//! The shell around a bus: its device, its deadline, and what to do when the device fails.

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::can::{BoxFuture, BusState, BusStatus, CanBus, CanError, CanEvent};
use connector_hal::timer::Deadline;

use super::setup::BusSetup;
use crate::hardware::Hardware;
use crate::relay::bus::BusCore;

/// How long to wait before a lost device is opened, or a bus that went off is entered, again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Events taken from one bus before the others have their turn.
const BATCH: usize = 64;
/// Batches in a row after which time counts although events are left: a bus faster than we are must not stop it.
const MAX_BATCHES: u32 = 16;

type Opening = BoxFuture<'static, Result<Box<dyn CanBus>, CanError>>;

enum Device {
    /// Being opened, set up or restarted.
    Starting(Opening),
    Running(Box<dyn CanBus>),
    /// Gone; it will be opened again at this time.
    Lost(Instant),
}

/// What came of polling a bus.
#[derive(Debug)]
pub(super) enum Progress {
    /// Something changed: there may be outputs.
    Changed,
    /// The device is ready for the first time.
    Started,
    /// The device could not be opened for the first time.
    StartFailed(CanError),
}

/// A bus of a connection with its device.
pub(super) struct SessionBus {
    pub(super) setup: BusSetup,
    pub(super) core: BusCore,
    hardware: Hardware,
    device: Device,
    deadline: Deadline,
    has_started: bool,
    /// Batches in a row that left events behind.
    full_batches: u32,
    last_status: BusStatus,
    /// The state that was last told to whoever asks for changes.
    told_state: Option<BusState>,
}

impl SessionBus {
    pub(super) fn new(setup: BusSetup, hardware: &Hardware) -> Self {
        let device = Device::Starting(open(&setup, hardware));
        Self {
            setup,
            core: BusCore::default(),
            hardware: hardware.clone(),
            device,
            deadline: Deadline::new(hardware.timer),
            has_started: false,
            full_batches: 0,
            last_status: BusStatus::default(),
            told_state: None,
        }
    }

    /// State and load, as last known.
    pub(super) fn status(&self) -> BusStatus {
        BusStatus { state: self.core.state(), ..self.last_status }
    }

    /// Whether the state is another than when this was last asked.
    pub(super) fn take_state_change(&mut self) -> bool {
        let state = self.has_started.then_some(self.core.state());
        std::mem::replace(&mut self.told_state, state) != state
    }

    pub(super) fn has_started(&self) -> bool {
        self.has_started
    }

    /// Moves frames, time and the device's troubles along; pending when there is nothing to do.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        let now = tokio::time::Instant::now().into_std();
        let retry_at = match &mut self.device {
            Device::Running(_) => return self.poll_running(cx, now),
            Device::Starting(opening) => {
                if let Poll::Ready(opened) = opening.as_mut().poll(cx) {
                    return Poll::Ready(self.handle_opened(now, opened));
                }
                None
            }
            Device::Lost(retry_at) if *retry_at <= now => {
                self.device = Device::Starting(open(&self.setup, &self.hardware));
                return Poll::Ready(Progress::Changed);
            }
            Device::Lost(retry_at) => Some(*retry_at),
        };
        // the channels' time goes on without the device
        if self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
            return Poll::Ready(Progress::Changed);
        }
        self.deadline.set([retry_at, self.core.poll_timeout()].into_iter().flatten().min());
        self.deadline.poll_expired(cx).map(|()| Progress::Changed)
    }

    fn handle_opened(&mut self, now: Instant, opened: Result<Box<dyn CanBus>, CanError>) -> Progress {
        match opened {
            Ok(device) => {
                self.last_status = device.status();
                self.core.handle_reset(now);
                self.core.handle_state(now, device.status().state);
                self.device = Device::Running(device);
                if std::mem::replace(&mut self.has_started, true) {
                    Progress::Changed
                } else {
                    Progress::Started
                }
            }
            Err(error) if !self.has_started => {
                self.device = Device::Lost(now + RETRY_AFTER);
                Progress::StartFailed(error)
            }
            Err(error) => {
                tracing::debug!(bus = self.setup.name, %error, "the CAN device is still not usable");
                self.lose(now);
                Progress::Changed
            }
        }
    }

    fn lose(&mut self, now: Instant) {
        self.core.handle_state(now, BusState::Off);
        self.device = Device::Lost(now + RETRY_AFTER);
    }

    fn poll_running(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Progress> {
        let Device::Running(device) = &mut self.device else { return Poll::Pending };
        let mut changed = false;
        let mut batch = 0;
        while batch < BATCH {
            match device.poll_event(cx) {
                Poll::Ready(Ok(event)) => {
                    changed = true;
                    self.core.handle_event(now, &event);
                    if event == CanEvent::State(BusState::Off) {
                        tracing::warn!(
                            bus = self.setup.name,
                            "the bus is off; entering it again in a second"
                        );
                        self.restart(false);
                        return Poll::Ready(Progress::Changed);
                    }
                }
                Poll::Ready(Err(error)) => {
                    tracing::warn!(bus = self.setup.name, %error, "lost the CAN device; trying it again every second");
                    self.lose(now);
                    return Poll::Ready(Progress::Changed);
                }
                Poll::Pending => {
                    self.full_batches = 0;
                    break;
                }
            }
            batch += 1;
        }
        // a deadline means nothing while what it waits for may be among the events that are not read yet
        self.full_batches += u32::from(batch == BATCH);
        let is_time_known = self.full_batches == 0 || self.full_batches >= MAX_BATCHES;
        if is_time_known && self.core.poll_timeout().is_some_and(|at| at <= now) {
            changed = true;
            self.full_batches = 0;
            self.core.handle_timeout(now);
            if self.core.is_stuck(now) {
                tracing::debug!(
                    bus = self.setup.name,
                    "nobody acknowledges a frame; making the adapter forget it"
                );
                self.core.handle_reset(now);
                self.restart(true);
                return Poll::Ready(Progress::Changed);
            }
        }
        while let Some(frame) = self.core.poll_transmit(now) {
            match device.poll_send(cx, &frame) {
                Poll::Ready(Ok(())) => {
                    changed = true;
                    self.core.handle_accepted(now);
                }
                Poll::Ready(Err(error)) if error.is_fatal() => {
                    tracing::warn!(bus = self.setup.name, %error, "lost the CAN device; trying it again every second");
                    self.lose(now);
                    return Poll::Ready(Progress::Changed);
                }
                Poll::Ready(Err(error)) => {
                    changed = true;
                    tracing::debug!(bus = self.setup.name, %error, "the adapter refused a frame");
                    self.core.handle_refused(now);
                }
                Poll::Pending => break,
            }
        }
        self.last_status = device.status();
        if changed {
            return Poll::Ready(Progress::Changed);
        }
        self.deadline.set(self.core.poll_timeout());
        match self.deadline.poll_expired(cx) {
            // looked at on the next turn, with the time that it is then
            Poll::Ready(()) => Poll::Ready(Progress::Changed),
            Poll::Pending => Poll::Pending,
        }
    }

    /// Sets the device up anew, or restarts it after a pause; meanwhile nothing is read or sent.
    fn restart(&mut self, at_once: bool) {
        let lost = Device::Lost(tokio::time::Instant::now().into_std());
        let Device::Running(mut device) = std::mem::replace(&mut self.device, lost) else { return };
        let settings = self.setup.settings;
        self.device = Device::Starting(Box::pin(async move {
            if at_once {
                device.configure(settings).await?;
            } else {
                tokio::time::sleep(RETRY_AFTER).await;
                device.restart().await?;
            }
            Ok(device)
        }));
    }
}

fn open(setup: &BusSetup, hardware: &Hardware) -> Opening {
    let opening = (hardware.open_can)(&setup.port.device);
    let settings = setup.settings;
    Box::pin(async move {
        let mut device = opening.await?;
        device.configure(settings).await?;
        Ok(device)
    })
}
