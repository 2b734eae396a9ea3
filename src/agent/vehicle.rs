//! Which vehicle this is: reads the VIN at start and whenever the vehicle may have changed, and otherwise only listens.
//!
//! A task of its own, since adapters may take their time; it gives the adapters away while a session uses them.

use std::task::Poll;
use std::time::{Duration, Instant};

use connector_hal::can::{CanBus, CanError, CanEvent, CanSettings};
use tokio::sync::{mpsc, oneshot};

use super::doip_watch::DoipWatch;
use super::retry::VinRetry;
use crate::config::KlinePort;
use crate::config::VinSettings;
use crate::protocol::vin::Vin;
use crate::vehicle::hardware::{Hardware, OpenKline};
use crate::vehicle::vin;
use crate::vehicle::vin::VinReport;
use crate::vehicle::vin::doip::OpeningNetwork;
use crate::vehicle::vin::kline::LineToAsk;
use crate::vehicle::wake_watch::DEFAULT_SILENCE;
use crate::vehicle::wake_watch::{WakeReason, WakeWatch};

/// How long to wait before a device that could not be used is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// The least time between two readings that something on the bus asked for.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
/// Events taken from one bus before the others have their turn.
const BATCH: usize = 64;
/// Commands that may wait; the supervisor sends one at a time.
const COMMANDS: usize = 8;
/// Findings that may wait; reading pauses until there is room.
const FOUND: usize = 8;

enum Command {
    /// Closes all devices, then answers.
    Release(oneshot::Sender<()>),
    /// The devices may be used again; nothing is asked for that. The VIN is this, as far as a session has told.
    Resume(Option<Vin>),
    /// The VIN is to be read now.
    Read,
    /// Nothing is to be sent any more: only activity is told.
    Listen,
    /// The ignition has changed.
    Ignition(Option<bool>),
}

/// What the task has found out.
pub(super) enum Found {
    /// The VIN was read.
    Vin(VinReport),
    /// While it only listened, a silent bus came to life or an adapter came back.
    Activity,
}

/// The handle of the task.
pub(super) struct VehicleWatch {
    commands: mpsc::Sender<Command>,
    found: mpsc::Receiver<Found>,
}

impl VehicleWatch {
    /// Begins to read the VIN.
    pub(super) fn spawn(hardware: Hardware, settings: VinSettings, ignition: Option<bool>) -> Self {
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        let (found_sender, found) = mpsc::channel(FOUND);
        let watcher = Watcher {
            hardware,
            settings,
            commands: command_receiver,
            found: found_sender,
            only_listens: false,
            bit_rates: Vec::new(),
            last_reading: None,
            vin: None,
            retry: VinRetry::new(ignition),
            late: Vec::new(),
        };
        tokio::spawn(watcher.run());
        Self { commands, found }
    }

    /// Closes all devices, so that a session can open them.
    pub(super) async fn release(&self) {
        let (done, released) = oneshot::channel();
        if self.commands.send(Command::Release(done)).await.is_ok() {
            let _closed_or_gone = released.await;
        }
    }

    /// Gives the devices back, and tells the VIN that is known by now.
    pub(super) async fn resume(&self, vin: Option<Vin>) {
        let _gone_at_shutdown = self.commands.send(Command::Resume(vin)).await;
    }

    /// Tells that the ignition has changed.
    pub(super) async fn ignition(&self, ignition: Option<bool>) {
        let _gone_at_shutdown = self.commands.send(Command::Ignition(ignition)).await;
    }

    /// Has the VIN read again.
    pub(super) async fn read(&self) {
        let _gone_at_shutdown = self.commands.send(Command::Read).await;
    }

    /// Has nothing sent any more, only listens.
    pub(super) async fn listen(&self) {
        let _gone_at_shutdown = self.commands.send(Command::Listen).await;
    }

    /// What was found out next.
    pub(super) fn poll_found(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Option<Found>> {
        self.found.poll_recv(cx)
    }
}

struct Watcher {
    hardware: Hardware,
    settings: VinSettings,
    commands: mpsc::Receiver<Command>,
    found: mpsc::Sender<Found>,
    /// The bit rate found on each port.
    bit_rates: Vec<Option<u32>>,
    last_reading: Option<Instant>,
    only_listens: bool,
    /// The VIN last read.
    vin: Option<Vin>,
    retry: VinRetry,
    /// Networks that were not ready in time for the last reading.
    late: Vec<OpeningNetwork>,
}

/// A port while nothing is asked on it.
struct Watched {
    device: Option<Box<dyn CanBus>>,
    watch: WakeWatch,
    /// When a frame was last heard on it.
    last_frame: Option<Instant>,
    retry_at: Instant,
    opening: Option<connector_hal::future::BoxFuture<'static, Result<Box<dyn CanBus>, CanError>>>,
    settings: Option<CanSettings>,
}

/// What the task does next.
enum Next {
    Read,
    Watch(Vec<Watched>),
    Released,
    End,
}

impl Watcher {
    async fn run(mut self) {
        let mut next = Next::Read;
        loop {
            next = match next {
                Next::Read => self.read().await,
                Next::Watch(ports) => self.watch(ports).await,
                Next::Released => self.wait_released().await,
                Next::End => return,
            };
        }
    }

    async fn wait_released(&mut self) -> Next {
        match self.commands.recv().await {
            Some(Command::Release(done)) => {
                let _asker_gone = done.send(());
                Next::Released
            }
            Some(Command::Resume(vin)) => {
                self.vin = vin;
                self.retry.handle_known(now(), vin.is_some());
                Next::Watch(self.listen_again())
            }
            Some(Command::Read) => self.read_anew(),
            Some(Command::Listen) => self.only_listen(),
            Some(Command::Ignition(ignition)) => {
                self.retry.handle_ignition(ignition);
                Next::Released
            }
            None => Next::End,
        }
    }

    fn read_anew(&mut self) -> Next {
        self.retry.handle_reason();
        Next::Read
    }

    /// Reads the VIN on all ports that can be opened; a command that comes meanwhile ends that.
    async fn read(&mut self) -> Next {
        self.late.clear();
        let ports = self.hardware.can_ports.clone();
        let open = self.hardware.open_can.clone();
        let settings = self.settings.clone();
        let timer = self.hardware.timer;
        let (klines, open_kline) = (self.hardware.kline_ports.clone(), self.hardware.open_kline.clone());
        let beside = vin::by_doip(&self.hardware, settings.budget);
        let reading = async move {
            let mut opened = Vec::new();
            let mut indices = Vec::new();
            for (index, port) in ports.iter().enumerate() {
                match open(&port.device).await {
                    Ok(bus) => {
                        opened.push(bus);
                        indices.push(index);
                    }
                    Err(error) => tracing::warn!(%error, "no VIN can be read here"),
                }
            }
            let mut reading = vin::read_beside(opened, beside, &settings).await;
            if reading.report.vin.is_none() {
                let lines = open_lines(&klines, &*open_kline).await;
                let (budget, elapsed) = (settings.kline_budget, reading.report.elapsed);
                let read = vin::kline::read(lines, budget, elapsed, timer).await;
                reading.report = read.map_or(reading.report, |(report, _)| report);
            }
            (indices, reading)
        };
        let mut reading = std::pin::pin!(reading);
        let (indices, reading) = loop {
            tokio::select! {
                done = &mut reading => break done,
                command = self.commands.recv() => return match command {
                    Some(Command::Release(done)) => {
                        let _asker_gone = done.send(());
                        Next::Released
                    }
                    Some(Command::Read | Command::Resume(_)) => self.read_anew(),
                    Some(Command::Listen) => self.only_listen(),
                    Some(Command::Ignition(ignition)) => {
                        self.retry.handle_ignition(ignition);
                        continue;
                    }
                    None => Next::End,
                },
            }
        };
        self.last_reading = Some(now());
        let mut found = vec![None; self.hardware.can_ports.len()];
        let mut watched = self.listen_again();
        for (index, bus) in indices.into_iter().zip(reading.buses) {
            if let (Some(rate), Some(port)) = (found.get_mut(index), watched.get_mut(index)) {
                *rate = bus.bit_rate;
                port.adopt(bus);
            }
        }
        for port in watched.iter_mut().filter(|port| port.device.is_none()) {
            port.watch.handle_device(false);
        }
        self.bit_rates = found;
        self.vin = reading.report.vin;
        self.retry.handle_known(now(), self.vin.is_some());
        if self.vin.is_none() {
            self.late = reading.others.into_iter().filter_map(|other| other.late).collect();
        }
        tracing::debug!(vin = ?reading.report.vin, elapsed = ?reading.report.elapsed, "read the VIN");
        if self.found.send(Found::Vin(reading.report)).await.is_err() {
            Next::End
        } else {
            Next::Watch(watched)
        }
    }

    fn only_listen(&mut self) -> Next {
        self.only_listens = true;
        Next::Watch(self.listen_again())
    }

    /// All ports, their devices yet to be opened.
    fn listen_again(&self) -> Vec<Watched> {
        // where no bit rate is known, the likeliest may let us hear that the vehicle wakes
        let likeliest = self.settings.bit_rates.first().copied().filter(|_| self.only_listens);
        let rate = |index: usize| self.bit_rates.get(index).copied().flatten().or(likeliest);
        (0..self.hardware.can_ports.len()).map(|index| Watched::new(rate(index))).collect()
    }

    /// Listens until something asks for the VIN to be read again.
    async fn watch(&mut self, mut ports: Vec<Watched>) -> Next {
        let mut doip = DoipWatch::new(&self.hardware, self.vin);
        let Self { hardware, commands, last_reading, only_listens, found, retry, late, .. } = self;
        let mut timer = connector_hal::timer::Deadline::new(connector_hal::timer::TimerKind::Runtime);
        let mut wanted: Option<WakeReason> = None;
        // kept until the reading opens them for itself, so that nobody goes back to sleep meanwhile
        let mut ready = Vec::new();
        std::future::poll_fn(|cx| {
            while let Poll::Ready(command) = commands.poll_recv(cx) {
                return Poll::Ready(match command {
                    Some(Command::Release(done)) => {
                        ports.clear();
                        doip.clear();
                        late.clear();
                        let _asker_gone = done.send(());
                        Next::Released
                    }
                    Some(Command::Read) => {
                        retry.handle_reason();
                        Next::Read
                    }
                    Some(Command::Listen) => {
                        *only_listens = true;
                        continue;
                    }
                    Some(Command::Ignition(ignition)) => {
                        retry.handle_ignition(ignition);
                        continue;
                    }
                    Some(Command::Resume(_)) => continue,
                    None => Next::End,
                });
            }
            for (index, watched) in ports.iter_mut().enumerate() {
                let Some(port) = hardware.can_ports.get(index) else { continue };
                let open = || (hardware.open_can)(&port.device);
                if let Some(reason) = watched.poll(cx, open) {
                    wanted = Some(reason);
                }
                if let Some(at) = watched.last_frame {
                    retry.handle_frame(at);
                }
            }
            if doip.poll(cx) {
                wanted = Some(WakeReason::Announcement);
            }
            late.retain_mut(|opening| match opening.as_mut().poll(cx) {
                Poll::Pending => true,
                Poll::Ready(opened) => {
                    match opened {
                        Ok(network) => {
                            ready.push(network);
                            wanted = Some(WakeReason::Network);
                        }
                        Err(error) => tracing::warn!(%error, "no VIN can be read by DoIP here"),
                    }
                    false
                }
            });
            if *only_listens && wanted.take().is_some() {
                // one that waits already says the same
                let _told_or_waiting = found.try_send(Found::Activity);
            }
            // an adapter that comes and goes, or a noisy line, must not keep us asking
            let earliest = last_reading.map_or_else(now, |last| last + LEAST_PAUSE);
            match wanted {
                Some(reason) if earliest <= now() => {
                    tracing::info!(?reason, "the vehicle may have changed; reading the VIN again");
                    retry.handle_reason();
                    return Poll::Ready(Next::Read);
                }
                None if !*only_listens && retry.poll_retry(now()) => {
                    tracing::debug!("the vehicle told no VIN; asking it again");
                    return Poll::Ready(Next::Read);
                }
                _ => {}
            }
            let open_at = ports.iter().filter_map(Watched::poll_timeout).min();
            let due = wanted.map(|_| earliest);
            let retry_at = retry.poll_timeout(now()).filter(|_| !*only_listens);
            timer.set([open_at, due, retry_at].into_iter().flatten().min());
            if timer.poll_expired(cx).is_ready() {
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await
    }
}

impl Watched {
    fn new(bit_rate: Option<u32>) -> Self {
        // on a bus that was silent before, the first frame is news
        let silence = if bit_rate.is_some() { DEFAULT_SILENCE } else { Duration::ZERO };
        Self {
            device: None,
            watch: WakeWatch::new(silence, now()),
            last_frame: None,
            retry_at: now(),
            opening: None,
            settings: bit_rate.map(|bit_rate| CanSettings {
                bit_rate,
                data_bit_rate: None,
                listen_only: true,
            }),
        }
    }

    /// Goes on with a bus on which the VIN was just read.
    fn adopt(&mut self, reading: vin::BusReading) {
        if let vin::BusEnd::Failed(error) = &reading.end {
            tracing::debug!(%error, "the CAN device failed while the VIN was read");
            return;
        }
        *self = Self::new(reading.bit_rate);
        self.device = Some(reading.bus);
    }

    fn poll_timeout(&self) -> Option<Instant> {
        (self.device.is_none() && self.opening.is_none()).then_some(self.retry_at)
    }

    /// Listens, or tries to; tells when the VIN should be read again.
    fn poll(
        &mut self,
        cx: &mut std::task::Context<'_>,
        open: impl Fn() -> connector_hal::future::BoxFuture<'static, Result<Box<dyn CanBus>, CanError>>,
    ) -> Option<WakeReason> {
        if let Some(device) = &mut self.device {
            for _ in 0..BATCH {
                match device.poll_event(cx) {
                    Poll::Ready(Ok(CanEvent::Received { frame, at })) => {
                        if frame.is_error() {
                            continue;
                        }
                        self.last_frame = Some(at);
                        if let Some(reason) = self.watch.handle_frame(at) {
                            return Some(reason);
                        }
                    }
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => {
                        tracing::warn!(%error, "lost the CAN device; trying it again every second");
                        self.device = None;
                        self.watch.handle_device(false);
                        self.retry_at = now() + RETRY_AFTER;
                        break;
                    }
                    Poll::Pending => return None,
                }
            }
            cx.waker().wake_by_ref();
            return None;
        }
        if self.opening.is_none() && self.retry_at <= now() {
            let (opening, settings) = (open(), self.settings);
            self.opening = Some(Box::pin(async move {
                let mut device = opening.await?;
                if let Some(settings) = settings.filter(|_| device.capabilities().listen_only) {
                    device.configure(settings).await?;
                }
                Ok(device)
            }));
        }
        let Poll::Ready(opened) = self.opening.as_mut()?.as_mut().poll(cx) else { return None };
        self.opening = None;
        match opened {
            Ok(device) => {
                self.device = Some(device);
                cx.waker().wake_by_ref();
                self.watch.handle_device(true)
            }
            Err(error) => {
                tracing::debug!(%error, "the CAN device is not usable");
                self.watch.handle_device(false);
                self.retry_at = now() + RETRY_AFTER;
                cx.waker().wake_by_ref();
                None
            }
        }
    }
}

/// The K-lines that can be opened; nobody listens on one, so they are closed again after reading.
async fn open_lines(ports: &[KlinePort], open: &OpenKline) -> Vec<LineToAsk> {
    let mut lines = Vec::new();
    for port in ports {
        match open(&port.device).await {
            Ok(line) => lines.push(LineToAsk { line, bit_rates: port.bit_rates.clone() }),
            Err(error) => tracing::warn!(%error, "no VIN can be read here"),
        }
    }
    lines
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
#[path = "vehicle_tests.rs"]
mod tests;
