//! A running vehicle: each ECU is a separate node on the bus, so that the ECUs contend for the bus as real
//! ones do.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use connector_agent::protocol::isotp::SendFailure;
use connector_hal::bus::BusState;
use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{CanBus, CanError, CanEvent, CanFrame, CanId, CanSettings, open};
use connector_hal::timer::{Deadline, TimerKind};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::catalogue::{EcuAddress, EcuRecord, VehicleRecord};
use super::drive::{Drive, SpeedBroadcast, broadcast};
use super::ecu::{Anomalies, Ecu, EcuConfig, EcuStatus, Image, Responder, Timing};
use super::recording::{RecordedEcu, Recording};
use super::tp20::{Tp20EcuConfig, Tp20Node};
use super::transport::{CanNode, Node, TransportConfig, obd_functional};

/// Time that an ECU stays off the bus after it went bus-off.
const BUS_OFF_RECOVERY: Duration = Duration::from_millis(100);

/// A vehicle, and its deviations from the usual behaviour.
#[derive(Debug, Clone)]
pub struct VehicleConfig {
    /// The vehicle from the file.
    pub record: VehicleRecord,
    /// Processing times of the ECUs.
    pub timing: Timing,
    /// ISO-TP parameters of the ECUs.
    pub transport: TransportConfig,
    /// The longest TransferData request that the ECUs accept.
    pub max_block_length: u16,
    /// ECUs behind TP2.0, in addition to those from the file.
    pub tp20: Vec<Tp20EcuConfig>,
    /// Identifiers that all ECUs without an extended address receive, in addition to OBD's functional ones.
    pub functional: Vec<CanId>,
    /// The clock of the bus.
    pub timer: TimerKind,
    /// The directory to which each completed download is written as a file.
    pub memory_dir: Option<PathBuf>,
    /// How the vehicle drives.
    pub drive: Drive,
    /// The frame on CAN that carries the speed.
    pub speed_signal: Option<SpeedBroadcast>,
}

impl VehicleConfig {
    /// A vehicle with the usual behaviour.
    pub fn new(record: VehicleRecord) -> Self {
        Self {
            record,
            timing: Timing::default(),
            transport: TransportConfig::default(),
            max_block_length: 0x0FFF,
            tp20: Vec::new(),
            functional: Vec::new(),
            timer: TimerKind::Runtime,
            memory_dir: None,
            drive: Drive::default(),
            speed_signal: None,
        }
    }

    fn nodes(&self) -> Vec<(String, Box<dyn CanNode>)> {
        let node = |record: EcuRecord| {
            let address = record.address;
            let mut functional: Vec<CanId> = obd_functional(&address).into_iter().collect();
            if address.extended.is_none() {
                functional.extend(self.functional.iter().filter(|id| **id != address.request));
            }
            let ecu = Ecu::new(EcuConfig {
                timing: self.timing,
                max_block_length: self.max_block_length,
                drive: self.drive.clone(),
                ..EcuConfig::new(&self.record.platform, &record)
            });
            let node = Node::new(address, functional, &self.transport, Box::new(ecu));
            (record.name, Box::new(node) as Box<dyn CanNode>)
        };
        let tp20 = |config: &Tp20EcuConfig| {
            let ecu = Ecu::new(EcuConfig {
                timing: self.timing,
                max_block_length: self.max_block_length,
                drive: self.drive.clone(),
                ..EcuConfig::new(&self.record.platform, &config.record())
            });
            let node = Tp20Node::new(config.clone(), Box::new(ecu));
            (config.name.clone(), Box::new(node) as Box<dyn CanNode>)
        };
        self.record.nodes().into_iter().map(node).chain(self.tp20.iter().map(tp20)).collect()
    }
}

/// The observable part of an ECU of a running vehicle.
#[derive(Debug, Clone)]
pub struct RunningEcu {
    /// The ECU's function.
    pub name: String,
    /// The ECU's identifiers.
    pub address: EcuAddress,
    /// The ECU's state; the receiver notifies of changes.
    pub status: watch::Receiver<EcuStatus>,
}

/// A vehicle on a bus. Dropping it takes the vehicle off the bus.
#[derive(Debug)]
pub struct Vehicle {
    ecus: Vec<RunningEcu>,
    tasks: JoinSet<()>,
}

impl Vehicle {
    /// Puts a vehicle from the file on a bus. Must be called within a tokio runtime.
    pub fn start(config: &VehicleConfig, bus: &VirtualBus) -> Self {
        let vehicle =
            Self::start_nodes(attach(config.nodes(), bus), config.timer, config.memory_dir.as_deref());
        vehicle.with_broadcast(config, || Box::new(bus.attach("ABS")))
    }

    /// Puts a vehicle from the file on the bus behind a network interface, where each ECU has its own
    /// socket.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`open`] and [`CanBus::configure`].
    pub async fn start_at(
        config: &VehicleConfig,
        interface: &str,
        settings: CanSettings,
    ) -> Result<Self, CanError> {
        let nodes = open_all(config.nodes(), interface, settings).await?;
        let vehicle = Self::start_nodes(nodes, config.timer, config.memory_dir.as_deref());
        if config.speed_signal.is_none() {
            return Ok(vehicle);
        }
        let mut can = open(interface)?;
        can.configure(settings).await?;
        Ok(vehicle.with_broadcast(config, || can))
    }

    /// Puts the ECUs of a recording on a bus.
    pub fn play(recording: &Recording, bus: &VirtualBus, timer: TimerKind) -> Self {
        Self::start_nodes(attach(recorded(recording), bus), timer, None)
    }

    /// Puts the ECUs of a recording on the bus behind a network interface.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`Vehicle::start_at`].
    pub(crate) async fn play_at(
        recording: &Recording,
        interface: &str,
        settings: CanSettings,
        timer: TimerKind,
    ) -> Result<Self, CanError> {
        Ok(Self::start_nodes(open_all(recorded(recording), interface, settings).await?, timer, None))
    }

    fn start_nodes(nodes: Vec<OnBus>, timer: TimerKind, memory_dir: Option<&Path>) -> Self {
        let mut tasks = JoinSet::new();
        let mut ecus = Vec::with_capacity(nodes.len());
        for OnBus { name, node, can } in nodes {
            let address = node.address();
            let (sender, status) = watch::channel(EcuStatus::default());
            let memory = memory_dir.map(Path::to_owned);
            tasks.spawn(Driver { can, node, status: sender, memory, timer }.drive());
            ecus.push(RunningEcu { name, address, status });
        }
        Self { ecus, tasks }
    }

    /// Adds the brake controller, which broadcasts the speed, if the vehicle has such a frame.
    fn with_broadcast(mut self, config: &VehicleConfig, attach: impl FnOnce() -> Box<dyn CanBus>) -> Self {
        if let Some(signal) = config.speed_signal {
            self.tasks.spawn(broadcast(attach(), config.drive.clone(), signal, config.timer));
        }
        self
    }

    /// All ECUs of the vehicle.
    pub fn ecus(&self) -> &[RunningEcu] {
        &self.ecus
    }

    /// The ECU with this address.
    pub fn ecu(&self, address: EcuAddress) -> Option<&RunningEcu> {
        self.ecus.iter().find(|ecu| ecu.address == address)
    }

    /// The ECU with this request identifier and no extended address.
    pub fn ecu_at(&self, request: CanId) -> Option<&RunningEcu> {
        self.ecus.iter().find(|ecu| ecu.address.request == request && ecu.address.extended.is_none())
    }

    /// The state of the ECU with this address.
    pub fn status(&self, address: EcuAddress) -> Option<EcuStatus> {
        self.ecu(address).map(|ecu| ecu.status.borrow().clone())
    }

    /// The completed downloads into the memory of the ECU with this address, the newest last.
    pub fn memory(&self, address: EcuAddress) -> Vec<Arc<Image>> {
        self.ecu(address).map(|ecu| ecu.status.borrow().memory.clone()).unwrap_or_default()
    }

    /// The anomalies that ECUs have recorded. ECUs without anomalies are left out.
    pub fn anomalies(&self) -> Vec<(EcuAddress, Anomalies)> {
        let all = self.ecus.iter().map(|ecu| (ecu.address, ecu.status.borrow().anomalies));
        all.filter(|(_, anomalies)| !anomalies.is_empty()).collect()
    }

    /// Takes the vehicle off the bus, and waits until that is done.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// An ECU, and its connection to the bus.
struct OnBus {
    name: String,
    node: Box<dyn CanNode>,
    can: Box<dyn CanBus>,
}

fn attach(nodes: Vec<(String, Box<dyn CanNode>)>, bus: &VirtualBus) -> Vec<OnBus> {
    let attach = |(name, node): (String, Box<dyn CanNode>)| {
        let can = Box::new(bus.attach(&format!("{name} {}", node.address())));
        OnBus { name, node, can }
    };
    nodes.into_iter().map(attach).collect()
}

async fn open_all(
    nodes: Vec<(String, Box<dyn CanNode>)>,
    interface: &str,
    settings: CanSettings,
) -> Result<Vec<OnBus>, CanError> {
    let mut opened = Vec::with_capacity(nodes.len());
    for (name, node) in nodes {
        let mut can = open(interface)?;
        can.configure(settings).await?;
        opened.push(OnBus { name, node, can });
    }
    Ok(opened)
}

fn recorded(recording: &Recording) -> Vec<(String, Box<dyn CanNode>)> {
    let node = |(request, response, transport, ecu): (CanId, CanId, &TransportConfig, RecordedEcu)| {
        let address = EcuAddress { request, response, extended: None };
        let responder: Box<dyn Responder> = Box::new(ecu);
        let functional = recording.roles().functional.clone();
        let node = Node::new(address, functional, transport, responder);
        ("recorded".to_owned(), Box::new(node) as Box<dyn CanNode>)
    };
    recording.ecus().map(node).collect()
}

/// The shell around one ECU. It makes no decisions about the protocol.
struct Driver {
    can: Box<dyn CanBus>,
    node: Box<dyn CanNode>,
    status: watch::Sender<EcuStatus>,
    memory: Option<PathBuf>,
    timer: TimerKind,
}

/// The next thing to handle.
pub(super) enum BusStep {
    /// The adapter accepted the outgoing frame.
    Accepted,
    Event(CanEvent),
    Failed(CanError),
}

impl Driver {
    /// Runs until the bus is gone.
    async fn drive(mut self) {
        if let Err(error) = self.can.set_filters(&self.node.filters()) {
            tracing::warn!(%error, "cannot filter: the ECU receives frames for other ECUs");
        }
        let mut deadline = Deadline::new(self.timer);
        let mut outgoing: Option<CanFrame> = None;
        let mut recover_at = None;
        loop {
            self.publish();
            let now = self.timer.now();
            if outgoing.is_none() && recover_at.is_none() {
                outgoing = self.node.poll_transmit(now);
            }
            deadline.set(self.node.poll_timeout().into_iter().chain(recover_at).min());
            let step = tokio::select! {
                biased;
                step = next_step(&mut *self.can, outgoing.as_ref()) => step,
                () = deadline.expired() => {
                    let now = self.timer.now();
                    self.node.handle_timeout(now);
                    if recover_at.is_some_and(|at| at <= now) {
                        recover_at = None;
                        if let Err(error) = self.can.restart().await {
                            tracing::warn!(%error, "an ECU cannot return to the bus");
                        }
                    }
                    continue;
                }
            };
            match step {
                BusStep::Accepted => outgoing = None,
                BusStep::Event(CanEvent::Received { frame, at }) => self.node.handle_frame(at, &frame),
                BusStep::Event(CanEvent::Transmitted { at }) => self.node.handle_transmitted(at),
                BusStep::Event(CanEvent::TransmitFailed { at }) => {
                    self.node.handle_transmit_failed(at, SendFailure::NotAcknowledged);
                }
                BusStep::Event(CanEvent::State(BusState::Off)) => {
                    outgoing = None;
                    let now = self.timer.now();
                    self.node.handle_transmit_failed(now, SendFailure::BusOff);
                    recover_at = Some(now + BUS_OFF_RECOVERY);
                }
                // an ECU asks for outcomes in the order of its frames
                BusStep::Event(CanEvent::State(_) | CanEvent::Overtaking { .. }) => {}
                BusStep::Event(CanEvent::Lost(frames)) => tracing::warn!(frames, "an ECU lost frames"),
                BusStep::Failed(error) if error.is_fatal() => {
                    tracing::info!(%error, "an ECU has left the bus");
                    return;
                }
                BusStep::Failed(error) => {
                    // the vehicle's configuration has FD frames on a classic bus
                    tracing::warn!(%error, "an ECU cannot send a frame");
                    outgoing = None;
                    self.node.handle_transmit_failed(self.timer.now(), SendFailure::BusOff);
                }
            }
        }
    }

    /// Publishes the ECU's state, and writes new downloads to files.
    fn publish(&mut self) {
        let Some(status) = self.node.poll_status() else { return };
        if let Some(directory) = &self.memory {
            let before = self.status.borrow().memory.clone();
            let known = |image: &Arc<Image>| before.iter().any(|old| Arc::ptr_eq(old, image));
            for image in status.memory.iter().filter(|image| !known(image)) {
                let ecu = self.node.address();
                write_image(&image_path(directory, ecu, image), &ecu, image);
            }
        }
        self.status.send_replace(status);
    }
}

/// Sends the outgoing frame as soon as there is room for it; until then, waits for the next event.
pub(super) async fn next_step(can: &mut dyn CanBus, outgoing: Option<&CanFrame>) -> BusStep {
    poll_fn(|cx| {
        if let Some(frame) = outgoing
            && let Poll::Ready(accepted) = can.poll_send(cx, frame)
        {
            return Poll::Ready(accepted.map_or_else(BusStep::Failed, |()| BusStep::Accepted));
        }
        can.poll_event(cx).map(|event| event.map_or_else(BusStep::Failed, BusStep::Event))
    })
    .await
}

/// The name of the file that a download is written to: `0x7E0-0x08000000.bin`.
pub fn image_path(directory: &Path, address: EcuAddress, image: &Image) -> PathBuf {
    let extended = address.extended.map(|byte| format!("-{byte:02X}")).unwrap_or_default();
    directory.join(format!("{}{extended}-0x{:08X}.bin", address.request, image.address))
}

/// Writes a download to a file. Creates the directory if necessary.
pub(super) fn write_image(path: &Path, ecu: &dyn std::fmt::Display, image: &Image) {
    // write to a temporary name and rename, so that a reader never sees a part of the file
    let aside = path.with_extension("part");
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&aside, &image.data))
        .and_then(|()| std::fs::rename(&aside, path));
    match written {
        Ok(()) => {
            tracing::info!(%ecu, path = %path.display(), bytes = image.data.len(), "download written")
        }
        Err(error) => tracing::warn!(path = %path.display(), %error, "cannot write a download"),
    }
}
