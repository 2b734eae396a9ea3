//! The story on a K-line: a vehicle without CAN, whose VIN is read by `1A 90`, and an operator far from it.

use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::relay::wire::request::{
    BusConfig, KlineBusConfig, KlineChannelConfig, KlineProtocol, PduOptions,
};
use connector_hal::kline::sim::{PtyKLine, SimLine};
use connector_hal::timer::TimerKind;
use serde_json::json;
use tokio::time::Instant;

use super::Args;
use super::agent::Agent;
use super::reading::brief;
use super::story::{Story, Table};
use crate::cloud::{Cloud, CloudConfig};
use crate::network::{BadNetwork, BadNetworkConfig};
use crate::operator::client::{Channel, Connection, Credentials, Customer, Operator, Timing};
use crate::vehicle::hex;
use crate::vehicle::kline::{KlineEcuConfig, KlineVehicle};

const BUS: &str = "K";
const ENGINE: u8 = 0x11;
const VIN: &str = "WVWZZZ1KZ6W000001";
/// The bit rate of the line, in bit/s.
const BIT_RATE: u32 = 10_400;
/// How many bytes are sent to the ECU: half a minute of the line's time would tell no more.
const PROGRAM: usize = 1000;
/// Data bytes of a TransferData, within what a message can hold.
const BLOCK: usize = 200;
/// Longer than P3max: an ECU that heard nothing would have ended the communication.
const SILENCE: Duration = Duration::from_secs(7);
/// The simulated ECU and the agent are processes that the machine schedules as it likes.
const TOLERANCE: Duration = Duration::from_millis(500);
/// How long an ECU has to learn that its channel is closed.
const GOODBYE: Duration = Duration::from_secs(1);
const ONLINE: Duration = Duration::from_secs(120);

/// What the story is played on; dropped in the order of its fields.
struct Stage {
    agent: Agent,
    network: BadNetwork,
    cloud: Cloud,
    _device: PtyKLine,
    vehicle: KlineVehicle,
    directory: tempfile::TempDir,
}

/// Plays the story; whether all was right.
///
/// # Errors
///
/// What could not be set up.
pub(super) async fn play(args: &Args, story: &Story) -> anyhow::Result<bool> {
    let mut stage = set_up(args, story).await?;
    let mut table = Table::default();
    let played = act(&mut stage, story, &mut table).await;
    if let Err(failure) = &played {
        story.tell("demo", &format!("{failure:#}"));
    }
    table.check("Demo", if played.is_ok() { "went through" } else { "broke off" }, played.is_ok());
    let anomalies = stage.vehicle.anomalies();
    let what = if anomalies.is_empty() { "every time kept".to_owned() } else { format!("{anomalies:?}") };
    table.check("As the ECU saw it", what, anomalies.is_empty());
    let ended = stage.agent.end().await;
    let (what, right) = match &ended {
        Some((status, took)) => (format!("ended by SIGTERM in {}: {status}", brief(*took)), status.success()),
        None => ("had to be killed".to_owned(), false),
    };
    table.check("Agent", what, right);
    let left = stage.vehicle.with_ecu(0, |ecu| ecu.is_communicating()).unwrap_or_default();
    table.check("ECU afterwards", if left { "still communicating" } else { "no communication" }, !left);
    stage.cloud.shutdown().await;
    drop(stage.network);
    if let Err(error) = stage.directory.close() {
        tracing::warn!(%error, "the temporary directory was not removed");
    }
    Ok(table.print())
}

async fn set_up(args: &Args, story: &Story) -> anyhow::Result<Stage> {
    let directory = tempfile::tempdir().context("a temporary directory cannot be made")?;
    let line = SimLine::new(TimerKind::Precise);
    let ecu =
        KlineEcuConfig { vin: Some(VIN.to_owned()), tolerance: TOLERANCE, ..KlineEcuConfig::new(ENGINE) };
    let vehicle = KlineVehicle::start(&[ecu], &line, TimerKind::Precise);
    let path = directory.path().join("kline");
    let device = PtyKLine::new(Some(&path), &line).context("the K-line's device")?;
    story.tell(
        "vehicle",
        &format!(
            "an ECU at 0x{ENGINE:02X} on a K-line at {BIT_RATE} baud, behind a serial device at {}",
            path.display()
        ),
    );
    let cloud = Cloud::start(CloudConfig::local(directory.path().join("cloud"))).await?;
    story.tell("cloud", &format!("a sandbox at {}, with a certificate authority of its own", cloud.api_url));
    let conditions = BadNetworkConfig {
        round_trip: Duration::from_millis(args.rtt),
        cut_every: args.cut_every,
        ..BadNetworkConfig::default()
    };
    let network = BadNetwork::start(cloud.address, conditions).await.context("the network")?;
    story.tell("network", &format!("{} ms there and back between connector and cloud", args.rtt));
    let config = agent_config(directory.path(), &cloud, &network, &path)?;
    let agent = Agent::start(args.agent.as_deref(), &config, directory.path(), args.show_log)?;
    story.tell("connector", "the agent is started, with UUID and pincode");
    Ok(Stage { agent, network, cloud, _device: device, vehicle, directory })
}

fn agent_config(
    directory: &Path,
    cloud: &Cloud,
    network: &BadNetwork,
    device: &Path,
) -> anyhow::Result<PathBuf> {
    let write = |name: &str, text: &str| -> anyhow::Result<PathBuf> {
        let path = directory.join(name);
        let mut options = std::fs::OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        file.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()))
            .with_context(|| format!("cannot write {}", path.display()))?;
        Ok(path)
    };
    let pincode = write("pincode", &cloud.connector_pincode)?;
    // TOML's basic strings are JSON's
    let quoted = |text: &str| serde_json::to_string(text).unwrap_or_default();
    let path = |path: &Path| quoted(&path.to_string_lossy());
    let behind_network = |url: &str| url.replace(&cloud.address.to_string(), &network.address().to_string());
    let text = format!(
        "[connector]\nuuid = \"{uuid}\"\npincode_file = {pincode}\n\n\
         [cloud]\napi_url = {api}\nwebsocket_url = {websocket}\nca_file = {ca}\n\n\
         [[bus]]\nkind = \"kline\"\npins = [7]\ndevice = {device}\n",
        uuid = cloud.connector_uuid,
        pincode = path(&pincode),
        api = quoted(&behind_network(&cloud.api_url)),
        websocket = quoted(&behind_network(&cloud.websocket_url)),
        ca = path(&cloud.ca_file),
        device = path(device),
    );
    write("connector-agent.toml", &text)
}

async fn act(stage: &mut Stage, story: &Story, table: &mut Table) -> anyhow::Result<()> {
    let cloud = &stage.cloud;
    let (api, websocket, ca) = (&cloud.api_url, &cloud.websocket_url, Some(cloud.ca_file.as_path()));
    let account = |account: &crate::cloud::Credentials| Credentials {
        client_id: account.client_id.clone(),
        client_secret: account.client_secret.clone(),
    };
    let customer = Customer::login(api, websocket, ca, account(&cloud.customer)).await?;
    let mut watch = customer.watch_connector(cloud.connector_id).await?;
    let started = stage.agent.started;
    let reported = tokio::select! {
        told = tokio::time::timeout(ONLINE, watch.until(|update| update.vin_number.is_some())) => {
            told.context("the connector does not report the VIN")??
        }
        ended = stage.agent.ended() => anyhow::bail!("the agent has ended by itself: {}", ended?),
    };
    let vin = reported.vin_number.unwrap_or_default();
    let took = brief(started.elapsed());
    story.tell(
        "connector",
        &format!("is online, and reports {vin}, read by 1A 90 on the K-line, {took} after its start"),
    );
    table.check("VIN", format!("{vin}, in the cloud {took} after the start"), vin == VIN);

    let model = customer.find_vehicle(&vin).await?;
    let id = |part: &str| model.pointer(part).cloned().unwrap_or_default();
    let ticket = customer
        .create_ticket(&json!({
            "vin": vin, "vehicle_model_id": id("/model/id"), "vehicle_model_variant_id": id("/model_variant/id"), "connector_id": cloud.connector_id,
            "product_ids": [1], "metadata": {"vin_is_found_by_reader": true}, "reference": "demo",
        }))
        .await?;
    story.tell("customer", &format!("asks for help: ticket {} is pending", ticket.id));
    let operator = Operator::login(api, websocket, ca, account(&cloud.operator)).await?;
    let ticket = operator.join(&ticket.id, "demo operator").await?;
    let uuid = ticket.connection().context("the ticket in progress has no connection")?;
    let connection = operator.connect(uuid).await?;
    story.tell("operator", "has joined the ticket, and is connected");
    work(&connection, &stage.vehicle, story, table).await?;
    operator.complete(&ticket.id).await?;
    story.tell("operator", "has completed the ticket");
    Ok(())
}

/// All that the operator does with the vehicle.
async fn work(
    connection: &Connection,
    vehicle: &KlineVehicle,
    story: &Story,
    table: &mut Table,
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
    story.tell(
        "operator",
        &format!("has a channel to 0x{ENGINE:02X}, initialised by a pulse of 25 ms, after {took}"),
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
    let what = format!("{kept} TesterPresent in {} without requests", brief(waiting.elapsed()));
    table.check("Kept alive", what, answer.first() == Some(&0x61) && kept >= 2);

    download(&channel, vehicle, story, table).await?;
    connection.close_channel(channel).await?;
    // StopCommunication takes its time on the line
    tokio::time::sleep(GOODBYE).await;
    Ok(())
}

async fn ask(channel: &Channel, story: &Story, name: &str, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let asked = Instant::now();
    let answer = channel.request(request, &Timing::default()).await?.data;
    let (request, shown, took) = (hex::format(request), hex::format(&answer), brief(asked.elapsed()));
    story.tell("operator", &format!("{name}: {request} -> {shown}, {took}"));
    Ok(answer)
}

/// Erases and writes, and looks into the ECU's memory, which no operator of a real one could.
async fn download(
    channel: &Channel,
    vehicle: &KlineVehicle,
    story: &Story,
    table: &mut Table,
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
    let what = format!("{PROGRAM} bytes in {}", brief(begun.elapsed()));
    story.tell("operator", &format!("has written {what}"));
    table.check(
        "ECU's memory",
        if same { format!("{what}, byte for byte") } else { "differs".to_owned() },
        same,
    );
    Ok(())
}
