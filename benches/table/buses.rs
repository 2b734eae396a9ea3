//! All buses simultaneously: four CAN buses at full load, a K-line and a DoIP gateway, relayed in one
//! session.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use connector_agent::relay::wire::request::BusConfig;
use connector_hal::kline::sim::{PtyKLine, SimLine};
use connector_hal::timer::TimerKind;
use connector_operator::client::{Channel, Timing};
use connector_operator::doip_entity::ListenConfig;
use connector_sim::cloud::{Cloud, CloudConfig};
use connector_sim::vehicle::catalogue::Catalogue;
use connector_sim::vehicle::doip::{FIRST_ECU, GATEWAY};
use connector_sim::vehicle::kline::{KlineEcuConfig, KlineVehicle};
use connector_sim::vehicle::{DoipConfig, DoipGateway, VehicleConfig};
use serde_json::json;
use tokio::sync::mpsc;

use crate::Row;
use crate::child::TARGET;
use crate::cpu::usage;
use crate::relay::{configuration, join, measured, percentiles, read_frames};

const CATALOGUE: &str = include_str!("../../tests/data/vehicles/vehicles.json");
/// The pins of the CAN buses. Pins 1 and 9 are those of DoIP, pin 7 is that of the K-line.
const CAN_PINS: [[u8; 2]; 4] = [[6, 14], [3, 11], [12, 13], [2, 10]];
/// A CAN bus at 500 kbit/s, full of frames with 8 bytes.
const FRAMES_PER_SECOND: u32 = 4_295;
/// The ECU on the K-line.
const ENGINE: u8 = 0x11;
/// The time for which everything runs before the measurement.
const WARM_UP: Duration = Duration::from_secs(2);

/// The rows.
pub(crate) async fn all(window: Duration) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(CloudConfig::local(directory.path().join("cloud"))).await?;
    let line = SimLine::new(TimerKind::Precise);
    let ecu = KlineEcuConfig { tolerance: Duration::from_millis(500), ..KlineEcuConfig::new(ENGINE) };
    let _engine = KlineVehicle::start(&[ecu], &line, TimerKind::Precise);
    let tty = directory.path().join("kline");
    let _device = PtyKLine::new(Some(&tty), &line)?;
    let record = Catalogue::parse(CATALOGUE)?.find("VOLKSWAGEN_GOLF_MK7")?.clone();
    let vehicle = VehicleConfig { timer: TimerKind::Precise, ..VehicleConfig::new(record) };
    let listen = ListenConfig::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let gateway = DoipGateway::start(&vehicle, DoipConfig::new(&vehicle, listen)).await?;

    let mut tables = String::new();
    let mut buses = Vec::new();
    for (index, [plus, minus]) in CAN_PINS.into_iter().enumerate() {
        tables += &format!("[[bus]]\nkind = \"can\"\npins = [{plus}, {minus}]\ndevice = \"can{index}\"\n");
        buses.push(json!({"bus_name": format!("CAN{index}"), "can_bus": {"pin_plus": plus, "pin_min": minus,
            "can_protocol": "frames", "can_bit_rate": 500_000}}));
    }
    let tty = tty.display();
    let address = gateway.addresses().tcp;
    tables += &format!("[[bus]]\nkind = \"kline\"\npins = [7]\ndevice = \"{tty}\"\n");
    tables += &format!("[[bus]]\nkind = \"doip\"\npins = [1, 9]\ndevice = \"{address}\"\n");
    buses.push(json!({"bus_name": "K", "kline_bus": {"pin": 7, "kline_protocol": "iso14230_fast", "kline_bit_rate": 10_400}}));
    buses.push(json!({"bus_name": "ETH", "doip_bus": {"doip_option": 1, "doip_network_configuration": 1}}));
    let config = configuration(directory.path(), &cloud, &tables)?;
    let child = measured("agent", FRAMES_PER_SECOND)?.env(TARGET, config).spawn()?;
    let pid = child.id().context("the measured process has ended")?;

    let connection = join(&cloud).await?;
    let buses = buses.into_iter().map(serde_json::from_value).collect::<Result<Vec<BusConfig>, _>>()?;
    connection.configure_buses(buses).await?;
    let kline = serde_json::from_value(json!({"bus_name": "K", "ecu_id": ENGINE}))?;
    let kline = connection.open_channel(|open| open.kline_channel = Some(kline)).await?;
    let ecu =
        json!({"bus_name": "ETH", "gateway_id": GATEWAY.get(), "tester_id": 0x0E80, "ecu_id": FIRST_ECU});
    let ecu = serde_json::from_value(ecu)?;
    let doip = connection.open_channel(|open| open.doip_channel = Some(ecu)).await?;
    let mut readers = Vec::new();
    let mut measurements = Vec::new();
    for index in 0..CAN_PINS.len() {
        let raw = serde_json::from_value(json!({"bus_name": format!("CAN{index}")}))?;
        let (latencies, arrived) = mpsc::unbounded_channel();
        readers.push(tokio::spawn(read_frames(connection.open_raw(raw).await?, latencies)));
        measurements.push((format!("CAN bus {}", index + 1), arrived));
    }
    for (name, channel, request) in [("K-line", kline, vec![0x1A, 0x90]), ("DoIP", doip, vec![0x3E, 0x00])] {
        let (latencies, arrived) = mpsc::unbounded_channel();
        readers.push(tokio::spawn(ask_repeatedly(channel, request, latencies)));
        measurements.push((name.to_owned(), arrived));
    }

    tokio::time::sleep(WARM_UP).await;
    for (_, arrived) in &mut measurements {
        while arrived.try_recv().is_ok() {}
    }
    let before = usage(pid)?;
    tokio::time::sleep(window).await;
    let after = usage(pid)?;
    let mut rows = Vec::new();
    for (name, arrived) in &mut measurements {
        let mut latencies = Vec::new();
        while let Ok(latency) = arrived.try_recv() {
            latencies.push(latency);
        }
        anyhow::ensure!(!latencies.is_empty(), "{name}: nothing was relayed");
        let unit = if name.starts_with("CAN") { "frames" } else { "answers" };
        let rate = latencies.len() as f64 / window.as_secs_f64();
        let (p50, p99) = percentiles(&mut latencies);
        rows.push((format!("all buses, {name}"), format!("{rate:.0} {unit}/s, p50 {p50} µs, p99 {p99} µs")));
    }
    let cpu = (after.cpu_seconds - before.cpu_seconds) / window.as_secs_f64() * 100.0;
    rows.push(("all buses: CPU".to_owned(), format!("{cpu:.0} % of a core")));
    rows.push(("all buses: resident".to_owned(), format!("{:.1} MB", after.resident as f64 / 1e6)));
    readers.iter().for_each(tokio::task::JoinHandle::abort);
    cloud.shutdown().await;
    gateway.stop().await;
    Ok(rows)
}

/// Sends one request after the other, and reports the time of each in µs.
async fn ask_repeatedly(channel: Channel, request: Vec<u8>, latencies: mpsc::UnboundedSender<u64>) {
    loop {
        let asked = Instant::now();
        if channel.request(&request, &Timing::default()).await.is_err() {
            return;
        }
        if latencies.send(asked.elapsed().as_micros() as u64).is_err() {
            return;
        }
    }
}
