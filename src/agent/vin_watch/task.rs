//! The task of the VIN watch: reads the VIN, listens until there is a reason to read it again, and closes the
//! devices while a session uses them.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use connector_hal::clock::now;
use tokio::sync::mpsc;

use super::listening::Listening;
use super::messages::{Found, WatchCommand};
use super::port::WatchedPort;
use super::reading::read_ports;
use super::schedule::{ReadingSchedule, WatchStart, WatchStep};
use crate::config::VinSettings;
use crate::policy::SharedPolicy;
use crate::protocol::vin::Vin;
use crate::vehicle::hardware::Hardware;
use crate::vehicle::vin::VehicleReading;
use crate::vehicle::vin::doip::OpeningNetwork;

/// How long a reading that is not awaited listens before its first question: a tester in a session with an ECU sends
/// TesterPresent at least every 2 s, because the session ends after 5 s without it (S3, ISO 14229-2).
const LISTEN_FIRST: Duration = Duration::from_secs(3);

pub(super) struct VinWatchTask {
    hardware: Hardware,
    settings: VinSettings,
    policy: SharedPolicy,
    commands: mpsc::Receiver<WatchCommand>,
    found: mpsc::Sender<Found>,
    schedule: ReadingSchedule,
    /// The bit rate that was found on each port, in bit/s.
    bit_rates: Vec<Option<u32>>,
    /// The VIN that was read last.
    vin: Option<Vin>,
    /// The task begins with a reading, and otherwise listens.
    reads_immediately: bool,
    /// The VIN was read before.
    has_read: bool,
    /// The next reading is not awaited, so that it begins by listening.
    listens_first: bool,
}

/// What the task does next.
enum WatchActivity {
    Read,
    Watch {
        ports: Vec<WatchedPort>,
        /// Networks that were not ready in time for the last reading.
        late: Vec<OpeningNetwork>,
    },
    Released,
    End,
}

impl VinWatchTask {
    pub(super) fn new(
        hardware: Hardware,
        settings: VinSettings,
        policy: SharedPolicy,
        (ignition, start): (Option<bool>, WatchStart),
        commands: mpsc::Receiver<WatchCommand>,
        found: mpsc::Sender<Found>,
    ) -> Self {
        let schedule = ReadingSchedule::new(ignition, start);
        let reads_immediately = start.reads_immediately(ignition);
        Self {
            hardware,
            settings,
            policy,
            commands,
            found,
            schedule,
            bit_rates: Vec::new(),
            vin: None,
            reads_immediately,
            has_read: false,
            listens_first: false,
        }
    }

    /// Runs until the watch's handle is dropped.
    pub(super) async fn run(mut self) {
        let mut activity =
            if self.reads_immediately { WatchActivity::Read } else { self.watch_from_closed() };
        loop {
            activity = match activity {
                WatchActivity::Read => self.read().await,
                WatchActivity::Watch { ports, late } => self.watch(ports, late).await,
                WatchActivity::Released => self.wait_released().await,
                WatchActivity::End => return,
            };
        }
    }

    /// Waits while a session uses the devices.
    async fn wait_released(&mut self) -> WatchActivity {
        match self.commands.recv().await {
            Some(WatchCommand::Release(done)) => {
                let _asker_gone = done.send(());
                WatchActivity::Released
            }
            Some(WatchCommand::Resume(vin)) => {
                self.vin = vin;
                self.schedule.handle_known(now(), vin.is_some());
                self.watch_from_closed()
            }
            Some(WatchCommand::Read { is_awaited }) => self.read_again(is_awaited),
            Some(WatchCommand::Listen) => self.only_listen(),
            Some(WatchCommand::Ignition(ignition)) => {
                self.schedule.handle_ignition(ignition);
                WatchActivity::Released
            }
            None => WatchActivity::End,
        }
    }

    /// Reads the VIN on all ports that can be opened. A command ends the reading.
    async fn read(&mut self) -> WatchActivity {
        let listen_first = if self.listens_first { LISTEN_FIRST } else { self.settings.listen_first };
        let settings = VinSettings { listen_first, ..self.settings.clone() };
        let reading = read_ports(self.hardware.clone(), settings, self.policy.clone());
        let mut reading = std::pin::pin!(reading);
        loop {
            tokio::select! {
                (indices, reading) = &mut reading => return self.handle_reading(indices, reading).await,
                command = self.commands.recv() => return match command {
                    Some(WatchCommand::Release(done)) => {
                        let _asker_gone = done.send(());
                        WatchActivity::Released
                    }
                    Some(WatchCommand::Read { is_awaited }) => self.read_again(is_awaited),
                    Some(WatchCommand::Resume(_)) => self.read_again(false),
                    Some(WatchCommand::Listen) => self.only_listen(),
                    Some(WatchCommand::Ignition(ignition)) => {
                        self.schedule.handle_ignition(ignition);
                        continue;
                    }
                    None => WatchActivity::End,
                },
            }
        }
    }

    /// Keeps the result of a reading, reports it, and continues to listen on the open devices.
    async fn handle_reading(&mut self, indices: Vec<usize>, reading: VehicleReading) -> WatchActivity {
        let VehicleReading { report, buses, networks, .. } = reading;
        let now = now();
        let mut bit_rates = vec![None; self.hardware.can_ports.len()];
        let mut ports = self.closed_ports();
        for (index, bus) in indices.into_iter().zip(buses) {
            if let (Some(bit_rate), Some(port)) = (bit_rates.get_mut(index), ports.get_mut(index)) {
                *bit_rate = bus.bit_rate;
                port.adopt(bus, now);
            }
        }
        ports.iter_mut().for_each(WatchedPort::expect_device);
        self.bit_rates = bit_rates;
        let doubt = self.schedule.take_doubt();
        // a reading that failed is no reason to read again because of an announcement of the known VIN
        self.vin = report.vin.or(self.vin.filter(|_| doubt.is_none() && !self.listens_first));
        self.has_read = true;
        self.schedule.handle_reading(now, report.vin.is_some());
        let late = networks.into_iter().filter_map(|network| network.late);
        let late = late.filter(|_| report.vin.is_none()).collect();
        tracing::debug!(vin = ?report.vin, elapsed = ?report.elapsed, "read the VIN");
        match self.found.send(Found::Vin { report, doubt }).await {
            Ok(()) => WatchActivity::Watch { ports, late },
            Err(_) => WatchActivity::End,
        }
    }

    /// Listens until there is a reason to read the VIN again.
    async fn watch(&mut self, ports: Vec<WatchedPort>, late: Vec<OpeningNetwork>) -> WatchActivity {
        self.schedule.handle_watch();
        let mut listening = Listening::new(&self.hardware, ports, late, self.vin);
        poll_fn(|cx| self.poll_watch(cx, &mut listening)).await
    }

    fn poll_watch(&mut self, cx: &mut Context<'_>, listening: &mut Listening) -> Poll<WatchActivity> {
        if let Poll::Ready(activity) = self.process_commands(cx, listening) {
            return Poll::Ready(activity);
        }
        listening.poll(cx, now(), &self.hardware, &mut self.schedule);
        while let Some(step) = self.schedule.poll_step(now()) {
            match step {
                WatchStep::Read => {
                    self.listens_first = self.has_read;
                    return Poll::Ready(WatchActivity::Read);
                }
                WatchStep::ReportActivity => {
                    // a message that waits already says the same
                    let _sent_or_waiting = self.found.try_send(Found::Activity);
                }
            }
        }
        listening.wake_at(cx, self.schedule.poll_timeout(now()));
        Poll::Pending
    }

    /// Ready when a command ends the listening.
    fn process_commands(&mut self, cx: &mut Context<'_>, listening: &mut Listening) -> Poll<WatchActivity> {
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            match command {
                Some(WatchCommand::Release(done)) => {
                    listening.clear();
                    let _asker_gone = done.send(());
                    return Poll::Ready(WatchActivity::Released);
                }
                Some(WatchCommand::Read { is_awaited }) => return Poll::Ready(self.read_again(is_awaited)),
                Some(WatchCommand::Listen) => self.schedule.handle_listen(),
                Some(WatchCommand::Ignition(ignition)) => self.schedule.handle_ignition(ignition),
                Some(WatchCommand::Resume(_)) => {}
                None => return Poll::Ready(WatchActivity::End),
            }
        }
        Poll::Pending
    }

    fn read_again(&mut self, is_awaited: bool) -> WatchActivity {
        self.schedule.handle_request();
        self.listens_first = !is_awaited && self.has_read;
        WatchActivity::Read
    }

    fn only_listen(&mut self) -> WatchActivity {
        self.schedule.handle_listen();
        self.watch_from_closed()
    }

    fn watch_from_closed(&self) -> WatchActivity {
        WatchActivity::Watch { ports: self.closed_ports(), late: Vec::new() }
    }

    /// All ports, whose devices are opened later.
    fn closed_ports(&self) -> Vec<WatchedPort> {
        // where no bit rate is known, the likeliest may show that the vehicle wakes
        let was_never_read = self.bit_rates.is_empty();
        let likeliest = self.settings.bit_rates.first().copied();
        let likeliest = likeliest.filter(|_| was_never_read || self.schedule.only_listens());
        let bit_rate = |index: usize| self.bit_rates.get(index).copied().flatten().or(likeliest);
        let now = now();
        (0..self.hardware.can_ports.len()).map(|index| WatchedPort::new(bit_rate(index), now)).collect()
    }
}
