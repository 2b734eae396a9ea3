//! A running gateway: its sockets, and the ECUs behind it.

use std::io;

use connector_agent::protocol::doip::{DiagnosticMessage, Eid, LogicalAddress, PowerMode};
use connector_hal::can::CanId;
use connector_hal::timer::{Deadline, TimerKind};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::ecus::{Host, RecordedDoipEcu};
use super::recording::DoipRecording;
use crate::vehicle::catalogue::{EcuAddress, EcuRecord, Exchange};
use crate::vehicle::ecu::{Anomalies, Ecu, EcuConfig, EcuStatus, Image, Responder, Target};
use crate::vehicle::simulation::VehicleConfig;
use connector_operator::doip_entity::{
    Entity, EntityConfig, Event, ListenConfig, Server, ServerAddresses, Timeouts, no_vin,
};

/// The gateway's logical address.
pub const GATEWAY: LogicalAddress = LogicalAddress::new(0x4010);
/// The logical address of the first ECU.
pub const FIRST_ECU: u16 = 0x4011;
/// The logical address of a second gateway.
const SECOND_GATEWAY: LogicalAddress = LogicalAddress::new(0x4020);

/// The configuration of a DoIP gateway.
#[derive(Debug, Clone)]
pub struct DoipConfig {
    /// The addresses that the gateway listens on.
    pub listen: ListenConfig,
    /// The behaviour of the gateway. Its targets are replaced by the ECUs.
    pub entity: EntityConfig,
    /// The indices of the vehicle's ECUs that are behind this gateway.
    pub ecus: std::ops::Range<usize>,
}

impl DoipConfig {
    /// The vehicle's only gateway, at 0x4010, with the usual behaviour.
    pub fn new(vehicle: &VehicleConfig, listen: ListenConfig) -> Self {
        let eid = Eid([0x02, 0x00, 0x00, 0x00, 0x40, 0x10]);
        let entity = EntityConfig::new(GATEWAY, vehicle.record.vin.as_ref(), eid);
        Self { listen, entity, ecus: 0..vehicle.record.nodes().len() }
    }

    /// Splits the vehicle between two gateways: the second half of its ECUs is behind the second gateway, at
    /// 0x4020.
    pub fn split(self, vehicle: &VehicleConfig, listen: ListenConfig) -> (Self, Self) {
        let count = vehicle.record.nodes().len();
        let middle = count.div_ceil(2);
        let mut second = Self { listen, ecus: middle..count, ..self.clone() };
        second.entity.announcement.address = SECOND_GATEWAY;
        second.entity.announcement.eid = Eid([0x02, 0x00, 0x00, 0x00, 0x40, 0x20]);
        (Self { ecus: 0..middle, ..self }, second)
    }

    /// Announces no VIN. The gateway still reports it in response to `22 F190`.
    pub fn forget_vin(&mut self) {
        self.entity.announcement.vin = no_vin();
    }
}

/// The observable part of an ECU behind a running gateway.
#[derive(Debug, Clone)]
pub struct RunningDoipEcu {
    /// The ECU's function.
    pub name: String,
    /// The ECU's logical address.
    pub address: LogicalAddress,
    /// The ECU's address on CAN; `None` for the gateway itself and for recorded ECUs.
    pub can: Option<EcuAddress>,
    /// The ECU's state; the receiver notifies of changes.
    pub status: watch::Receiver<EcuStatus>,
}

/// A running gateway. Dropping it stops the gateway.
#[derive(Debug)]
pub struct DoipGateway {
    addresses: ServerAddresses,
    ecus: Vec<RunningDoipEcu>,
    power_mode: mpsc::Sender<Option<PowerMode>>,
    task: JoinHandle<()>,
}

impl DoipGateway {
    /// Binds the sockets, and serves the vehicle from the file. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns an error if an address is in use, or does not belong to this machine.
    pub async fn start(vehicle: &VehicleConfig, config: DoipConfig) -> io::Result<Self> {
        let mut hosts = Hosts::default();
        let own = gateway_record(vehicle);
        hosts.add(vehicle, config.entity.announcement.address, &own, None);
        for (place, record) in vehicle.record.nodes().iter().enumerate() {
            if config.ecus.contains(&place)
                && let Some(address) =
                    u16::try_from(place).ok().and_then(|place| FIRST_ECU.checked_add(place))
            {
                hosts.add(vehicle, LogicalAddress::new(address), record, Some(record.address));
            }
        }
        Self::start_hosts(config, hosts).await
    }

    /// Replays a recorded gateway with these timers. Must be called within a tokio runtime.
    ///
    /// # Errors
    ///
    /// Returns the errors of [`DoipGateway::start`].
    pub async fn play(
        recording: &DoipRecording,
        listen: ListenConfig,
        timeouts: Timeouts,
    ) -> io::Result<Self> {
        let mut hosts = Hosts::default();
        for (address, steps) in recording.ecus() {
            let ecu = RecordedDoipEcu::new(steps);
            hosts.push("recorded".to_owned(), address, None, Box::new(ecu), None);
        }
        let entity = EntityConfig { timeouts, ..recording.entity() };
        Self::start_hosts(DoipConfig { listen, entity, ecus: 0..0 }, hosts).await
    }

    async fn start_hosts(config: DoipConfig, hosts: Hosts) -> io::Result<Self> {
        let DoipConfig { listen, mut entity, .. } = config;
        entity.targets = hosts.hosts.iter().map(|host| host.address).collect();
        let server = Server::bind(&listen, |now| Entity::new(entity, now)).await?;
        let addresses = server.addresses();
        let (power_mode, modes) = mpsc::channel(4);
        let task = tokio::spawn(drive(server, hosts.hosts, modes));
        Ok(Self { addresses, ecus: hosts.running, power_mode, task })
    }

    /// The addresses that the gateway listens on.
    pub fn addresses(&self) -> ServerAddresses {
        self.addresses
    }

    /// The gateway itself as an ECU, followed by the ECUs behind the gateway.
    pub fn ecus(&self) -> &[RunningDoipEcu] {
        &self.ecus
    }

    /// The ECU with this address.
    pub fn ecu(&self, address: LogicalAddress) -> Option<&RunningDoipEcu> {
        self.ecus.iter().find(|ecu| ecu.address == address)
    }

    /// The completed downloads into the memory of the ECU with this address, the newest last.
    pub fn memory(&self, address: LogicalAddress) -> Vec<std::sync::Arc<Image>> {
        self.ecu(address).map(|ecu| ecu.status.borrow().memory.clone()).unwrap_or_default()
    }

    /// The anomalies that ECUs have recorded. ECUs without anomalies are left out.
    pub fn anomalies(&self) -> Vec<(LogicalAddress, Anomalies)> {
        let all = self.ecus.iter().map(|ecu| (ecu.address, ecu.status.borrow().anomalies));
        all.filter(|(_, anomalies)| !anomalies.is_empty()).collect()
    }

    /// Changes the power mode that the gateway reports.
    pub async fn set_power_mode(&self, mode: Option<PowerMode>) {
        // a gateway that has ended has no mode
        let _ = self.power_mode.send(mode).await;
    }

    /// Stops the gateway, and waits until it has stopped.
    pub async fn stop(mut self) {
        self.task.abort();
        let _ = (&mut self.task).await;
    }
}

impl Drop for DoipGateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The gateway as an ECU, which reports the VIN.
fn gateway_record(vehicle: &VehicleConfig) -> EcuRecord {
    let id = CanId::standard_truncated(0x7FF);
    let vin = vehicle.record.vin.map(|vin| Exchange {
        request: vec![0x22, 0xF1, 0x90],
        response: [&[0x62, 0xF1, 0x90], vin.as_str().as_bytes()].concat(),
    });
    EcuRecord {
        name: "gateway".to_owned(),
        address: EcuAddress { request: id, response: id, extended: None },
        exchanges: vin.into_iter().collect(),
    }
}

#[derive(Default)]
struct Hosts {
    hosts: Vec<Host>,
    running: Vec<RunningDoipEcu>,
}

impl Hosts {
    fn add(
        &mut self,
        vehicle: &VehicleConfig,
        address: LogicalAddress,
        record: &EcuRecord,
        can: Option<EcuAddress>,
    ) {
        let ecu = Ecu::new(EcuConfig {
            timing: vehicle.timing,
            max_block_length: vehicle.max_block_length,
            drive: vehicle.drive.clone(),
            ..EcuConfig::new(&vehicle.record.platform, record)
        });
        self.push(record.name.clone(), address, can, Box::new(ecu), vehicle.memory_dir.clone());
    }

    fn push(
        &mut self,
        name: String,
        address: LogicalAddress,
        can: Option<EcuAddress>,
        responder: Box<dyn Responder>,
        memory: Option<std::path::PathBuf>,
    ) {
        let (host, status) = Host::new(address, responder, memory);
        self.hosts.push(host);
        self.running.push(RunningDoipEcu { name, address, can, status });
    }
}

/// Passes requests to the ECUs and their responses to the testers.
async fn drive(mut server: Server, mut hosts: Vec<Host>, mut modes: mpsc::Receiver<Option<PowerMode>>) {
    let mut deadline = Deadline::new(TimerKind::Runtime);
    loop {
        let now = Instant::now().into_std();
        for host in &mut hosts {
            while let Some(response) = host.poll_response(now) {
                if !server.respond(response) {
                    tracing::debug!(ecu = %host.address, "no tester is connected for a response");
                }
            }
            host.publish();
        }
        deadline.set(hosts.iter().filter_map(Host::poll_timeout).min());
        tokio::select! {
            biased;
            () = deadline.expired() => {
                let now = Instant::now().into_std();
                hosts.iter_mut().for_each(|host| host.handle_timeout(now));
            }
            event = server.next() => match event {
                Event::Diagnostic(message) => handle_diagnostic(&server, &mut hosts, &message),
                Event::Activated { tester } => tracing::info!(%tester, "routing activated"),
                Event::Deactivated { tester } => tracing::info!(%tester, "the tester disconnected"),
            },
            Some(mode) = modes.recv() => server.entity_mut().set_power_mode(mode),
        }
    }
}

fn handle_diagnostic(server: &Server, hosts: &mut [Host], message: &DiagnosticMessage) {
    let now = Instant::now().into_std();
    let DiagnosticMessage { source, target, data } = message;
    if server.entity().config().functional.contains(target) {
        for host in hosts {
            host.handle_request(now, *source, Target::Functional, data);
        }
    } else if let Some(host) = hosts.iter_mut().find(|host| host.address == *target) {
        host.handle_request(now, *source, Target::Physical, data);
    }
}
