//! `connector-sim load`: many connectors and portals at a sandbox cloud that runs as a process of its own.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use connector_agent::cloud::dial::Dialer;
use connector_agent::cloud::rest::Rest;
use connector_agent::config::{ApiUrl, CloudConfig, ConnectorUuid, Pincode, WebsocketUrl};
use connector_agent::print_line;
use connector_agent::tls;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

/// Measure the sandbox cloud with many connectors and portals. The connectors report their status every five seconds,
/// which is the interval while a portal watches.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The number of connectors online.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=3000))]
    connectors: u32,
    /// The number of portals, each of which subscribes to a connector.
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(0..=1000))]
    subscribers: u32,
    /// How long to measure, once all are connected.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=3600))]
    seconds: u64,
}

/// The interval of the status updates.
const INTERVAL: Duration = Duration::from_secs(5);
/// The logins at a time: each is a durable transaction.
const LOGINS: usize = 16;
const PINCODE: &str = "1234";

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// What the clients count.
#[derive(Default)]
struct Counters {
    statuses: AtomicU64,
    updates: AtomicU64,
    lost: AtomicU64,
}

/// A client: its login, and what it needs to connect.
#[derive(Clone)]
struct Client {
    uuid: uuid::Uuid,
    id: i64,
    token: String,
    ready: Arc<Value>,
    tls: Arc<rustls::ClientConfig>,
}

/// Runs the measurement, and prints its figures.
///
/// # Errors
///
/// Returns an error if the cloud does not start, or a client cannot connect.
pub(crate) async fn run(args: Args) -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let seeds: Vec<Value> = (0..args.connectors)
        .map(|index| json!({"id": 10_000 + index, "uuid": uuid::Uuid::new_v4(), "pincode": PINCODE}))
        .collect();
    let (mut cloud, ready) = start_cloud(directory.path(), &seeds).await?;
    let started = Instant::now();
    let clients = log_in_all(&seeds, &ready).await?;
    print_line!("{} logins in {:.1} s", clients.len(), started.elapsed().as_secs_f64());

    let counters = Arc::new(Counters::default());
    let connecting = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for client in &clients {
        let socket = client.connect("websocket_url").await?;
        tasks.spawn(drive_connector(socket, client.clone(), Arc::clone(&counters)));
    }
    let (delays, mut measured) = mpsc::unbounded_channel();
    for client in clients.iter().cycle().take(args.subscribers as usize) {
        let socket = client.connect("portal_websocket_url").await?;
        tasks.spawn(drive_portal(socket, client.clone(), Arc::clone(&counters), delays.clone()));
    }
    drop(delays);
    print_line!(
        "{} websockets in {:.1} s",
        clients.len() + args.subscribers as usize,
        connecting.elapsed().as_secs_f64()
    );

    let before = (
        cpu_seconds(&cloud)?,
        counters.statuses.load(Ordering::Relaxed),
        counters.updates.load(Ordering::Relaxed),
    );
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let seconds = args.seconds as f64;
    let cpu = (cpu_seconds(&cloud)? - before.0) / seconds * 100.0;
    let statuses = counters.statuses.load(Ordering::Relaxed) - before.1;
    let updates = counters.updates.load(Ordering::Relaxed) - before.2;
    print_line!(
        "{:.0} status updates/s, {:.0} updates to portals/s",
        statuses as f64 / seconds,
        updates as f64 / seconds
    );
    print_line!("the cloud used {cpu:.0} % of one core, and {} MB", resident_megabytes(&cloud)?);
    tasks.abort_all();
    let mut all = Vec::new();
    while let Ok(delay) = measured.try_recv() {
        all.push(delay);
    }
    all.sort_unstable();
    if let (Some(half), Some(most)) = (all.get(all.len() / 2), all.get(all.len() * 99 / 100)) {
        print_line!("the first update after a subscription: {half:.1?} (median), {most:.1?} (99 %)");
    }
    let lost = counters.lost.load(Ordering::Relaxed);
    print_line!("{lost} websockets were lost");
    cloud.kill().await?;
    anyhow::ensure!(lost == 0, "the cloud closed websockets");
    Ok(())
}

/// Starts the cloud as a process; returns it with its ready line.
async fn start_cloud(directory: &Path, seeds: &[Value]) -> anyhow::Result<(Child, Arc<Value>)> {
    let connectors = directory.join("connectors.json");
    std::fs::write(&connectors, serde_json::to_vec(seeds)?)?;
    let mut cloud = Command::new(std::env::current_exe()?)
        .args(["cloud", "--listen", "127.0.0.1:0", "--state"])
        .arg(directory.join("state"))
        .arg("--connectors")
        .arg(&connectors)
        .env("RUST_LOG", "error")
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start the cloud")?;
    let stdout = cloud.stdout.take().context("the cloud has no output")?;
    let line = BufReader::new(stdout).lines().next_line().await?.context("the cloud did not start")?;
    Ok((cloud, Arc::new(serde_json::from_str(&line)?)))
}

fn text<'a>(value: &'a Value, field: &str) -> anyhow::Result<&'a str> {
    value.get(field).and_then(Value::as_str).with_context(|| format!("{field} is missing"))
}

/// Logs every connector in with its pincode.
async fn log_in_all(seeds: &[Value], ready: &Arc<Value>) -> anyhow::Result<Vec<Client>> {
    let tls = tls::client_config(Some(Path::new(text(ready, "ca_file")?)))?;
    let mut config = CloudConfig::new(
        ApiUrl::try_from(text(ready, "api_url")?.to_owned())?,
        WebsocketUrl::try_from(text(ready, "websocket_url")?.to_owned())?,
    );
    config.request_timeout = Duration::from_secs(120);
    let (config, places) = (Arc::new(config), Arc::new(Semaphore::new(LOGINS)));
    let mut logins = tokio::task::JoinSet::new();
    for seed in seeds {
        let uuid: uuid::Uuid = text(seed, "uuid")?.parse()?;
        let id = seed.get("id").and_then(Value::as_i64).unwrap_or_default();
        let (config, tls, places, ready) =
            (Arc::clone(&config), Arc::clone(&tls), Arc::clone(&places), Arc::clone(ready));
        logins.spawn(async move {
            let _place = places.acquire().await?;
            let rest = Rest::new(&config, ConnectorUuid::new(uuid)?, Dialer::new(Arc::clone(&tls)))?;
            let tokens = rest.log_in(&Pincode::new(PINCODE).context("an empty pincode")?).await?;
            let token = secrecy::ExposeSecret::expose_secret(&tokens.access).to_owned();
            Ok::<_, anyhow::Error>(Client { uuid, id, token, ready, tls })
        });
    }
    let mut clients = Vec::new();
    while let Some(client) = logins.join_next().await {
        clients.push(client??);
    }
    Ok(clients)
}

impl Client {
    async fn connect(&self, url: &str) -> anyhow::Result<Socket> {
        let mut request = text(&self.ready, url)?.into_client_request()?;
        request.headers_mut().insert("Authorization", format!("Bearer {}", self.token).parse()?);
        let address: std::net::SocketAddr =
            text(&self.ready, "api_url")?.trim_start_matches("https://").parse()?;
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let name = rustls::pki_types::ServerName::from(address.ip());
        let stream = TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await?;
        let (socket, _) = client_async(request, stream).await?;
        Ok(socket)
    }
}

/// A connector: a hello, and a status every five seconds.
async fn drive_connector(mut socket: Socket, client: Client, counters: Arc<Counters>) {
    let hello =
        json!({"action": "connectorHello", "message": {"connector_uuid": client.uuid, "protocol": 1}});
    if socket.send(Message::text(hello.to_string())).await.is_err() {
        counters.lost.fetch_add(1, Ordering::Relaxed);
        return;
    }
    // spread over the interval
    let start = Instant::now() + INTERVAL.mul_f64(fastrand::f64());
    let mut ticks = tokio::time::interval_at(start, INTERVAL);
    loop {
        let alive = tokio::select! {
            _ = ticks.tick() => {
                let voltage = 12.0 + fastrand::f64();
                let message = json!({"connector_id": client.uuid, "voltage": voltage, "round_trip_time": 23});
                let status = json!({"action": "connectorStatusUpdate", "message": message});
                counters.statuses.fetch_add(1, Ordering::Relaxed);
                socket.send(Message::text(status.to_string())).await.is_ok()
            }
            message = socket.next() => matches!(message, Some(Ok(_))),
        };
        if !alive {
            counters.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
    }
}

/// A portal: a subscription to a connector, whose updates are counted.
async fn drive_portal(
    mut socket: Socket,
    client: Client,
    counters: Arc<Counters>,
    delays: mpsc::UnboundedSender<Duration>,
) {
    let subscribe = json!({"action": "subscribeToConnector", "connector_id": client.id});
    let asked = Instant::now();
    let mut is_first = true;
    let mut alive = socket.send(Message::text(subscribe.to_string())).await.is_ok();
    while alive {
        match socket.next().await {
            Some(Ok(Message::Text(_))) => {
                counters.updates.fetch_add(1, Ordering::Relaxed);
                if std::mem::take(&mut is_first) {
                    // the measurement may have ended
                    let _ = delays.send(asked.elapsed());
                }
            }
            Some(Ok(_)) => {}
            _ => alive = false,
        }
    }
    counters.lost.fetch_add(1, Ordering::Relaxed);
}

/// The processor time of the cloud so far.
fn cpu_seconds(cloud: &Child) -> anyhow::Result<f64> {
    /// Ticks of a second in /proc, which are the same on every Linux.
    const TICKS: f64 = 100.0;
    let id = cloud.id().context("the cloud has ended")?;
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // the name in parentheses may have spaces
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks =
        |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok()).unwrap_or_default();
    Ok((ticks(11) + ticks(12)) / TICKS)
}

fn resident_megabytes(cloud: &Child) -> anyhow::Result<u64> {
    let id = cloud.id().context("the cloud has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    let kilobytes: u64 = line.split_whitespace().next().unwrap_or_default().parse()?;
    Ok(kilobytes / 1024)
}
