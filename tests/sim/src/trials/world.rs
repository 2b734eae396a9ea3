//! A device with the agent on it, its cloud and its vehicle.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use connector_hal::can::CanSettings;
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;
use tokio::sync::watch;

use super::patience::patiently;
use super::supervisor::Supervisor;
use super::system::{self, CLOUD_ADDRESS, DEVICE, DEVICE_CAN, VEHICLE_CAN};
use crate::cloud::{Cloud, CloudConfig};
use crate::scenario::{self, AgentConfig, toml_string, write_private};
use crate::vehicle::catalogue::VehicleRecord;
use crate::vehicle::{Vehicle, VehicleConfig};

/// The bit rate of the vehicle's bus, in bit/s.
pub(super) const BIT_RATE: u32 = 500_000;
/// Size of the device's file system in bytes: enough for the agent, and quickly filled.
const DEVICE_ROOM: u64 = 256 << 10;
/// The platform of the vehicle.
const PLATFORM: &str = "VOLKSWAGEN_GOLF_MK7";

/// The device, its cloud and its vehicle.
pub(super) struct World {
    pub(super) supervisor: Supervisor,
    pub(super) cloud: Cloud,
    pub(super) vehicle: Option<Vehicle>,
    pub(super) record: VehicleRecord,
    /// The root of the device's file system.
    pub(super) device: PathBuf,
    /// The command that starts the agent, without the name of its configuration.
    command: Vec<OsString>,
    hellos: watch::Receiver<u64>,
    is_machine: bool,
    _adapter: Option<SlcanAdapter>,
    directory: tempfile::TempDir,
}

impl World {
    /// Sets up a fresh world, and starts the agent.
    pub(super) async fn set_up(agent: &Path, is_machine: bool) -> anyhow::Result<Self> {
        let record = scenario::vehicle(PLATFORM)?;
        let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
        let device = directory.path().join("device");
        std::fs::create_dir(&device)?;
        let mut config = CloudConfig::local(directory.path().join("cloud"));
        if is_machine {
            prepare_machine(&device).await?;
            config.listen = format!("{CLOUD_ADDRESS}:0");
        }
        let cloud = Cloud::start(config).await?;
        let hellos = cloud.hellos();
        let (vehicle, adapter, bus) = plug_in(&record, &device, is_machine).await?;
        write_files(&device, &cloud, &bus)?;
        let command = command(agent, is_machine)?;
        let supervisor = Supervisor::start(with(&command, device.join("online.toml")));
        Ok(Self {
            supervisor,
            cloud,
            vehicle: Some(vehicle),
            record,
            device,
            command,
            hellos,
            is_machine,
            _adapter: adapter,
            directory,
        })
    }

    /// Replaces the agent by one that cannot reach the cloud.
    pub(super) async fn go_offline(&mut self) {
        self.replace("offline.toml").await;
    }

    /// Replaces the agent by one that can reach the cloud.
    pub(super) async fn go_online(&mut self) {
        self.replace("online.toml").await;
    }

    async fn replace(&mut self, configuration: &str) {
        let command = with(&self.command, self.device.join(configuration));
        let old = std::mem::replace(&mut self.supervisor, Supervisor::start(command));
        old.stop().await;
    }

    /// The number of times that the connector has come online.
    pub(super) fn hellos(&self) -> u64 {
        *self.hellos.borrow()
    }

    /// Waits until the connector has come online more than `hellos` times.
    pub(super) async fn online_after(&mut self, hellos: u64) -> anyhow::Result<()> {
        let online = self.hellos.wait_for(|count| *count > hellos);
        patiently("the connector is not online", async { Ok(online.await.map(drop)?) }).await
    }

    /// Waits until the connector has come online for the first time.
    pub(super) async fn online(&mut self) -> anyhow::Result<()> {
        self.online_after(0).await
    }

    /// Kills the agent, and waits until it is online again.
    pub(super) async fn kill_and_come_back(&mut self) -> anyhow::Result<()> {
        let hellos = self.hellos();
        self.supervisor.kill().await?;
        self.online_after(hellos).await
    }

    /// Returns an error if the login that the agent has stored on the device is damaged. A missing one is
    /// valid.
    pub(super) fn check_state(&self) -> anyhow::Result<()> {
        let path = self.device.join("state/login.json");
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let state: serde_json::Value =
            serde_json::from_slice(&text).context("the stored login is damaged")?;
        anyhow::ensure!(
            state.get("access_token").is_some_and(serde_json::Value::is_string),
            "the stored login has no token"
        );
        Ok(())
    }

    /// Creates the CAN bus again. The vehicle starts before the device's end comes up.
    pub(super) async fn bring_back_can(&mut self) -> anyhow::Result<()> {
        system::add_can().await?;
        if let Some(vehicle) = self.vehicle.take() {
            vehicle.stop().await;
        }
        self.vehicle = Some(start_vehicle(&self.record).await?);
        system::set_can("up").await
    }

    /// Stops everything.
    pub(super) async fn take_down(self) {
        self.supervisor.stop().await;
        self.cloud.shutdown().await;
        if let Some(vehicle) = self.vehicle {
            vehicle.stop().await;
        }
        if self.is_machine {
            for left in [
                system::remove_network().await,
                system::remove_can().await,
                system::remove_device().await,
                system::unmount(&self.device),
            ] {
                if let Err(error) = left {
                    tracing::debug!("{error:#}");
                }
            }
        }
        if let Err(error) = self.directory.close() {
            tracing::warn!(%error, "cannot remove the temporary directory");
        }
    }
}

fn config(record: &VehicleRecord) -> VehicleConfig {
    let mut config = VehicleConfig { timer: TimerKind::Precise, ..VehicleConfig::new(record.clone()) };
    config.timing.erase = std::time::Duration::from_millis(200);
    config
}

async fn start_vehicle(record: &VehicleRecord) -> anyhow::Result<Vehicle> {
    let settings = CanSettings { bit_rate: BIT_RATE, data_bit_rate: None, listen_only: false };
    Vehicle::start_at(&config(record), VEHICLE_CAN, settings).await.context("the vehicle")
}

/// Creates the device's network namespace, its networks and its file system.
async fn prepare_machine(device: &Path) -> anyhow::Result<()> {
    // a failed trial may have left these behind
    let _not_there = system::remove_device().await;
    let _not_there = system::remove_network().await;
    let _not_there = system::remove_can().await;
    system::add_device().await?;
    system::add_network().await?;
    system::add_can().await?;
    system::set_can("up").await?;
    system::mount_small(device, DEVICE_ROOM)
}

/// Starts the vehicle on the device's bus. Returns it with its SLCAN adapter, if any, and the bus as the agent names it.
async fn plug_in(
    record: &VehicleRecord,
    device: &Path,
    is_machine: bool,
) -> anyhow::Result<(Vehicle, Option<SlcanAdapter>, String)> {
    if is_machine {
        return Ok((start_vehicle(record).await?, None, DEVICE_CAN.to_owned()));
    }
    let bus = VirtualBus::new(VirtualBusConfig {
        bit_rate: BIT_RATE,
        timer: TimerKind::Precise,
        ..VirtualBusConfig::default()
    });
    let path = device.join("slcan");
    let adapter = SlcanAdapter::new(Some(&path), &bus, "connector").context("the SLCAN adapter")?;
    let vehicle = Vehicle::start(&config(record), &bus);
    Ok((vehicle, Some(adapter), format!("slcan:{}", path.display())))
}

/// Writes the agent's files to the device: pincode, certificate authority, and two configurations.
fn write_files(device: &Path, cloud: &Cloud, bus: &str) -> anyhow::Result<()> {
    write_private(&device.join("pincode"), &cloud.connector_pincode)?;
    std::fs::copy(&cloud.ca_file, device.join("ca.pem"))?;
    let online = configuration(cloud, &cloud.api_url, &cloud.websocket_url, bus);
    write_private(&device.join("online.toml"), &online)?;
    // a port without a server
    let offline = configuration(cloud, "https://127.0.0.1:1", "wss://127.0.0.1:1", bus);
    write_private(&device.join("offline.toml"), &offline)
}

/// The command that starts the agent, without the name of its configuration.
fn command(agent: &Path, is_machine: bool) -> anyhow::Result<Vec<OsString>> {
    let namespace = ["/sbin/ip", "netns", "exec", DEVICE];
    let mut command: Vec<OsString> =
        if is_machine { namespace.iter().map(OsString::from).collect() } else { Vec::new() };
    command.extend([std::path::absolute(agent)?.into(), "run".into(), "--config".into()]);
    Ok(command)
}

fn with(command: &[OsString], configuration: PathBuf) -> Vec<OsString> {
    command.iter().cloned().chain([configuration.into()]).collect()
}

/// The agent's configuration, with file names relative to it.
fn configuration(cloud: &Cloud, api_url: &str, websocket_url: &str, bus: &str) -> String {
    let config = AgentConfig {
        uuid: cloud.connector_uuid,
        pincode_file: Path::new("pincode"),
        state_directory: Some(Path::new("state")),
        api_url,
        websocket_url,
        ca_file: Path::new("ca.pem"),
        cloud_settings: "# an emulated machine is slow, and a trial should be short\n\
                         ping_interval_ms = 1700\nidle_ping_interval_ms = 1700\n",
        hardware: &format!(
            "[[bus]]\nkind = \"can\"\npins = [6, 14]\ndevice = {}\nbit_rates = [{BIT_RATE}]",
            toml_string(bus)
        ),
    };
    config.to_toml()
}
