//! Which vehicle this is: reads the VIN at start and whenever the vehicle may have changed, and otherwise
//! only listens.
//!
//! The watch is a separate task, because adapters may take their time. It closes the devices while a session
//! uses them.

mod announcements;
mod listening;
mod messages;
mod port;
mod retry;

#[cfg(test)]
mod tests;

use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use connector_hal::can::CanBus;
use connector_hal::clock::now;
use tokio::sync::{mpsc, oneshot};

use self::listening::Listening;
pub(super) use self::messages::Found;
use self::messages::WatchCommand;
use self::port::WatchedPort;
use self::retry::VinRetry;
use crate::config::VinSettings;
use crate::protocol::vin::Vin;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::doip::OpeningNetwork;
use crate::vehicle::vin::kline::LineToAsk;
use crate::vehicle::vin::{VehicleReading, read_vehicle};

/// The least time between two readings that something on the bus caused. A reading on CAN takes up to 1.5 s,
/// so that an adapter that comes and goes keeps the buses busy for less than a third of the time.
const LEAST_PAUSE: Duration = Duration::from_secs(5);
/// The most commands that may wait. The agent's loop sends one at a time, and waits if there is no room.
const COMMANDS: usize = 8;
/// The most messages that may wait; the watch pauses until there is room. A reading causes one message.
const FOUND: usize = 8;

/// The handle of the watch's task.
pub(super) struct VinWatch {
    commands: mpsc::Sender<WatchCommand>,
    found: mpsc::Receiver<Found>,
}

impl VinWatch {
    /// Begins to read the VIN.
    pub(super) fn spawn(hardware: Hardware, settings: VinSettings, ignition: Option<bool>) -> Self {
        let (commands, command_receiver) = mpsc::channel(COMMANDS);
        let (found_sender, found) = mpsc::channel(FOUND);
        let task = VinWatchTask {
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
        tokio::spawn(task.run());
        Self { commands, found }
    }

    /// Closes all devices, so that a session can open them.
    pub(super) async fn release(&self) {
        let (done, released) = oneshot::channel();
        if self.commands.send(WatchCommand::Release(done)).await.is_ok() {
            let _closed_or_gone = released.await;
        }
    }

    /// Returns the devices to the watch, with the VIN that is known by now.
    pub(super) async fn resume(&self, vin: Option<Vin>) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Resume(vin)).await;
    }

    /// Reports that the ignition changed.
    pub(super) async fn ignition(&self, ignition: Option<bool>) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Ignition(ignition)).await;
    }

    /// Reads the VIN again.
    pub(super) async fn read(&self) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Read).await;
    }

    /// Sends nothing any more, and only listens.
    pub(super) async fn listen(&self) {
        let _gone_at_shutdown = self.commands.send(WatchCommand::Listen).await;
    }

    /// The next finding; ready with `None` when the task has ended.
    pub(super) fn poll_found(&mut self, cx: &mut Context<'_>) -> Poll<Option<Found>> {
        self.found.poll_recv(cx)
    }
}

struct VinWatchTask {
    hardware: Hardware,
    settings: VinSettings,
    commands: mpsc::Receiver<WatchCommand>,
    found: mpsc::Sender<Found>,
    /// The bit rate that was found on each port, in bit/s.
    bit_rates: Vec<Option<u32>>,
    last_reading: Option<Instant>,
    only_listens: bool,
    /// The VIN that was read last.
    vin: Option<Vin>,
    retry: VinRetry,
    /// Networks that were not ready in time for the last reading.
    late: Vec<OpeningNetwork>,
}

/// What the task does next.
enum WatchActivity {
    Read,
    Watch(Vec<WatchedPort>),
    Released,
    End,
}

impl VinWatchTask {
    async fn run(mut self) {
        let mut activity = WatchActivity::Read;
        loop {
            activity = match activity {
                WatchActivity::Read => self.read().await,
                WatchActivity::Watch(ports) => self.watch(ports).await,
                WatchActivity::Released => self.wait_released().await,
                WatchActivity::End => return,
            };
        }
    }

    async fn wait_released(&mut self) -> WatchActivity {
        match self.commands.recv().await {
            Some(WatchCommand::Release(done)) => {
                let _asker_gone = done.send(());
                WatchActivity::Released
            }
            Some(WatchCommand::Resume(vin)) => {
                self.vin = vin;
                self.retry.handle_known(now(), vin.is_some());
                WatchActivity::Watch(self.closed_ports())
            }
            Some(WatchCommand::Read) => self.read_again(),
            Some(WatchCommand::Listen) => self.only_listen(),
            Some(WatchCommand::Ignition(ignition)) => {
                self.retry.handle_ignition(ignition);
                WatchActivity::Released
            }
            None => WatchActivity::End,
        }
    }

    fn read_again(&mut self) -> WatchActivity {
        self.retry.handle_reason();
        WatchActivity::Read
    }

    /// Reads the VIN on all ports that can be opened. A command ends the reading.
    async fn read(&mut self) -> WatchActivity {
        self.late.clear();
        let reading = read_ports(self.hardware.clone(), self.settings.clone());
        let mut reading = std::pin::pin!(reading);
        loop {
            tokio::select! {
                (indices, reading) = &mut reading => return self.handle_reading(indices, reading).await,
                command = self.commands.recv() => return match command {
                    Some(WatchCommand::Release(done)) => {
                        let _asker_gone = done.send(());
                        WatchActivity::Released
                    }
                    Some(WatchCommand::Read | WatchCommand::Resume(_)) => self.read_again(),
                    Some(WatchCommand::Listen) => self.only_listen(),
                    Some(WatchCommand::Ignition(ignition)) => {
                        self.retry.handle_ignition(ignition);
                        continue;
                    }
                    None => WatchActivity::End,
                },
            }
        }
    }

    /// Keeps the result of a reading, reports it, and continues to listen on the open devices.
    async fn handle_reading(&mut self, indices: Vec<usize>, reading: VehicleReading) -> WatchActivity {
        let now = now();
        self.last_reading = Some(now);
        let mut bit_rates = vec![None; self.hardware.can_ports.len()];
        let mut ports = self.closed_ports();
        for (index, bus) in indices.into_iter().zip(reading.buses) {
            if let (Some(bit_rate), Some(port)) = (bit_rates.get_mut(index), ports.get_mut(index)) {
                *bit_rate = bus.bit_rate;
                port.adopt(bus, now);
            }
        }
        ports.iter_mut().for_each(WatchedPort::expect_device);
        self.bit_rates = bit_rates;
        self.vin = reading.report.vin;
        self.retry.handle_known(now, self.vin.is_some());
        if self.vin.is_none() {
            self.late = reading.networks.into_iter().filter_map(|network| network.late).collect();
        }
        tracing::debug!(vin = ?reading.report.vin, elapsed = ?reading.report.elapsed, "read the VIN");
        match self.found.send(Found::Vin(reading.report)).await {
            Ok(()) => WatchActivity::Watch(ports),
            Err(_) => WatchActivity::End,
        }
    }

    fn only_listen(&mut self) -> WatchActivity {
        self.only_listens = true;
        WatchActivity::Watch(self.closed_ports())
    }

    /// All ports, whose devices are opened later.
    fn closed_ports(&self) -> Vec<WatchedPort> {
        // where no bit rate is known, the likeliest may show that the vehicle wakes
        let likeliest = self.settings.bit_rates.first().copied().filter(|_| self.only_listens);
        let bit_rate = |index: usize| self.bit_rates.get(index).copied().flatten().or(likeliest);
        let now = now();
        (0..self.hardware.can_ports.len()).map(|index| WatchedPort::new(bit_rate(index), now)).collect()
    }

    /// Listens until there is a reason to read the VIN again.
    async fn watch(&mut self, ports: Vec<WatchedPort>) -> WatchActivity {
        let mut listening = Listening::new(&self.hardware, ports, self.vin);
        std::future::poll_fn(|cx| self.poll_watch(cx, &mut listening)).await
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>, listening: &mut Listening) -> Poll<WatchActivity> {
        if let Poll::Ready(activity) = self.poll_commands(cx, listening) {
            return Poll::Ready(activity);
        }
        listening.poll(cx, now(), &self.hardware, &mut self.retry, &mut self.late);
        if self.only_listens && listening.wanted.take().is_some() {
            // a message that waits already says the same
            let _sent_or_waiting = self.found.try_send(Found::Activity);
        }
        // an adapter that comes and goes, or a noisy line, must not cause one reading after the other
        let earliest = self.last_reading.map_or_else(now, |last| last + LEAST_PAUSE);
        match listening.wanted {
            Some(reason) if earliest <= now() => {
                tracing::info!(?reason, "the vehicle may have changed; reading the VIN again");
                return Poll::Ready(self.read_again());
            }
            None if !self.only_listens && self.retry.poll_retry(now()) => {
                tracing::debug!("the last reading gave no VIN; reading again");
                return Poll::Ready(WatchActivity::Read);
            }
            _ => {}
        }
        let due = listening.wanted.map(|_| earliest);
        let retry_at = self.retry.poll_timeout(now()).filter(|_| !self.only_listens);
        listening.wake_at(cx, [due, retry_at]);
        Poll::Pending
    }

    /// Ready when a command ends the listening.
    fn poll_commands(&mut self, cx: &mut Context<'_>, listening: &mut Listening) -> Poll<WatchActivity> {
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            match command {
                Some(WatchCommand::Release(done)) => {
                    listening.clear();
                    self.late.clear();
                    let _asker_gone = done.send(());
                    return Poll::Ready(WatchActivity::Released);
                }
                Some(WatchCommand::Read) => return Poll::Ready(self.read_again()),
                Some(WatchCommand::Listen) => self.only_listens = true,
                Some(WatchCommand::Ignition(ignition)) => self.retry.handle_ignition(ignition),
                Some(WatchCommand::Resume(_)) => {}
                None => return Poll::Ready(WatchActivity::End),
            }
        }
        Poll::Pending
    }
}

/// Reads the VIN on all ports that can be opened. Returns the reading, and the index of the port of each of
/// its CAN buses.
async fn read_ports(hardware: Hardware, settings: VinSettings) -> (Vec<usize>, VehicleReading) {
    let mut indices = Vec::new();
    let mut buses: Vec<Box<dyn CanBus>> = Vec::new();
    for (index, port) in hardware.can_ports.iter().enumerate() {
        match (hardware.open_can)(&port.device).await {
            Ok(bus) => {
                buses.push(bus);
                indices.push(index);
            }
            Err(error) => tracing::warn!(%error, "cannot read the VIN from this CAN device"),
        }
    }
    (indices, read_vehicle(&hardware, buses, open_lines(&hardware), &settings).await)
}

/// Opens the K-lines that can be opened. They are closed again after reading, since the agent does not listen
/// on them.
async fn open_lines(hardware: &Hardware) -> Vec<LineToAsk> {
    let mut lines = Vec::new();
    for port in hardware.kline_ports.iter() {
        match (hardware.open_kline)(&port.device).await {
            Ok(line) => lines.push(LineToAsk { line, bit_rates: port.bit_rates.clone() }),
            Err(error) => tracing::warn!(%error, "cannot read the VIN from this K-line"),
        }
    }
    lines
}
