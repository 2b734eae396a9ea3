//! The demo on TP2.0: the ECUs of a Golf of the 2000s are found by a scan and read, their channels stay open
//! during silence, and one ECU is flashed.

use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::{BusConfig, CanBusConfig, PduOptions, Tp20ChannelConfig};
use serde_json::json;
use tokio::time::Instant;

use super::demo_vehicle::{BIT_RATE, CAN_BUS};
use super::duration::brief;
use super::flashing::flash_with_progress;
use super::stage::Stage;
use super::story::{ResultTable, Story};
use crate::scenario::holds_firmware;
use crate::vehicle::Tp20EcuConfig;
use crate::vehicle::ecu::Session;
use connector_operator::client::{Channel, Connection, Timing};
use connector_operator::hex;

/// ECUs drop a channel after about one second of silence, and a session after five.
const SILENCE: Duration = Duration::from_secs(7);

/// Everything that the operator does with the vehicle.
pub(super) async fn work(
    stage: &mut Stage,
    story: &Story,
    connection: &Connection,
    table: &mut ResultTable,
) -> anyhow::Result<()> {
    let can = CanBusConfig {
        pin_plus: 6,
        pin_min: 14,
        can_protocol: "tp20".to_owned(),
        can_bit_rate: BIT_RATE,
        transceiver: Some("high".to_owned()),
        data_bit_rate: None,
        verify: true,
    };
    let bus = BusConfig { bus_name: CAN_BUS.to_owned(), can_bus: Some(can), ..BusConfig::default() };
    connection.configure_buses(vec![bus]).await?;
    story.report(
        "operator",
        &format!("set up the bus at pins 6 and 14 for TP2.0 at {} kbit/s", BIT_RATE / 1000),
    );
    scan(stage, story, connection, table).await?;
    let channels = read_all(stage, story, connection, table).await?;
    let engine = channels.first().context("no ECU is behind TP2.0")?;
    keep(stage, story, engine, table).await?;
    program(stage, story, engine, table).await?;
    for channel in channels {
        connection.close_channel(channel).await?;
    }
    Ok(())
}

async fn scan(
    stage: &Stage,
    story: &Story,
    connection: &Connection,
    table: &mut ResultTable,
) -> anyhow::Result<()> {
    let began = Instant::now();
    // ECUs behind TP2.0 report no speed by OBD
    let message = json!({"connection_uuid": connection.uuid(), "bus_name": CAN_BUS, "vehicle_stands": true});
    let found = connection.ask("scanEcus", message).await?;
    let found = found.get("ecus").and_then(|ecus| ecus.as_array()).cloned().unwrap_or_default();
    let number = |ecu: &serde_json::Value, field: &str| ecu.get(field).and_then(serde_json::Value::as_u64);
    let mut is: Vec<_> =
        found.iter().map(|ecu| (number(ecu, "request_id"), number(ecu, "response_id"))).collect();
    let has = |ecu: &crate::vehicle::RunningEcu| {
        let of = |id: connector_hal::can::CanId| Some(u64::from(id.to_number()));
        (of(ecu.address.request), of(ecu.address.response))
    };
    let vehicle = stage.vehicle.can_vehicle().context("the vehicle is not on CAN")?;
    let mut has: Vec<_> = vehicle.ecus().iter().map(has).collect();
    is.sort_unstable();
    has.sort_unstable();
    let tp20 =
        found.iter().filter(|ecu| ecu.get("protocol").is_some_and(|protocol| protocol == "tp20")).count();
    let result = format!("{} ECUs, {tp20} of them behind TP2.0, in {}", found.len(), brief(began.elapsed()));
    story.report("operator", &format!("scans the bus: {result}"));
    table.check("ECUs found", result, is == has);
    Ok(())
}

/// Opens a channel to every ECU, and reads its identification.
async fn read_all(
    stage: &Stage,
    story: &Story,
    connection: &Connection,
    table: &mut ResultTable,
) -> anyhow::Result<Vec<Channel>> {
    let mut channels = Vec::new();
    let mut right = 0;
    for ecu in &stage.tp20 {
        let config = Tp20ChannelConfig {
            bus_name: CAN_BUS.to_owned(),
            logical_address: ecu.ecu.get(),
            options: PduOptions::default(),
        };
        let opening = Instant::now();
        let channel = connection.open_channel(|open| open.tp20_channel = Some(config)).await?;
        let opened = brief(opening.elapsed());
        right += usize::from(is_known(&channel, story, ecu, &opened).await?);
        channels.push(channel);
    }
    let all = stage.tp20.len();
    table.check(
        "ECUs read",
        format!("{right} of {all} identify themselves over TP2.0"),
        right == all && all > 0,
    );
    Ok(channels)
}

async fn is_known(
    channel: &Channel,
    story: &Story,
    ecu: &Tp20EcuConfig,
    opened: &str,
) -> anyhow::Result<bool> {
    let request = [0x1A, 0x9B];
    let expected = ecu.exchanges.iter().find(|exchange| exchange.request == request);
    let asked = Instant::now();
    let answer = channel.request(&request, &Timing::default()).await?.data;
    let text: String = answer.iter().skip(2).map(|byte| char::from(*byte)).collect();
    let (name, address, took) = (&ecu.name, ecu.ecu, brief(asked.elapsed()));
    story.report(
        "operator",
        &format!(
            "{name} at {address}, opened in {opened}: {} -> {}, {took}",
            hex::format(&request),
            text.trim_end()
        ),
    );
    Ok(expected.is_some_and(|exchange| exchange.response == answer))
}

/// Sends no requests for longer than the ECU keeps a session without any.
async fn keep(stage: &Stage, story: &Story, engine: &Channel, table: &mut ResultTable) -> anyhow::Result<()> {
    engine.request(&[0x10, 0x03], &Timing::default()).await?;
    tokio::time::sleep(SILENCE).await;
    let first = stage.tp20.first().map(Tp20EcuConfig::address);
    let session = first
        .zip(stage.vehicle.can_vehicle())
        .and_then(|(address, vehicle)| vehicle.status(address))
        .map(|status| status.session);
    let kept = session == Some(Session::Extended);
    let result =
        format!("{} of silence: {}", brief(SILENCE), if kept { "session kept" } else { "session lost" });
    story.report("connector", &format!("tests the channels near the vehicle; {result}"));
    table.check("Channel test", result, kept);
    Ok(())
}

async fn program(
    stage: &mut Stage,
    story: &Story,
    engine: &Channel,
    table: &mut ResultTable,
) -> anyhow::Result<()> {
    let data = stage.firmware.clone();
    story.report("operator", &format!("flashes the engine with {} bytes over TP2.0", data.len()));
    let report = flash_with_progress(&mut stage.setup.agent, story, engine, &data).await?;
    let rate = report.bytes as f64 / report.transferring.as_secs_f64().max(0.001);
    table.note(
        "Flashed",
        format!("{} bytes in {}, {rate:.0} bytes/s", report.bytes, brief(report.transferring)),
    );
    let memory = stage.tp20.first().zip(stage.vehicle.can_vehicle());
    let memory = memory.map(|(ecu, vehicle)| vehicle.memory(ecu.address())).unwrap_or_default();
    let same = holds_firmware(&memory, &data);
    let result = if same { "holds the firmware, byte for byte" } else { "does not hold the firmware" };
    table.check("ECU's memory", result, same);
    Ok(())
}
