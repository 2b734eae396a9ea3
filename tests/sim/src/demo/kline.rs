//! The demo on a K-line: a vehicle without CAN, whose VIN is read by `1A 90`.

use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::{
    BusConfig, KlineBusConfig, KlineChannelConfig, KlineProtocol, PduOptions,
};
use connector_hal::kline::sim::{PtyKLine, SimLine};
use connector_hal::timer::TimerKind;
use tokio::time::Instant;

use super::agent_setup::{AgentSetup, remove};
use super::args::Args;
use super::duration::brief;
use super::story::{ResultTable, Story};
use crate::scenario::{connect, create_ticket, log_in_customer, log_in_operator, toml_string};
use crate::vehicle::kline::{DEFAULT_VIN, KlineEcuConfig, KlineVehicle};
use connector_operator::client::{Channel, Connection, Timing};
use connector_operator::hex;

const BUS: &str = "K";
const ENGINE: u8 = 0x11;
const VIN: &str = DEFAULT_VIN;
/// The bit rate of the line, in bit/s.
const BIT_RATE: u32 = 10_400;
/// The number of bytes to write; a longer download would show nothing new.
const PROGRAM: usize = 1000;
/// Data bytes of a TransferData; a message holds at most 255 bytes.
const BLOCK: usize = 200;
/// Longer than P3max, after which an ECU that received nothing ends the communication.
const SILENCE: Duration = Duration::from_secs(7);
/// Tolerance for the machine's scheduling of the simulated ECU and the agent.
const TOLERANCE: Duration = Duration::from_millis(500);
/// Time for the ECU to receive the StopCommunication of a closed channel.
const GOODBYE: Duration = Duration::from_secs(1);
/// Limit for coming online, over the worst network that the arguments allow.
const ONLINE: Duration = Duration::from_secs(120);

/// The simulators that the demo runs on, dropped in the order of the fields.
struct KlineStage {
    setup: AgentSetup,
    _device: PtyKLine,
    vehicle: KlineVehicle,
    directory: tempfile::TempDir,
}

/// Plays the demo. Returns whether every check was right.
///
/// # Errors
///
/// Returns the error that prevented the setup.
pub(super) async fn play(args: &Args, story: &Story) -> anyhow::Result<bool> {
    let mut stage = set_up(args, story).await?;
    let mut table = ResultTable::default();
    let played = act(&mut stage, story, &mut table).await;
    if let Err(failure) = &played {
        story.report("demo", &format!("{failure:#}"));
    }
    table.check("Demo", if played.is_ok() { "completed" } else { "broke off" }, played.is_ok());
    let anomalies = stage.vehicle.anomalies();
    let result =
        if anomalies.is_empty() { "every time limit kept".to_owned() } else { format!("{anomalies:?}") };
    table.check("As the ECU saw it", result, anomalies.is_empty());
    stage.setup.end_agent(story, &mut table, played.is_err()).await;
    let left = stage.vehicle.with_ecu(0, |ecu| ecu.is_communicating()).unwrap_or_default();
    table.check("ECU afterwards", if left { "still communicating" } else { "no communication" }, !left);
    stage.setup.cloud.shutdown().await;
    drop(stage.setup.network);
    remove(stage.directory);
    Ok(table.print())
}

async fn set_up(args: &Args, story: &Story) -> anyhow::Result<KlineStage> {
    let directory = tempfile::tempdir().context("cannot create a temporary directory")?;
    let line = SimLine::new(TimerKind::Precise);
    let ecu =
        KlineEcuConfig { vin: Some(VIN.to_owned()), tolerance: TOLERANCE, ..KlineEcuConfig::new(ENGINE) };
    let vehicle = KlineVehicle::start(&[ecu], &line, TimerKind::Precise);
    let path = directory.path().join("kline");
    let device = PtyKLine::new(Some(&path), &line).context("the K-line's device")?;
    story.report(
        "vehicle",
        &format!(
            "an ECU at 0x{ENGINE:02X} on a K-line at {BIT_RATE} baud, behind a serial device at {}",
            path.display()
        ),
    );
    let hardware =
        format!("[[bus]]\nkind = \"kline\"\npins = [7]\ndevice = {}", toml_string(&path.to_string_lossy()));
    let setup = AgentSetup::start(args, directory.path(), &hardware, story).await?;
    Ok(KlineStage { setup, _device: device, vehicle, directory })
}

async fn act(stage: &mut KlineStage, story: &Story, table: &mut ResultTable) -> anyhow::Result<()> {
    let AgentSetup { agent, cloud, .. } = &mut stage.setup;
    let customer = log_in_customer(cloud).await?;
    let mut watch = customer.watch_connector(cloud.connector_id).await?;
    let started = agent.started;
    let reported = tokio::select! {
        reported = tokio::time::timeout(ONLINE, watch.until(|update| update.vin_number.is_some())) => {
            reported.context("the connector does not report the VIN")??
        }
        ended = agent.ended() => anyhow::bail!("the agent exited: {}", ended?),
    };
    let vin = reported.vin_number.unwrap_or_default();
    let took = brief(started.elapsed());
    story.report(
        "connector",
        &format!("is online and reports {vin}, read by 1A 90 on the K-line, {took} after its start"),
    );
    table.check("VIN", format!("{vin}, in the cloud {took} after the start"), vin == VIN);

    let (ticket, _) = create_ticket(&customer, cloud, Some(&vin), true, "demo").await?;
    story.report("customer", &format!("asks for help: ticket {} is pending", ticket.id));
    let operator = log_in_operator(cloud).await?;
    let (ticket, connection) = connect(&operator, &ticket.id, "demo operator").await?;
    story.report("operator", "joined the ticket and connected");
    work(&connection, &stage.vehicle, story, table).await?;
    operator.complete(&ticket.id).await?;
    story.report("operator", "completed the ticket");
    Ok(())
}

/// Everything that the operator does with the vehicle.
async fn work(
    connection: &Connection,
    vehicle: &KlineVehicle,
    story: &Story,
    table: &mut ResultTable,
) -> anyhow::Result<()> {
    let line = KlineBusConfig { pin: 7, kline_protocol: KlineProtocol::Fast, kline_bit_rate: BIT_RATE };
    let bus = BusConfig { bus_name: BUS.to_owned(), kline_bus: Some(line), ..BusConfig::default() };
    connection.configure_buses(vec![bus]).await?;
    let opening = Instant::now();
    let config = KlineChannelConfig {
        bus_name: BUS.to_owned(),
        ecu_id: ENGINE,
        keyword: None,
        options: PduOptions::default(),
    };
    let channel = connection.open_channel(|open| open.kline_channel = Some(config)).await?;
    let took = brief(opening.elapsed());
    story.report(
        "operator",
        &format!("opened a channel to 0x{ENGINE:02X} in {took}, initialised by a pulse of 25 ms"),
    );
    table.note("Fast initialisation", took);

    let mut right = 0;
    let reads: [(&str, &[u8], Vec<u8>); 4] = [
        ("VIN", &[0x1A, 0x90], [&[0x5A, 0x90], VIN.as_bytes()].concat()),
        ("identification", &[0x1A, 0x9B], [&[0x5A, 0x9B][..], b"036906032  SIMULATED ECU 2010"].concat()),
        ("trouble codes", &[0x18, 0x00, 0xFF, 0x00], vec![0x58, 0x02, 0x01, 0x00, 0xE1, 0x03, 0x00, 0x61]),
        ("session", &[0x10, 0x85], vec![0x50, 0x85]),
    ];
    for (name, request, expected) in &reads {
        right += usize::from(ask(&channel, story, name, request).await? == *expected);
    }
    table.check("Answers", format!("{right} of {} are right", reads.len()), right == reads.len());

    let waiting = Instant::now();
    tokio::time::sleep(SILENCE).await;
    let answer = ask(&channel, story, "after a silence", &[0x21, 0x01]).await?;
    let kept = vehicle.with_ecu(0, |ecu| ecu.requests().iter().filter(|request| **request == [0x3E]).count());
    let kept = kept.unwrap_or_default();
    let result = format!("{kept} TesterPresent in {} without requests", brief(waiting.elapsed()));
    table.check("Kept alive", result, answer.first() == Some(&0x61) && kept >= 2);

    download(&channel, vehicle, story, table).await?;
    connection.close_channel(channel).await?;
    // the StopCommunication takes time on the line
    tokio::time::sleep(GOODBYE).await;
    Ok(())
}

async fn ask(channel: &Channel, story: &Story, name: &str, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let asked = Instant::now();
    let answer = channel.request(request, &Timing::default()).await?.data;
    let (request, shown, took) = (hex::format(request), hex::format(&answer), brief(asked.elapsed()));
    story.report("operator", &format!("{name}: {request} -> {shown}, {took}"));
    Ok(answer)
}

/// Erases and writes the ECU's memory, and compares the memory with the program. Only the simulation offers
/// this: a real ECU's memory cannot be read.
async fn download(
    channel: &Channel,
    vehicle: &KlineVehicle,
    story: &Story,
    table: &mut ResultTable,
) -> anyhow::Result<()> {
    let program: Vec<u8> = (0..PROGRAM).map(|index| (index * 7) as u8).collect();
    let begun = Instant::now();
    ask(channel, story, "erase", &[0x31, 0x02]).await?;
    ask(channel, story, "download", &[0x34, 0x00]).await?;
    for block in program.chunks(BLOCK) {
        channel.request(&[&[0x36], block].concat(), &Timing::default()).await?;
    }
    ask(channel, story, "end of transfer", &[0x37]).await?;
    let same = vehicle.with_ecu(0, |ecu| ecu.memory() == program).unwrap_or_default();
    let result = format!("{PROGRAM} bytes in {}", brief(begun.elapsed()));
    story.report("operator", &format!("wrote {result}"));
    table.check(
        "ECU's memory",
        if same { format!("{result}, byte for byte") } else { "differs".to_owned() },
        same,
    );
    Ok(())
}
