//! A CAN bus of a connection: its device, its deadline, and what to do when the device fails.

pub mod channels;
mod kernel_sockets;
pub(crate) mod setup;
mod tp20;

use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use connector_hal::bus::{BusState, BusStatus};
use connector_hal::can::{CanBus, CanError, CanEvent, CanFrame};
use connector_hal::future::BoxFuture;
use connector_hal::timer::Deadline;

use super::bus::{Opening, Progress, SessionBus, StartFailure};
use super::setup::ChannelKind;
use crate::config::IsotpStack;
use crate::protocol::problem::Problem;
use crate::relay::buses::can::channels::{BusCore, BusOutput};
use crate::relay::buses::can::kernel_sockets::KernelSockets;
use crate::relay::buses::can::setup::CanBusSetup;
use crate::relay::buses::can::tp20::Tp20Channels;
use crate::relay::channel::KernelIsotp;
use crate::relay::limits::SessionLimits;
use crate::relay::wire::ProblemKind;
use crate::relay::wire::codec::PduFlags;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::scan::{FoundEcu, ScanOutcome, ScanSettings, Scanner};
use crate::vehicle::vin;

/// How long to wait before a lost device is opened, or a bus that went off is entered, again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Events taken from one bus before the others have their turn.
const BATCH: usize = 64;
/// Batches in a row after which time counts although events are left: a bus faster than we are must not stop it.
const MAX_BATCHES: u32 = 16;

type Starting = BoxFuture<'static, Result<Box<dyn CanBus>, CanError>>;

enum Device {
    /// Being opened, set up or restarted.
    Starting(Starting),
    Running(Box<dyn CanBus>),
    /// Gone; it will be opened again at this time.
    Lost(Instant),
}

/// How a device is made to start over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Restart {
    /// Set up anew, which makes it forget the frames that we gave it.
    SetUp,
    /// Restarted, which makes it forget the frames that the kernel gave it.
    AtOnce,
    /// The same after a pause.
    AfterPause,
}

/// A CAN bus of a connection with its device.
pub(crate) struct CanSessionBus {
    setup: CanBusSetup,
    core: BusCore,
    sockets: KernelSockets,
    tp20: Tp20Channels,
    ignition: Option<bool>,
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

impl CanSessionBus {
    pub(crate) fn new(setup: CanBusSetup, hardware: &Hardware) -> Self {
        let device = Device::Starting(open(&setup, hardware));
        Self {
            setup,
            core: BusCore::default(),
            sockets: KernelSockets::default(),
            tp20: Tp20Channels::default(),
            ignition: None,
            hardware: hardware.clone(),
            device,
            deadline: Deadline::new(hardware.timer),
            has_started: false,
            full_batches: 0,
            last_status: BusStatus::default(),
            told_state: None,
        }
    }

    fn handle_opened(&mut self, now: Instant, opened: Result<Box<dyn CanBus>, CanError>) -> Progress {
        match opened {
            Ok(device) => {
                self.last_status = device.status();
                self.core.handle_reset(now);
                self.core.handle_state(now, device.status().state);
                self.sockets.reset(device.as_ref());
                self.device = Device::Running(device);
                if std::mem::replace(&mut self.has_started, true) {
                    Progress::Changed
                } else {
                    Progress::Started
                }
            }
            Err(error) if !self.has_started => {
                self.device = Device::Lost(now + RETRY_AFTER);
                let is_unsupported = matches!(error, CanError::Unsupported { .. });
                Progress::StartFailed(StartFailure { detail: error.to_string(), is_unsupported })
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
        // taken first and looked at last: behind the frames that a PDU is made of
        self.sockets.poll_events(cx);
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
                        self.restart(Restart::AfterPause);
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
        changed |= self.sockets.hand_over(now, &mut self.core);
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
                self.restart(Restart::SetUp);
                return Poll::Ready(Progress::Changed);
            }
        }
        if self.core.is_kernel_stuck() {
            tracing::debug!(
                bus = self.setup.name,
                "nobody acknowledges a frame of the kernel's; restarting the adapter"
            );
            self.core.handle_reset(now);
            self.restart(Restart::AtOnce);
            return Poll::Ready(Progress::Changed);
        }
        changed |= self.sockets.poll_send(cx, now, &mut self.core);
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

    /// Has the device start over; meanwhile nothing is read or sent.
    fn restart(&mut self, how: Restart) {
        let lost = Device::Lost(tokio::time::Instant::now().into_std());
        let Device::Running(mut device) = std::mem::replace(&mut self.device, lost) else { return };
        let settings = self.setup.settings;
        self.device = Device::Starting(Box::pin(async move {
            match how {
                Restart::SetUp => device.configure(settings).await?,
                Restart::AtOnce => device.restart().await?,
                Restart::AfterPause => {
                    tokio::time::sleep(RETRY_AFTER).await;
                    device.restart().await?;
                }
            }
            Ok(device)
        }));
    }
}

impl SessionBus for CanSessionBus {
    fn name(&self) -> &str {
        &self.setup.name
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
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

    fn has_started(&self) -> bool {
        self.has_started
    }

    fn status(&self) -> BusStatus {
        BusStatus { state: self.core.state(), ..self.last_status }
    }

    fn take_state_change(&mut self) -> bool {
        let state = self.has_started.then_some(self.core.state());
        std::mem::replace(&mut self.told_state, state) != state
    }

    fn open_channel(
        &mut self,
        now: Instant,
        number: u16,
        kind: &ChannelKind,
        limits: &SessionLimits,
    ) -> Result<Opening, Problem> {
        if let ChannelKind::Tp20(config) = kind {
            if self.core.state() == BusState::Off {
                let detail = format!("Bus {:?} is off.", self.setup.name);
                return Err(ProblemKind::BusUnavailable.problem(detail));
            }
            let channel = self.tp20.open(&self.setup.name, number, config, limits.max_pdu, now)?;
            self.core.open_channel(number, channel);
            if let Some(scanner) = self.core.scanner_mut() {
                self.tp20.addresses().for_each(|ecu| scanner.handle_tp20_open(ecu));
            }
            return Ok(Opening::UnderWay);
        }
        let mut channel = self.setup.channel(kind, limits.max_pdu, now, self.setup.port.isotp)?;
        if let Some(socket) = channel.kernel().map(KernelIsotp::socket) {
            let device = match &self.device {
                Device::Running(device) => Some(device.as_ref()),
                Device::Starting(_) | Device::Lost(_) => None,
            };
            if let Err(error) = self.sockets.add(number, socket, device) {
                tracing::warn!(bus = self.setup.name, %error, "the kernel does not speak ISO-TP here; doing it ourselves");
                channel = self.setup.channel(kind, limits.max_pdu, now, IsotpStack::Own)?;
            }
        }
        self.core.open_channel(number, channel);
        Ok(Opening::Done)
    }

    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        let (number, outcome) = self.core.poll_opened()?;
        let outcome = outcome.map_err(|failure| {
            let ecu = self.tp20.close(number);
            tp20::not_opened(&self.setup.name, ecu, failure)
        });
        Some((number, outcome))
    }

    fn close_channel(&mut self, number: u16) {
        self.tp20.close(number);
        self.core.close_channel(number);
        self.sockets.remove(number);
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, flags: PduFlags, data: &[u8]) {
        self.core.handle_pdu(now, number, flags, data);
    }

    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags) {
        self.core.handle_refused_pdu(now, number, flags);
    }

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, frame: CanFrame, expires: Instant) {
        self.core.handle_frame_to_send(now, number, frame, expires);
    }

    fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        self.core.set_keep_alive(now, enabled);
    }

    fn poll_output(&mut self) -> Option<BusOutput> {
        self.core.poll_output()
    }

    fn return_to_default_sessions(&mut self, now: Instant) {
        self.core.return_to_default_sessions(now);
    }

    fn is_quiet(&self) -> bool {
        self.core.is_quiet()
    }

    fn start_scan(&mut self, now: Instant) -> bool {
        let mut scanner = Scanner::new(ScanSettings { bit_rate: self.setup.settings.bit_rate }, now);
        scanner.handle_ignition(self.ignition);
        self.tp20.addresses().for_each(|ecu| scanner.handle_tp20_open(ecu));
        if self.core.state() == BusState::Off {
            scanner.handle_bus_off();
        }
        self.core.start_scan(scanner);
        true
    }

    fn take_scan(&mut self) -> Option<(ScanOutcome, Vec<FoundEcu>)> {
        let (outcome, ecus) = self.core.take_scan()?;
        Some((outcome, ecus.into_iter().map(FoundEcu::Can).collect()))
    }

    fn handle_ignition(&mut self, _now: Instant, ignition: Option<bool>) {
        self.ignition = ignition;
        if let Some(scanner) = self.core.scanner_mut() {
            scanner.handle_ignition(ignition);
        }
    }

    fn start_vin_reader(&mut self, settings: vin::ReaderSettings) -> bool {
        self.core.start_vin_reader(vin::VinReader::new(settings));
        true
    }

    fn take_vins(&mut self) -> Option<Vec<vin::Candidate>> {
        self.core.take_vins()
    }
}

/// ECUs are told that nothing more will come, as far as the adapter takes that at once.
impl Drop for CanSessionBus {
    fn drop(&mut self) {
        let Device::Running(device) = &mut self.device else { return };
        let mut cx = Context::from_waker(Waker::noop());
        for farewell in self.core.farewells() {
            if !matches!(device.poll_send(&mut cx, &farewell), Poll::Ready(Ok(()))) {
                return;
            }
        }
    }
}

fn open(setup: &CanBusSetup, hardware: &Hardware) -> Starting {
    let opening = (hardware.open_can)(&setup.port.device);
    let settings = setup.settings;
    Box::pin(async move {
        let mut device = opening.await?;
        device.configure(settings).await?;
        Ok(device)
    })
}
