//! The simulators that the demo runs on: vehicle, cloud, network, and the agent with its configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::Context as _;
use connector_agent::protocol::isotp::FrameSize;
use connector_agent::protocol::tp20::TimeByte;
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;

use super::agent_setup::AgentSetup;
use super::args::{Args, Bus};
use super::demo_vehicle::{BIT_RATE, CAN_BUS, DemoVehicle, can_name};
use super::driving::Driving;
use super::story::Story;
use crate::scenario::{self, toml_string, write_private};
use crate::vehicle::catalogue::VehicleRecord;
use crate::vehicle::{DoipConfig, DoipGateway, Tp20EcuConfig, Vehicle, VehicleConfig};
use connector_operator::doip_entity::ListenConfig;

/// The bit rate of CAN FD's data phase, in bit/s.
const DATA_BIT_RATE: u32 = 2_000_000;
/// The most bytes to flash over TP2.0: these ECUs need a pause after every frame.
const MAX_TP20_FIRMWARE: u32 = 16 * 1024;
/// The battery voltage that the simulated board measures.
pub(super) const VOLTS: f64 = 12.6;

/// The running simulators, dropped in the order of the fields: the agent first, its directory last.
pub(super) struct Stage {
    pub(super) setup: AgentSetup,
    pub(super) vehicle: DemoVehicle,
    /// The ECUs behind TP2.0. If there are any, the operator works with these alone.
    pub(super) tp20: Vec<Tp20EcuConfig>,
    /// The drive of the vehicle, and the connector's button, if the demo has them.
    pub(super) driving: Option<Driving>,
    pub(super) record: VehicleRecord,
    pub(super) firmware: Vec<u8>,
    pub(super) directory: tempfile::TempDir,
}

impl Stage {
    /// Starts all simulators and the agent.
    pub(super) async fn set_up(args: &Args, story: &Story) -> anyhow::Result<Self> {
        let record = scenario::vehicle(&args.platform)?;
        let firmware = firmware(args)?;
        let directory = tempfile::tempdir().context("cannot create a temporary directory")?;

        let mut tp20 = if args.bus == Bus::Tp20 { Tp20EcuConfig::golf() } else { Vec::new() };
        // one ECU with the shortest time between frames that is known
        tp20.iter_mut().take(1).for_each(|engine| engine.parameters.t3 = TimeByte(0x0A));
        let driving = args.drive.then(|| Driving::start(directory.path())).transpose()?;
        let mut config = VehicleConfig {
            timer: TimerKind::Precise,
            tp20: tp20.clone(),
            ..VehicleConfig::new(record.clone())
        };
        driving.iter().for_each(|driving| driving.add_to(&mut config));
        let (vehicle, bus) = if args.bus == Bus::Doip {
            start_on_gateway(&config, story).await?
        } else {
            start_on_can(args, config, directory.path(), story)?
        };
        let board = board(directory.path())?;
        let policy = driving.as_ref().map(Driving::sections).unwrap_or_default();
        let hardware = format!("[[bus]]\n{bus}\n\n{board}\n{policy}");
        let setup = AgentSetup::start(args, directory.path(), &hardware, story).await?;
        Ok(Self { setup, vehicle, tp20, driving, record, firmware, directory })
    }
}

/// Starts the vehicle on CAN. Returns it with the `[[bus]]` table of the agent's configuration.
fn start_on_can(
    args: &Args,
    mut config: VehicleConfig,
    directory: &Path,
    story: &Story,
) -> anyhow::Result<(DemoVehicle, String)> {
    let data_bit_rate = (args.bus == Bus::Fd).then_some(DATA_BIT_RATE);
    if data_bit_rate.is_some() {
        config.transport.frame_size = FrameSize::fd(64, true)?;
    }
    let bus = VirtualBus::new(VirtualBusConfig {
        bit_rate: BIT_RATE,
        data_bit_rate,
        load: f32::from(args.load) / 100.0,
        timer: TimerKind::Precise,
        ..VirtualBusConfig::default()
    });
    let vehicle = Vehicle::start(&config, &bus);
    let can = directory.join("can");
    let adapter = SlcanAdapter::new(Some(&can), &bus, "connector").context("the SLCAN adapter")?;
    let load = if args.load > 0 { format!(", {} % busy", args.load) } else { String::new() };
    story.report(
        "vehicle",
        &format!(
            "{}: {} ECUs on {}{load}, behind an SLCAN adapter at {}",
            config.record.platform,
            vehicle.ecus().len(),
            can_name(data_bit_rate),
            can.display()
        ),
    );
    let device = toml_string(&format!("slcan:{}", can.display()));
    let table = format!(
        "kind = \"can\"\nname = \"{CAN_BUS}\"\npins = [6, 14]\ndevice = {device}\nbit_rates = [{BIT_RATE}]\nfd = {}",
        data_bit_rate.is_some()
    );
    Ok((DemoVehicle::Can { adapter, vehicle, data_bit_rate }, table))
}

/// Starts the vehicle behind a DoIP gateway. Returns it with the `[[bus]]` table of the agent's
/// configuration.
async fn start_on_gateway(config: &VehicleConfig, story: &Story) -> anyhow::Result<(DemoVehicle, String)> {
    let listen = ListenConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let gateway = DoipGateway::start(config, DoipConfig::new(config, listen)).await;
    let gateway = gateway.context("the DoIP gateway")?;
    let address = gateway.addresses().tcp;
    story.report(
        "vehicle",
        &format!(
            "{}: {} ECUs behind a DoIP gateway at {address} that announces its VIN",
            config.record.platform,
            gateway.ecus().len() - 1
        ),
    );
    let device = toml_string(&address.to_string());
    let table = format!("kind = \"doip\"\npins = [3, 11]\ndevice = {device}");
    Ok((DemoVehicle::Doip(gateway), table))
}

/// The file that the arguments name, or generated bytes.
fn firmware(args: &Args) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = &args.file {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::ensure!(!bytes.is_empty(), "{} is empty", file.display());
        return Ok(bytes);
    }
    let size = if args.bus == Bus::Tp20 { args.size.min(MAX_TP20_FIRMWARE) } else { args.size };
    Ok(scenario::generate_firmware(size as usize, u64::from(args.size)))
}

/// Writes the files of the board. Returns the section `[board]` of the agent's configuration.
fn board(directory: &Path) -> anyhow::Result<String> {
    let write = |name: &str, text: &str| -> anyhow::Result<String> {
        let path = directory.join(name);
        write_private(&path, text)?;
        Ok(toml_string(&path.to_string_lossy()))
    };
    let voltage = write("voltage", &format!("{:.0}\n", VOLTS * 1000.0))?;
    let ignition = write("ignition", "1\n")?;
    let led = write("led", "0\n")?;
    Ok(format!(
        "[board]\nvoltage = {{ file = {voltage}, scale = 0.001 }}\nignition = {{ file = {ignition} }}\n\
         led = {{ file = {led} }}\nwifi = true"
    ))
}
