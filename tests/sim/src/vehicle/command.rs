//! `connector-sim vehicle`: a vehicle, or a recording of one, on CAN (an SLCAN adapter on a pseudo-terminal,
//! or a CAN interface of this machine), on DoIP, on a K-line, or on several of these.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::Parser;
use connector_agent::print_line;
use connector_agent::protocol::doip::PowerMode;
use connector_agent::protocol::isotp::FrameSize;
use connector_hal::can::CanSettings;
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::candump;
use super::catalogue::Catalogue;
use super::doip::{self, DoipArgs};
use super::drive::{Drive, DriveArgs};
use super::kline::{KlineArgs, RunningKline};
use super::recording::Recording;
use super::simulation::{Vehicle, VehicleConfig};
use super::tp20::Tp20EcuConfig;

/// Simulate a vehicle, or replay a recording of one.
///
/// The vehicle is on CAN (an SLCAN adapter on a pseudo-terminal, or a CAN interface of this machine), behind a
/// DoIP gateway, on a K-line, or on several of these. The process prints one line of JSON when it is ready, and
/// runs until SIGTERM or SIGINT.
#[derive(Debug, Clone, Parser)]
pub(crate) struct Args {
    /// The file of vehicles.
    #[arg(long, value_name = "FILE", required_unless_present_any = ["recording", "doip_recording", "kline"])]
    vehicles: Option<PathBuf>,
    /// The platform of the vehicle in the file.
    #[arg(long, value_name = "NAME", required_unless_present_any = ["recording", "doip_recording", "kline"])]
    platform: Option<String>,
    /// Replay the ECUs' side of a candump -L log instead of a vehicle from the file.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["vehicles", "platform", "memory_dir", "erase_ms"])]
    recording: Option<PathBuf>,
    /// Path of the SLCAN adapter: a link to a pseudo-terminal, removed at the end.
    #[arg(long, value_name = "PATH", required_unless_present_any = ["can", "doip", "kline"])]
    slcan: Option<PathBuf>,
    /// Put the vehicle on this CAN interface, such as can1 or vcan0, instead of an SLCAN adapter.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["slcan", "load"])]
    can: Option<String>,
    #[command(flatten)]
    kline: KlineArgs,
    /// Bit rate of the CAN bus, in bit/s.
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    bit_rate: u32,
    /// Bit rate of the data phase, in bit/s. This makes the vehicle use CAN FD.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8_000_000))]
    data_bit_rate: Option<u32>,
    /// Bus load by the vehicle's own messages.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    load: u8,
    /// Write each completed download to this directory, as `<request id>-<address>.bin`.
    #[arg(long, value_name = "DIR")]
    memory_dir: Option<PathBuf>,
    /// Add the TP2.0 ECUs of a Golf of the 2000s: engine 0x01, transmission 0x02, ABS 0x03, steering 0x09,
    /// gateway 0x1F.
    #[arg(long, conflicts_with = "recording")]
    tp20: bool,
    /// Time that an ECU takes to erase its memory, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 2000)]
    erase_ms: u64,
    #[command(flatten)]
    doip: DoipArgs,
    #[command(flatten)]
    drive: DriveArgs,
}

/// Runs the vehicle until SIGTERM or SIGINT. Prints one line of JSON to standard output as soon as the
/// vehicle is ready.
///
/// # Errors
///
/// Returns an error if a file cannot be read or parsed, does not contain the platform, or if an adapter
/// cannot be created.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut switch = signal(SignalKind::user_defined1())?;

    let config = vehicle_config(&args)?;
    let can = match Place::new(&args)? {
        Some(place) => Some(Can::start(&args, place, config.as_ref()).await?),
        None => None,
    };
    let (gateways, doip) = doip::serve(&args.doip, config.as_ref()).await?;
    let vin = config.as_ref().and_then(|config| config.record.vin).map(|vin| vin.as_str().to_owned());
    let kline = args.kline.start(vin.as_deref())?;
    let vin = vin.or_else(|| kline.as_ref().map(|kline| kline.vin.clone()));
    let ready = json!({
        "platform": args.platform,
        "recording": args.recording,
        "slcan": args.slcan,
        "can": args.can,
        "kline": kline.as_ref().map(RunningKline::describe),
        "bit_rate": args.bit_rate,
        "data_bit_rate": args.data_bit_rate,
        "vin": vin,
        "ecus": can.as_ref().map(Can::describe).unwrap_or_default(),
        "doip": doip,
    });
    print_line!("{ready}");

    let mut is_ready = args.doip.is_ready();
    let drive = config.as_ref().map_or_else(Drive::default, |config| config.drive.clone());
    let mut driving = std::pin::pin!(args.drive.serve(&drive));
    loop {
        tokio::select! {
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            () = &mut driving => {}
            _ = switch.recv() => {
                is_ready = !is_ready;
                let mode = if is_ready { PowerMode::Ready } else { PowerMode::NotReady };
                for gateway in &gateways {
                    gateway.set_power_mode(Some(mode)).await;
                }
            }
        }
    }
    for gateway in gateways {
        for (address, anomalies) in gateway.anomalies() {
            tracing::warn!(ecu = %address, ?anomalies, "the ECU recorded anomalies");
        }
        gateway.stop().await;
    }
    if let Some(Can { vehicle, place }) = can {
        for (address, anomalies) in vehicle.anomalies() {
            tracing::warn!(ecu = %address, ?anomalies, "the ECU recorded anomalies");
        }
        vehicle.stop().await;
        drop(place);
    }
    if let Some(kline) = &kline {
        kline.report_anomalies();
    }
    Ok(())
}

/// The device that connects the vehicle on CAN.
enum Place {
    Slcan { bus: VirtualBus, _adapter: SlcanAdapter },
    Interface { name: String, settings: CanSettings },
}

impl Place {
    /// Returns `None` if the vehicle is not on CAN.
    fn new(args: &Args) -> anyhow::Result<Option<Self>> {
        if let Some(name) = &args.can {
            let (bit_rate, data_bit_rate) = (args.bit_rate, args.data_bit_rate);
            let settings = CanSettings { bit_rate, data_bit_rate, listen_only: false };
            return Ok(Some(Self::Interface { name: name.clone(), settings }));
        }
        let Some(path) = args.slcan.as_deref() else { return Ok(None) };
        let bus = VirtualBus::new(VirtualBusConfig {
            bit_rate: args.bit_rate,
            data_bit_rate: args.data_bit_rate,
            load: f32::from(args.load) / 100.0,
            timer: TimerKind::Precise,
            ..VirtualBusConfig::default()
        });
        let adapter = SlcanAdapter::new(Some(path), &bus, "slcan")
            .with_context(|| format!("cannot create the SLCAN adapter at {}", path.display()))?;
        Ok(Some(Self::Slcan { bus, _adapter: adapter }))
    }
}

/// The vehicle on CAN, and the device that connects it.
struct Can {
    vehicle: Vehicle,
    place: Place,
}

impl Can {
    async fn start(args: &Args, place: Place, config: Option<&VehicleConfig>) -> anyhow::Result<Self> {
        let vehicle = start(args, config, &place).await?;
        Ok(Self { vehicle, place })
    }

    /// The ECUs, as the line of JSON describes them.
    fn describe(&self) -> Vec<Value> {
        let ecus = self.vehicle.ecus().iter().map(|ecu| {
            json!({
                "ecu": ecu.name,
                "request_id": ecu.address.request.to_string(),
                "response_id": ecu.address.response.to_string(),
                "extended_address": ecu.address.extended.map(|byte| format!("0x{byte:02X}")),
            })
        });
        ecus.collect()
    }
}

/// Starts the vehicle or the recording on its bus.
async fn start(args: &Args, config: Option<&VehicleConfig>, place: &Place) -> anyhow::Result<Vehicle> {
    if let Some(path) = &args.recording {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let records = candump::parse(&text).with_context(|| path.display().to_string())?;
        let recording = Recording::new(records).with_context(|| path.display().to_string())?;
        return Ok(match place {
            Place::Slcan { bus, .. } => Vehicle::play(&recording, bus, TimerKind::Precise),
            Place::Interface { name, settings } => {
                Vehicle::play_at(&recording, name, *settings, TimerKind::Precise).await?
            }
        });
    }
    let config = config.context("--vehicles is missing")?;
    Ok(match place {
        Place::Slcan { bus, .. } => Vehicle::start(config, bus),
        Place::Interface { name, settings } => Vehicle::start_at(config, name, *settings).await?,
    })
}

/// The vehicle from the file, if the arguments name one.
fn vehicle_config(args: &Args) -> anyhow::Result<Option<VehicleConfig>> {
    let (Some(vehicles), Some(platform)) = (&args.vehicles, &args.platform) else { return Ok(None) };
    let catalogue = Catalogue::load(vehicles)?;
    let mut config = VehicleConfig::new(catalogue.find(platform)?.clone());
    config.timing.erase = Duration::from_millis(args.erase_ms);
    if args.data_bit_rate.is_some() {
        config.transport.frame_size = FrameSize::fd(64, true)?;
    }
    if args.tp20 {
        config.tp20 = Tp20EcuConfig::golf();
    }
    config.timer = TimerKind::Precise;
    config.memory_dir.clone_from(&args.memory_dir);
    config.speed_signal = args.drive.signal();
    Ok(Some(config))
}
