//! Frames of 16 bytes (classic, 8 bytes of data) from a bus to the operator over TLS on loopback.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use connector_agent::relay::wire::request::{BusConfig, CanBusConfig, RawChannelConfig};
use connector_hal::can::slcan::SlcanAdapter;
use connector_hal::can::virtual_bus::{VirtualBus, VirtualBusConfig};
use connector_hal::timer::TimerKind;
use connector_operator::client::{Channel, Connection, Credentials, Customer, Item, Operator, Received};
use connector_sim::cloud::{Cloud, CloudConfig};
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use tokio::process::{Child, Command};
use tokio::sync::mpsc;

use crate::Row;
use crate::child::{CA, RATE, ROLE, TARGET};
use crate::cpu::{Usage, clock, usage};

/// The time for which frames run before they are counted.
const WARM_UP: Duration = Duration::from_secs(2);

/// Writes the agent's configuration; `buses` has the tables of its buses.
pub(crate) fn configuration(directory: &Path, cloud: &Cloud, buses: &str) -> anyhow::Result<PathBuf> {
    let path = directory.join("agent.toml");
    let text = format!(
        "[connector]\nuuid = \"{}\"\npincode = \"{}\"\n[cloud]\napi_url = \"{}\"\nwebsocket_url = \"{}\"\nca_file = \"{}\"\n{buses}",
        cloud.connector_uuid,
        cloud.connector_pincode,
        cloud.api_url,
        cloud.websocket_url,
        cloud.ca_file.display(),
    );
    std::fs::write(&path, text)?;
    Ok(path)
}

/// The command that starts this binary again in a role.
pub(crate) fn measured(role: &str, rate: u32) -> anyhow::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.env(ROLE, role).env(RATE, rate.to_string()).kill_on_drop(true);
    Ok(command)
}

/// The agent's rows.
pub(crate) async fn agent(name: &str, rate: u32, window: Duration) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(CloudConfig::local(directory.path().join("cloud"))).await?;
    let bus = "[[bus]]\nkind = \"can\"\npins = [6, 14]\ndevice = \"can0\"\n";
    let config = configuration(directory.path(), &cloud, bus)?;
    let child = measured("agent", rate)?.env(TARGET, config).spawn()?;
    let (_connection, channel) = connect(&cloud).await?;
    let (latencies, arrived) = mpsc::unbounded_channel();
    let reader = tokio::spawn(read_frames(channel, latencies));
    let rows = measure(&format!("agent, {name}"), &child, arrived, window).await?;
    reader.abort();
    cloud.shutdown().await;
    Ok(rows)
}

/// The rows of the agent's own binary on a full bus behind an SLCAN adapter.
pub(crate) async fn binary(window: Duration) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(CloudConfig::local(directory.path().join("cloud"))).await?;
    let full = VirtualBusConfig { load: 1.0, timer: TimerKind::Precise, ..VirtualBusConfig::default() };
    let bus = VirtualBus::new(full);
    let path = directory.path().join("can");
    let _adapter = SlcanAdapter::new(Some(&path), &bus, "connector")?;
    let table = format!("[[bus]]\nkind = \"can\"\npins = [6, 14]\ndevice = \"slcan:{}\"\n", path.display());
    let config = configuration(directory.path(), &cloud, &table)?;
    let mut command = Command::new(crate::agent_binary());
    let command = command.arg("run").arg("--config").arg(config).stderr(Stdio::null());
    let child = command.kill_on_drop(true).spawn()?;
    let pid = child.id().context("the agent has ended")?;
    let (_connection, channel) = connect(&cloud).await?;
    let idle = usage(pid)?;
    let frame = async {
        loop {
            if let Item::Frame(_) = received(&channel).await?.item {
                return anyhow::Ok(());
            }
        }
    };
    frame.await?;
    let before = usage(pid)?;
    let mut count = 0u64;
    let end = tokio::time::sleep(window);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            received = received(&channel) => count += u64::from(matches!(received?.item, Item::Frame(_))),
        }
    }
    let after = usage(pid)?;
    cloud.shutdown().await;
    let cpu = (after.cpu_seconds - before.cpu_seconds) * 1e6 / count.max(1) as f64;
    let name = "agent's binary, full bus behind SLCAN";
    Ok(vec![
        (format!("{name}: arrived"), format!("{:.0} frames/s", count as f64 / window.as_secs_f64())),
        (format!("{name}: CPU"), format!("{cpu:.2} µs a frame")),
        (format!("{name}: resident when joined"), format!("{:.1} MB", idle.resident as f64 / 1e6)),
        (format!("{name}: resident at the end"), format!("{:.1} MB", after.resident as f64 / 1e6)),
    ])
}

/// Creates a ticket and joins it. The benchmark leaves the connection open, because closing it would wait for
/// a backlog of frames.
pub(crate) async fn join(cloud: &Cloud) -> anyhow::Result<Connection> {
    let credentials = |login: &connector_sim::cloud::Credentials| Credentials {
        client_id: login.client_id.clone(),
        client_secret: login.client_secret.clone(),
    };
    let ca = Some(cloud.ca_file.as_path());
    let customer =
        Customer::login(&cloud.api_url, &cloud.websocket_url, ca, credentials(&cloud.customer)).await?;
    let ticket = customer
        .create_ticket(&json!({
            "vin": null, "vehicle_model_id": 3, "vehicle_model_variant_id": 3,
            "connector_id": cloud.connector_id, "product_ids": [1],
            "metadata": {"vin_is_found_by_reader": false},
        }))
        .await?;
    let operator =
        Operator::login(&cloud.api_url, &cloud.websocket_url, ca, credentials(&cloud.operator)).await?;
    let ticket = operator.join(&ticket.id, "bench").await?;
    Ok(operator.connect(ticket.connection().context("the ticket has no connection")?).await?)
}

/// Connects an operator, configures a bus and opens a raw channel on it.
async fn connect(cloud: &Cloud) -> anyhow::Result<(Connection, Channel)> {
    let connection = join(cloud).await?;
    let can_bus = CanBusConfig {
        pin_plus: 6,
        pin_min: 14,
        can_protocol: "frames".to_owned(),
        can_bit_rate: 500_000,
        transceiver: None,
        data_bit_rate: None,
        verify: true,
    };
    let bus = BusConfig { bus_name: "HS".to_owned(), can_bus: Some(can_bus), ..BusConfig::default() };
    connection.configure_buses(vec![bus]).await?;
    let raw = serde_json::from_value::<RawChannelConfig>(json!({"bus_name": "HS"}))?;
    let channel = connection.open_raw(raw).await?;
    Ok((connection, channel))
}

async fn received(channel: &Channel) -> anyhow::Result<Received> {
    channel.recv().await.map_err(|reason| anyhow::anyhow!("the connection ended: {reason:?}"))
}

/// Receives frames and reports their ages in µs, until the channel or the receiver ends.
pub(crate) async fn read_frames(channel: Channel, latencies: mpsc::UnboundedSender<u64>) {
    while let Ok(received) = channel.recv().await {
        if let Item::Frame(frame) = received.item
            && let Ok(made) = frame.data().try_into().map(u64::from_be_bytes)
            && latencies.send(clock().saturating_sub(made)).is_err()
        {
            return;
        }
    }
}

/// Counts the frames that arrive in the window, and the resources that the process used for them.
async fn measure(
    name: &str,
    child: &Child,
    mut arrived: mpsc::UnboundedReceiver<u64>,
    window: Duration,
) -> anyhow::Result<Vec<Row>> {
    let pid = child.id().context("the measured process has ended")?;
    let first = arrived.recv().await.context("no frame arrived")?;
    std::hint::black_box(first);
    tokio::time::sleep(WARM_UP).await;
    while arrived.try_recv().is_ok() {}
    let before = usage(pid)?;
    let mut latencies = Vec::new();
    let end = tokio::time::sleep(window);
    tokio::pin!(end);
    loop {
        tokio::select! {
            () = &mut end => break,
            latency = arrived.recv() => latencies.push(latency.context("the frames ended")?),
        }
    }
    let after = usage(pid)?;
    Ok(rows(name, latencies, before, after, window))
}

/// The median, and the 99th percentile.
pub(crate) fn percentiles(latencies: &mut [u64]) -> (u64, u64) {
    latencies.sort_unstable();
    let at =
        |share: f64| latencies.get((latencies.len() as f64 * share) as usize).copied().unwrap_or_default();
    (at(0.5), at(0.99))
}

fn rows(name: &str, mut latencies: Vec<u64>, before: Usage, after: Usage, window: Duration) -> Vec<Row> {
    let count = latencies.len();
    let (p50, p99) = percentiles(&mut latencies);
    let cpu = (after.cpu_seconds - before.cpu_seconds) * 1e6 / count.max(1) as f64;
    vec![
        (format!("{name}: arrived"), format!("{:.0} frames/s", count as f64 / window.as_secs_f64())),
        (format!("{name}: CPU"), format!("{cpu:.2} µs a frame")),
        (format!("{name}: latency"), format!("p50 {p50} µs, p99 {p99} µs")),
        (format!("{name}: resident"), format!("{:.1} MB", after.resident as f64 / 1e6)),
    ]
}

/// The rows of a bare websocket over TLS that sends equal frames and receives them back.
pub(crate) async fn bare_echo(name: &str, rate: u32, window: Duration) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let ca = directory.path().join("ca.pem");
    std::fs::write(&ca, certified.cert.pem())?;
    let certificate = CertificateDer::from_pem_slice(certified.cert.pem().as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(certified.signing_key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let child = measured("bare", rate)?.env(TARGET, address.to_string()).env(CA, ca).spawn()?;
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    let stream = tokio_rustls::TlsAcceptor::from(Arc::new(server)).accept(stream).await?;
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    let (latencies, arrived) = mpsc::unbounded_channel();
    let echo = tokio::spawn(async move {
        while let Some(message) = socket.next().await {
            let message = message?;
            if let Some(made) = message.clone().into_data().last_chunk::<8>().copied().map(u64::from_be_bytes)
            {
                let _window_is_over = latencies.send(clock().saturating_sub(made));
            }
            if message.is_binary() {
                socket.send(message).await?;
            }
        }
        anyhow::Ok(())
    });
    let rows = measure(&format!("bare echo, {name}"), &child, arrived, window).await?;
    if echo.is_finished() {
        bail!("the echo ended early");
    }
    echo.abort();
    Ok(rows)
}
