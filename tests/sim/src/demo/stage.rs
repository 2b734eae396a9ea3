//! What the demo plays on: vehicle, cloud, network, and the agent with its configuration.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::protocol::isotp::FrameSize;
use connector_agent::protocol::tp20::TimeByte;
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;

use super::agent::Agent;
use super::plugged::Plugged;
use super::story::Story;
use super::{Args, Bus, VEHICLES, tp20};
use crate::cloud::{Cloud, CloudConfig};
use crate::doip::ListenConfig;
use crate::network::{BadNetwork, BadNetworkConfig};
use crate::vehicle::catalogue::{Catalogue, VehicleRecord};
use crate::vehicle::{DoipConfig, DoipGateway, Tp20EcuConfig, Vehicle, VehicleConfig};

/// The vehicle's bus, in bit/s.
pub(super) const BIT_RATE: u32 = 500_000;
/// The same of CAN FD's data phase.
const DATA_BIT_RATE: u32 = 2_000_000;
/// What the simulated board measures.
pub(super) const VOLTS: f64 = 12.6;

/// See the module. Dropped in the order of its fields: the agent first, its directory last.
pub(super) struct Stage {
    pub(super) agent: Agent,
    pub(super) network: BadNetwork,
    pub(super) cloud: Cloud,
    pub(super) plugged: Plugged,
    /// Those of its ECUs that are behind TP2.0; the story is theirs, if there are any.
    pub(super) tp20: Vec<Tp20EcuConfig>,
    pub(super) record: VehicleRecord,
    pub(super) firmware: Vec<u8>,
    pub(super) directory: tempfile::TempDir,
}

impl Stage {
    /// Starts everything.
    pub(super) async fn set_up(args: &Args, story: &Story) -> anyhow::Result<Self> {
        let catalogue = Catalogue::parse(VEHICLES).context("the vehicles file")?;
        let record = catalogue.find(&args.platform)?.clone();
        let firmware = firmware(args)?;
        let directory = tempfile::tempdir().context("a temporary directory cannot be made")?;

        let mut tp20 = if args.bus == Bus::Tp20 { Tp20EcuConfig::golf() } else { Vec::new() };
        // one that wants as little time between frames as any is known to
        tp20.iter_mut().take(1).for_each(|engine| engine.parameters.t3 = TimeByte(0x0A));
        let config = VehicleConfig {
            timer: TimerKind::Precise,
            tp20: tp20.clone(),
            ..VehicleConfig::new(record.clone())
        };
        let (plugged, device) = if args.bus == Bus::Doip {
            plug_into_gateway(&config, story).await?
        } else {
            plug_into_can(args, config, directory.path(), story)?
        };

        let cloud = Cloud::start(CloudConfig::local(directory.path().join("cloud"))).await?;
        story.tell(
            "cloud",
            &format!("a sandbox at {}, with a certificate authority of its own", cloud.api_url),
        );
        let network = BadNetwork::start(
            cloud.address,
            BadNetworkConfig {
                round_trip: Duration::from_millis(args.rtt),
                cut_every: args.cut_every,
                ..BadNetworkConfig::default()
            },
        )
        .await
        .context("the network")?;
        let cuts = match args.cut_every {
            Some(every) => format!("cut every {} s", every.as_secs_f64()),
            None => "never cut".to_owned(),
        };
        story.tell("network", &format!("{} ms there and back between connector and cloud, {cuts}", args.rtt));

        let config = agent_config(directory.path(), &cloud, &network, &device)?;
        let agent = Agent::start(args.agent.as_deref(), &config, directory.path(), args.show_log)?;
        let process = agent.id().map(|id| format!(" as process {id}")).unwrap_or_default();
        story.tell("connector", &format!("the agent is started{process}, with UUID and pincode"));
        Ok(Self { agent, network, cloud, plugged, tp20, record, firmware, directory })
    }
}

/// The vehicle on CAN, and the agent's table for that.
fn plug_into_can(
    args: &Args,
    mut config: VehicleConfig,
    directory: &Path,
    story: &Story,
) -> anyhow::Result<(Plugged, String)> {
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
    story.tell(
        "vehicle",
        &format!(
            "{}: {} ECUs on {}{load}, behind an SLCAN adapter at {}",
            config.record.platform,
            vehicle.ecus().len(),
            can_name(data_bit_rate),
            can.display()
        ),
    );
    let device = quoted(&format!("slcan:{}", can.display()));
    let table = format!(
        "kind = \"can\"\npins = [6, 14]\ndevice = {device}\nbit_rates = [{BIT_RATE}]\nfd = {}",
        data_bit_rate.is_some()
    );
    Ok((Plugged::Can { adapter, vehicle, data_bit_rate }, table))
}

/// The vehicle behind a DoIP gateway, and the agent's table for that.
async fn plug_into_gateway(config: &VehicleConfig, story: &Story) -> anyhow::Result<(Plugged, String)> {
    let listen = ListenConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let gateway = DoipGateway::start(config, DoipConfig::new(config, listen)).await;
    let gateway = gateway.context("the DoIP gateway")?;
    let address = gateway.addresses().tcp;
    story.tell(
        "vehicle",
        &format!(
            "{}: {} ECUs behind a DoIP gateway at {address}, which announces its VIN",
            config.record.platform,
            gateway.ecus().len() - 1
        ),
    );
    let device = quoted(&address.to_string());
    let table = format!("kind = \"doip\"\npins = [3, 11]\ndevice = {device}");
    Ok((Plugged::Doip(gateway), table))
}

/// What people call a CAN bus.
pub(super) fn can_name(data_bit_rate: Option<u32>) -> String {
    let nominal = BIT_RATE / 1000;
    match data_bit_rate {
        Some(rate) => format!("CAN FD at {nominal} kbit/s and {} Mbit/s", rate / 1_000_000),
        None => format!("CAN at {nominal} kbit/s"),
    }
}

/// TOML's basic strings are JSON's.
fn quoted(text: &str) -> String {
    serde_json::to_string(text).unwrap_or_default()
}

/// The file named, or bytes that look like a program's to the bus: as many stuff bits, and no two blocks alike.
fn firmware(args: &Args) -> anyhow::Result<Vec<u8>> {
    if let Some(file) = &args.file {
        let bytes = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
        anyhow::ensure!(!bytes.is_empty(), "{} is empty", file.display());
        return Ok(bytes);
    }
    let mut random = fastrand::Rng::with_seed(u64::from(args.size));
    let size = if args.bus == Bus::Tp20 { args.size.min(tp20::MAX_FIRMWARE) } else { args.size };
    Ok((0..size).map(|_| random.u8(..)).collect())
}

/// Writes the agent's configuration, its pincode and the files of its board.
fn agent_config(
    directory: &Path,
    cloud: &Cloud,
    network: &BadNetwork,
    bus: &str,
) -> anyhow::Result<std::path::PathBuf> {
    let write = |name: &str, text: &str| -> anyhow::Result<std::path::PathBuf> {
        let path = directory.join(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let pincode = write("pincode", &cloud.connector_pincode)?;
    let voltage = write("voltage", &format!("{:.0}\n", VOLTS * 1000.0))?;
    let ignition = write("ignition", "1\n")?;
    let led = write("led", "0\n")?;
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let behind_network = |url: &str| url.replace(&cloud.address.to_string(), &network.address().to_string());
    let text = format!(
        "[connector]\nuuid = \"{uuid}\"\npincode_file = {pincode}\n\n\
         [cloud]\napi_url = {api}\nwebsocket_url = {websocket}\nca_file = {ca}\n\n\
         [[bus]]\n{bus}\n\n\
         [board]\nvoltage = {{ file = {voltage}, scale = 0.001 }}\nignition = {{ file = {ignition} }}\n\
         led = {{ file = {led} }}\nwifi = true\n",
        uuid = cloud.connector_uuid,
        pincode = path(&pincode),
        api = quoted(&behind_network(&cloud.api_url)),
        websocket = quoted(&behind_network(&cloud.websocket_url)),
        ca = path(&cloud.ca_file),
        voltage = path(&voltage),
        ignition = path(&ignition),
        led = path(&led),
    );
    write("connector-agent.toml", &text)
}
