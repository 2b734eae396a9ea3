//! A K-line of a connection: its device, its deadline, and what to do when the device fails.

pub mod channels;

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::bus::{BusState, BusStatus};
use connector_hal::can::CanFrame;
use connector_hal::future::BoxFuture;
use connector_hal::kline::{KLine, KLineError, KLineEvent};
use connector_hal::timer::{Deadline, TimerKind};

use super::bus::{Opening, Progress, SessionBus, StartFailure};
use super::setup::{ChannelKind, invalid, pdu_settings, unknown_pins, wrong_kind};
use crate::config::KLINE_BIT_RATES;
use crate::config::KlinePort;
use crate::protocol::kline::{Addressing, Config, Initialisation};
use crate::protocol::problem::Problem;
use crate::relay::buses::can::channels::BusOutput;
use crate::relay::buses::kline::channels::KlineCore;
use crate::relay::limits::SessionLimits;
use crate::relay::wire::codec::PduFlags;
use crate::relay::wire::request::{KlineBusConfig, KlineProtocol};
use crate::vehicle::hardware::Hardware;

/// How long to wait before a lost device is opened again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Events taken from the line before the others have their turn.
const BATCH: usize = 64;
/// How long a connection that ended may take to tell the ECUs so; its successor waits for the device as long.
const STOP_TIME: Duration = Duration::from_secs(1);
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// A K-line that an operator asked for, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KlineBusSetup {
    pub(crate) name: String,
    pub(crate) port: KlinePort,
    initialisation: Initialisation,
    bit_rate: u32,
}

impl KlineBusSetup {
    /// Checks a bus against what the hardware has.
    pub(crate) fn new(name: &str, kline: &KlineBusConfig, hardware: &Hardware) -> Result<Self, Problem> {
        let Some(port) = hardware.kline_ports.iter().find(|port| port.pin == kline.pin) else {
            let has: Vec<_> = hardware.kline_ports.iter().map(|port| port.pin.to_string()).collect();
            let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
            let pin = kline.pin;
            let detail = format!("Bus {name:?}: no K-line is at pin {pin}; this connector has: {has}.");
            return Err(unknown_pins(detail));
        };
        let bit_rate = kline.kline_bit_rate;
        if !KLINE_BIT_RATES.contains(&bit_rate) {
            let detail = format!("Bus {name:?}: kline_bit_rate {bit_rate} is none of {KLINE_BIT_RATES:?}.");
            return Err(invalid(detail));
        }
        let initialisation = match kline.kline_protocol {
            KlineProtocol::Fast => Initialisation::Fast,
            KlineProtocol::Slow => Initialisation::Slow,
        };
        Ok(Self { name: name.to_owned(), port: port.clone(), initialisation, bit_rate })
    }
}

type Starting = BoxFuture<'static, Result<Box<dyn KLine>, KLineError>>;

enum Device {
    Starting(Starting),
    Running(Box<dyn KLine>),
    /// Gone; it will be opened again at this time.
    Lost(Instant),
}

/// A K-line of a connection with its device.
pub(crate) struct KlineSessionBus {
    setup: KlineBusSetup,
    core: KlineCore,
    hardware: Hardware,
    device: Device,
    deadline: Deadline,
    has_started: bool,
    told_state: Option<BusState>,
}

impl KlineSessionBus {
    pub(crate) fn new(setup: KlineBusSetup, hardware: &Hardware) -> Self {
        let device = Device::Starting(open(&setup, hardware));
        Self {
            setup,
            core: KlineCore::new(now()),
            hardware: hardware.clone(),
            device,
            deadline: Deadline::new(hardware.timer),
            has_started: false,
            told_state: None,
        }
    }

    fn handle_opened(&mut self, now: Instant, opened: Result<Box<dyn KLine>, KLineError>) -> Progress {
        match opened {
            Ok(device) => {
                self.core.handle_device(now, true);
                self.device = Device::Running(device);
                if std::mem::replace(&mut self.has_started, true) {
                    Progress::Changed
                } else {
                    Progress::Started
                }
            }
            Err(error) => {
                self.lose(now, &error);
                if self.has_started {
                    return Progress::Changed;
                }
                let is_unsupported = matches!(error, KLineError::Unsupported { .. });
                Progress::StartFailed(StartFailure { detail: error.to_string(), is_unsupported })
            }
        }
    }

    fn lose(&mut self, now: Instant, error: &KLineError) {
        if self.core.state() != BusState::Off {
            tracing::warn!(bus = self.setup.name, %error, "lost the K-line device; trying it again every second");
        }
        self.core.handle_device(now, false);
        self.device = Device::Lost(now + RETRY_AFTER);
    }

    fn poll_running(&mut self, cx: &mut Context<'_>, now: Instant) -> Poll<Progress> {
        let Device::Running(device) = &mut self.device else { return Poll::Pending };
        match drive(&mut self.core, device.as_mut(), cx, now) {
            Ok(true) => return Poll::Ready(Progress::Changed),
            Ok(false) => {}
            Err(error) => {
                self.lose(now, &error);
                return Poll::Ready(Progress::Changed);
            }
        }
        self.deadline.set(self.core.poll_timeout());
        self.deadline.poll_expired(cx).map(|()| Progress::Changed)
    }
}

/// Moves bytes and time along; whether anything happened.
fn drive(
    core: &mut KlineCore,
    device: &mut dyn KLine,
    cx: &mut Context<'_>,
    now: Instant,
) -> Result<bool, KLineError> {
    let mut changed = false;
    // bytes first: a deadline means nothing while what it waits for lies unread
    for _ in 0..BATCH {
        match device.poll_event(cx) {
            Poll::Ready(Ok(KLineEvent::Received { byte, at })) => core.handle_byte(at, byte),
            Poll::Ready(Ok(KLineEvent::Sent { at })) => core.handle_sent(now, at),
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => break,
        }
        changed = true;
        while let Some(signal) = core.poll_transmit() {
            device.transmit(signal)?;
        }
    }
    if core.poll_timeout().is_some_and(|at| at <= now) {
        changed = true;
        core.handle_timeout(now);
    }
    while let Some(signal) = core.poll_transmit() {
        changed = true;
        device.transmit(signal)?;
    }
    Ok(changed)
}

impl SessionBus for KlineSessionBus {
    fn name(&self) -> &str {
        &self.setup.name
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Progress> {
        let now = now();
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
        if self.core.state() == BusState::Off && self.core.poll_timeout().is_some_and(|at| at <= now) {
            self.core.handle_timeout(now);
            return Poll::Ready(Progress::Changed);
        }
        self.deadline
            .set([retry_at, self.core.poll_timeout().filter(|at| *at > now)].into_iter().flatten().min());
        self.deadline.poll_expired(cx).map(|()| Progress::Changed)
    }

    fn has_started(&self) -> bool {
        self.has_started
    }

    fn status(&self) -> BusStatus {
        BusStatus { state: self.core.state(), load: self.core.load(now()) }
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
        _limits: &SessionLimits,
    ) -> Result<Opening, Problem> {
        let ChannelKind::Kline(kline) = kind else {
            return Err(wrong_kind(&self.setup.name, "kline_bus", kind));
        };
        let addressing = Addressing::of(kline.ecu_id);
        let mut config = Config::new(addressing, self.setup.initialisation, self.setup.bit_rate);
        config.keyword = kline.keyword.map(|keyword| (keyword.key_byte_1, keyword.key_byte_2));
        self.core.open_channel(now, number, config, pdu_settings(&kline.options))?;
        Ok(Opening::UnderWay)
    }

    fn poll_opened(&mut self) -> Option<(u16, Result<(), Problem>)> {
        self.core.poll_opened()
    }

    fn close_channel(&mut self, number: u16) {
        self.core.close_channel(number);
    }

    fn handle_pdu(&mut self, now: Instant, number: u16, flags: PduFlags, data: &[u8]) {
        self.core.handle_pdu(now, number, flags, data);
    }

    fn handle_refused_pdu(&mut self, now: Instant, number: u16, flags: PduFlags) {
        self.core.handle_refused_pdu(now, number, flags);
    }

    fn handle_frame_to_send(&mut self, now: Instant, number: u16, _frame: CanFrame, _expires: Instant) {
        self.core.handle_frame_to_send(now, number);
    }

    fn poll_output(&mut self) -> Option<BusOutput> {
        self.core.poll_output()
    }

    /// On a K-line that is StopCommunication.
    fn return_to_default_sessions(&mut self, _now: Instant) {
        self.core.stop_all();
    }

    fn set_keep_alive(&mut self, now: Instant, enabled: bool) {
        self.core.set_keep_alive(now, enabled);
    }

    fn is_quiet(&self) -> bool {
        self.core.is_quiet()
    }
}

impl Drop for KlineSessionBus {
    /// Tells the ECUs that this was all, beside whatever comes next.
    fn drop(&mut self) {
        let gone = Device::Lost(now());
        let Device::Running(mut device) = std::mem::replace(&mut self.device, gone) else { return };
        let (true, Ok(runtime)) = (self.core.has_links(), tokio::runtime::Handle::try_current()) else {
            return;
        };
        let mut core = std::mem::replace(&mut self.core, KlineCore::new(now()));
        let timer = self.hardware.timer;
        runtime.spawn(async move {
            core.stop_all();
            let ended = stop(&mut core, device.as_mut(), timer);
            let _too_late = tokio::time::timeout(STOP_TIME, ended).await;
        });
    }
}

/// Drives a line until nothing is left to be said on it.
async fn stop(core: &mut KlineCore, device: &mut dyn KLine, timer: TimerKind) {
    let mut deadline = Deadline::new(timer);
    poll_fn(|cx| {
        loop {
            if core.is_quiet() {
                return Poll::Ready(());
            }
            match drive(core, device, cx, now()) {
                Ok(true) => continue,
                Ok(false) => deadline.set(core.poll_timeout()),
                Err(_) => return Poll::Ready(()),
            }
            if deadline.poll_expired(cx).is_pending() {
                return Poll::Pending;
            }
        }
    })
    .await;
}

fn open(setup: &KlineBusSetup, hardware: &Hardware) -> Starting {
    let open = hardware.open_kline.clone();
    let (device, bit_rate) = (setup.port.device.clone(), setup.bit_rate);
    Box::pin(async move {
        let until = tokio::time::Instant::now() + STOP_TIME;
        let mut line = loop {
            match open(&device).await {
                // the connection before may still say goodbye
                Err(KLineError::Device { source, .. })
                    if source.kind() == std::io::ErrorKind::ResourceBusy
                        && tokio::time::Instant::now() < until =>
                {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                opened => break opened?,
            }
        };
        line.set_bit_rate(bit_rate)?;
        Ok(line)
    })
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
