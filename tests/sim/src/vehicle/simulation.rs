//! A vehicle at work: each of its ECUs a node of its own on a bus, so that they contend for it as real ones.

use std::future::poll_fn;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use connector_agent::protocol::isotp::SendFailure;
use connector_hal::can::virtual_bus::VirtualBus;
use connector_hal::can::{BusState, CanBus, CanError, CanEvent, CanFrame, CanId, CanSettings, open};
use connector_hal::timer::{Deadline, TimerKind};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::catalogue::{EcuAddress, EcuRecord, VehicleRecord};
use super::ecu::{Anomalies, Ecu, EcuConfig, EcuStatus, Image, Responder, Timing};
use super::recording::{RecordedEcu, Recording};
use super::tp20::{Tp20EcuConfig, Tp20Node};
use super::transport::{CanNode, Node, TransportConfig, obd_functional};

/// How long an ECU stays off the bus after it went bus-off.
const BUS_OFF_RECOVERY: Duration = Duration::from_millis(100);

/// Which vehicle, and in what it differs from the usual.
#[derive(Debug, Clone)]
pub struct VehicleConfig {
    /// The vehicle of the file.
    pub record: VehicleRecord,
    /// How long its ECUs take for what.
    pub timing: Timing,
    /// How they speak ISO-TP.
    pub transport: TransportConfig,
    /// The longest TransferData request they take.
    pub max_block_length: u16,
    /// ECUs behind TP2.0, besides those of the file.
    pub tp20: Vec<Tp20EcuConfig>,
    /// Identifiers that all ECUs without an extended address hear, besides OBD's functional ones.
    pub functional: Vec<CanId>,
    /// The clock that the bus goes by.
    pub timer: TimerKind,
    /// Where each completed download is written to as a file.
    pub memory_dir: Option<PathBuf>,
}

impl VehicleConfig {
    /// A vehicle as the file has it.
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
                ..EcuConfig::new(&self.record.platform, &record)
            });
            let node = Node::new(address, functional, &self.transport, Box::new(ecu));
            (record.name, Box::new(node) as Box<dyn CanNode>)
        };
        let tp20 = |config: &Tp20EcuConfig| {
            let ecu = Ecu::new(EcuConfig {
                timing: self.timing,
                max_block_length: self.max_block_length,
                ..EcuConfig::new(&self.record.platform, &config.record())
            });
            let node = Tp20Node::new(config.clone(), Box::new(ecu));
            (config.name.clone(), Box::new(node) as Box<dyn CanNode>)
        };
        self.record.nodes().into_iter().map(node).chain(self.tp20.iter().map(tp20)).collect()
    }
}

/// One ECU of a running vehicle, as far as it can be seen.
#[derive(Debug, Clone)]
pub struct RunningEcu {
    /// What it does.
    pub name: String,
    /// Where it is.
    pub address: EcuAddress,
    /// Its state; a receiver tells when that changes.
    pub status: watch::Receiver<EcuStatus>,
}

/// A vehicle on a bus. Dropped, it leaves the bus.
#[derive(Debug)]
pub struct Vehicle {
    ecus: Vec<RunningEcu>,
    tasks: JoinSet<()>,
}

impl Vehicle {
    /// Puts a vehicle of the file on a bus. Must be called within a tokio runtime.
    pub fn start(config: &VehicleConfig, bus: &VirtualBus) -> Self {
        Self::start_nodes(attach(config.nodes(), bus), config.timer, config.memory_dir.as_deref())
    }

    /// Puts a vehicle of the file on the bus behind a network interface, where each ECU has a socket of its own.
    ///
    /// Errors: as of [`open`] and [`CanBus::configure`].
    pub async fn start_at(
        config: &VehicleConfig,
        interface: &str,
        settings: CanSettings,
    ) -> Result<Self, CanError> {
        let nodes = open_all(config.nodes(), interface, settings).await?;
        Ok(Self::start_nodes(nodes, config.timer, config.memory_dir.as_deref()))
    }

    /// Puts the ECUs of a recording on a bus.
    pub fn play(recording: &Recording, bus: &VirtualBus, timer: TimerKind) -> Self {
        Self::start_nodes(attach(recorded(recording), bus), timer, None)
    }

    /// Puts the ECUs of a recording on the bus behind a network interface; errors as of [`Vehicle::start_at`].
    pub async fn play_at(
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

    /// The ECUs.
    pub fn ecus(&self) -> &[RunningEcu] {
        &self.ecus
    }

    /// The ECU at an address.
    pub fn ecu(&self, address: EcuAddress) -> Option<&RunningEcu> {
        self.ecus.iter().find(|ecu| ecu.address == address)
    }

    /// The ECU that listens to an identifier, without extended address.
    pub fn ecu_at(&self, request: CanId) -> Option<&RunningEcu> {
        self.ecus.iter().find(|ecu| ecu.address.request == request && ecu.address.extended.is_none())
    }

    /// The state of the ECU at an address.
    pub fn status(&self, address: EcuAddress) -> Option<EcuStatus> {
        self.ecu(address).map(|ecu| ecu.status.borrow().clone())
    }

    /// What completed downloads put into the memory of the ECU at an address, the newest last.
    pub fn memory(&self, address: EcuAddress) -> Vec<Arc<Image>> {
        self.ecu(address).map(|ecu| ecu.status.borrow().memory.clone()).unwrap_or_default()
    }

    /// What should not have happened, by the ECU it happened to.
    pub fn anomalies(&self) -> Vec<(EcuAddress, Anomalies)> {
        let all = self.ecus.iter().map(|ecu| (ecu.address, ecu.status.borrow().anomalies));
        all.filter(|(_, anomalies)| !anomalies.is_empty()).collect()
    }

    /// Takes the vehicle off the bus, and waits until it is.
    pub async fn stop(mut self) {
        self.tasks.shutdown().await;
    }
}

/// An ECU, and how it reaches the bus.
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

/// The shell around one ECU: it decides nothing about the protocol.
struct Driver {
    can: Box<dyn CanBus>,
    node: Box<dyn CanNode>,
    status: watch::Sender<EcuStatus>,
    memory: Option<PathBuf>,
    timer: TimerKind,
}

enum Step {
    Taken,
    Event(CanEvent),
    Failed(CanError),
}

impl Driver {
    /// Runs until the bus is gone.
    async fn drive(mut self) {
        if let Err(error) = self.can.set_filters(&self.node.filters()) {
            tracing::warn!(%error, "the ECU hears frames that are not for it");
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
                            tracing::warn!(%error, "an ECU stays off the bus");
                        }
                    }
                    continue;
                }
            };
            match step {
                Step::Taken => outgoing = None,
                Step::Event(CanEvent::Received { frame, at }) => self.node.handle_frame(at, &frame),
                Step::Event(CanEvent::Transmitted { at }) => self.node.handle_transmitted(at),
                Step::Event(CanEvent::TransmitFailed { at }) => {
                    self.node.handle_transmit_failed(at, SendFailure::NotAcknowledged);
                }
                Step::Event(CanEvent::State(BusState::Off)) => {
                    outgoing = None;
                    let now = self.timer.now();
                    self.node.handle_transmit_failed(now, SendFailure::BusOff);
                    recover_at = Some(now + BUS_OFF_RECOVERY);
                }
                Step::Event(CanEvent::State(_)) => {}
                Step::Event(CanEvent::Lost(frames)) => tracing::warn!(frames, "an ECU lost frames"),
                Step::Failed(error) if error.is_fatal() => {
                    tracing::info!(%error, "an ECU has left the bus");
                    return;
                }
                Step::Failed(error) => {
                    // an FD frame on a classic bus: a mistake in the vehicle's configuration
                    tracing::warn!(%error, "an ECU cannot send");
                    outgoing = None;
                    self.node.handle_transmit_failed(self.timer.now(), SendFailure::BusOff);
                }
            }
        }
    }

    /// Shows the ECU's state, and writes what was newly downloaded.
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

/// Hands over the frame if there is one and room for it, or else waits for the next event.
async fn next_step(can: &mut dyn CanBus, outgoing: Option<&CanFrame>) -> Step {
    poll_fn(|cx| {
        if let Some(frame) = outgoing
            && let Poll::Ready(taken) = can.poll_send(cx, frame)
        {
            return Poll::Ready(taken.map_or_else(Step::Failed, |()| Step::Taken));
        }
        can.poll_event(cx).map(|event| event.map_or_else(Step::Failed, Step::Event))
    })
    .await
}

/// The file a download is written to: `0x7E0-0x08000000.bin`.
pub fn image_path(directory: &Path, address: EcuAddress, image: &Image) -> PathBuf {
    let extended = address.extended.map(|byte| format!("-{byte:02X}")).unwrap_or_default();
    directory.join(format!("{}{extended}-0x{:08X}.bin", address.request, image.address))
}

/// Writes a download to a file, whose directory is made if it is not there.
pub(super) fn write_image(path: &Path, ecu: &dyn std::fmt::Display, image: &Image) {
    // written aside and renamed, so that whoever waits for the file finds all of it
    let aside = path.with_extension("part");
    let directory = path.parent().unwrap_or(Path::new("."));
    let written = std::fs::create_dir_all(directory)
        .and_then(|()| std::fs::write(&aside, &image.data))
        .and_then(|()| std::fs::rename(&aside, path));
    match written {
        Ok(()) => {
            tracing::info!(%ecu, path = %path.display(), bytes = image.data.len(), "downloaded")
        }
        Err(error) => tracing::warn!(path = %path.display(), %error, "a download could not be written"),
    }
}
