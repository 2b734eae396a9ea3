//! The data that an idle connector costs: what the kernel counts at the cloud's ends of its connections, with the
//! headers of TCP and IP.

use std::collections::VecDeque;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use connector_sim::cloud::{Cloud, CloudConfig};
use futures_util::{SinkExt, StreamExt};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::Row;

/// The interval of the agent's Pings in the measurement, and that of a day (relay protocol, 1.2).
const PING: Duration = Duration::from_millis(500);
const DAILY_PING: Duration = Duration::from_secs(30);
/// The interval of its reports in the measurement, and that of a day (relay protocol, 1.4).
const REPORT_SECONDS: u64 = 1;
const DAILY_REPORT: Duration = Duration::from_secs(60);
/// A token that lives for an hour is refreshed on average after this time.
const DAILY_REFRESH: Duration = Duration::from_secs(3600 * 825 / 1000);
const DAY: Duration = Duration::from_secs(24 * 3600);
/// The headers of a segment, in bytes: IPv4, TCP, and TCP's timestamps, which Linux uses by default.
const SEGMENT: u64 = 20 + 20 + 12;
/// How long a connection settles before it is counted.
const SETTLE: Duration = Duration::from_secs(2);

/// The rows of one Ping, one report, one login and one day.
pub(crate) async fn rows(window: Duration) -> anyhow::Result<Vec<Row>> {
    let directory = tempfile::tempdir()?;
    let cloud = Cloud::start(CloudConfig::local(directory.path().join("cloud"))).await?;
    let (api_port, mut api_bytes) = counting_proxy(cloud.address.port()).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let acceptor = acceptor(directory.path(), &cloud)?;
    let config = directory.path().join("agent.toml");
    let path = directory.path().display();
    let text = format!(
        "[connector]\nuuid = \"{}\"\npincode = \"{}\"\n         [board]\nvoltage = {{ file = \"{path}/in0_input\", scale = 0.001, offset = 0.0 }}\n[cloud]\napi_url = \"https://127.0.0.1:{api_port}\"\n\
         websocket_url = \"wss://127.0.0.1:{}/\"\nca_file = \"{}\"\nidle_ping_interval_ms = {}\n",
        cloud.connector_uuid,
        cloud.connector_pincode,
        listener.local_addr()?.port(),
        directory.path().join("ca.pem").display(),
        PING.as_millis(),
    );
    std::fs::write(&config, text)?;
    std::fs::write(directory.path().join("in0_input"), "12600\n")?;
    let mut agent = Command::new(crate::agent_binary());
    agent.arg("run").arg("--config").arg(&config).stderr(Stdio::null()).kill_on_drop(true);
    let agent = agent.spawn()?;
    let mut link = Link::accept(&listener, &acceptor).await?;

    link.set_reporting(3600).await?;
    let quiet = link.count(window).await?;
    ensure!(quiet.pings > 0 && quiet.reports == 0, "{quiet:?}");
    let ping = quiet.bytes / quiet.pings;
    link.set_reporting(REPORT_SECONDS).await?;
    let reporting = link.count(window).await?;
    ensure!(reporting.reports > 0, "{reporting:?}");
    let report = reporting.bytes.saturating_sub(reporting.pings * ping) / reporting.reports;
    drop(agent);
    let login = api_bytes.recv().await.context("no login")?;
    cloud.shutdown().await;

    let times = |interval: Duration| DAY.as_secs() / interval.as_secs();
    let day = times(DAILY_PING) * ping + times(DAILY_REPORT) * report + times(DAILY_REFRESH) * login;
    let row = |name: &str, bytes: u64| (format!("idle connector, {name}"), format!("{bytes} bytes"));
    Ok(vec![
        row("a Ping with its Pong", ping),
        row("a report", report),
        row("a login or refresh", login),
        ("… a day of these".to_owned(), format!("{:.2} MB", day as f64 / 1e6)),
    ])
}

/// TLS with a certificate of its own, which the file `ca.pem` names beside the sandbox cloud's.
fn acceptor(directory: &Path, cloud: &Cloud) -> anyhow::Result<TlsAcceptor> {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let certificate = certified.cert.pem();
    std::fs::write(directory.join("ca.pem"), std::fs::read_to_string(&cloud.ca_file)? + &certificate)?;
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes())?;
    let key = PrivateKeyDer::from_pem_slice(certified.signing_key.serialize_pem().as_bytes())?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)?;
    Ok(TlsAcceptor::from(Arc::new(server)))
}

/// A port that passes connections on to another port of this machine, and reports the bytes of each.
async fn counting_proxy(target: u16) -> anyhow::Result<(u16, mpsc::UnboundedReceiver<u64>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let (sender, counted) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut near, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                let mut far = TcpStream::connect(("127.0.0.1", target)).await?;
                let _broken_at_the_end = copy_bidirectional(&mut near, &mut far).await;
                let _measured = sender.send(bytes_on_the_wire(near.as_fd())?);
                anyhow::Ok(())
            });
        }
    });
    Ok((port, counted))
}

/// What passed in a window of time.
#[derive(Debug)]
struct Passed {
    bytes: u64,
    pings: u64,
    reports: u64,
}

/// The cloud's end of the agent's websocket.
struct Link {
    socket: WebSocketStream<TlsStream<TcpStream>>,
    waiting: VecDeque<Value>,
}

impl Link {
    async fn accept(listener: &TcpListener, acceptor: &TlsAcceptor) -> anyhow::Result<Self> {
        let (tcp, _) = listener.accept().await?;
        tcp.set_nodelay(true)?;
        #[allow(clippy::result_large_err, reason = "the library's signature")]
        let callback = |_: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
            let name = http::HeaderValue::from_static("connector-relay.v1");
            response.headers_mut().insert("sec-websocket-protocol", name);
            Ok(response)
        };
        let socket = tokio_tungstenite::accept_hdr_async(acceptor.accept(tcp).await?, callback).await?;
        Ok(Self { socket, waiting: VecDeque::new() })
    }

    /// Sets the interval of the reports, and waits for the reply.
    async fn set_reporting(&mut self, seconds: u64) -> anyhow::Result<()> {
        let message =
            json!({"action": "setReporting", "request_id": "1", "message": {"interval_seconds": seconds}});
        self.socket.send(Message::text(message.to_string())).await?;
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            self.read(until).await?;
            while let Some(text) = self.waiting.pop_front() {
                if is_action(&text, "reportingSet") {
                    return Ok(());
                }
            }
            ensure!(Instant::now() < until, "the agent does not answer setReporting");
        }
    }

    /// Counts for this time, after the link has settled.
    async fn count(&mut self, window: Duration) -> anyhow::Result<Passed> {
        let until = Instant::now() + SETTLE;
        while self.read(until).await?.is_some() {}
        self.waiting.clear();
        let before = bytes_on_the_wire(self.socket.get_ref().get_ref().0.as_fd())?;
        let (until, mut pings) = (Instant::now() + window, 0);
        while let Some(message) = self.read(until).await? {
            pings += u64::from(message.is_ping());
        }
        let bytes = bytes_on_the_wire(self.socket.get_ref().get_ref().0.as_fd())? - before;
        let is_report = |text: &&Value| is_action(text, "connectorStatusUpdate");
        let reports = self.waiting.iter().filter(is_report).count() as u64;
        Ok(Passed { bytes, pings, reports })
    }

    /// The next message; `None` at this time. Texts are kept.
    async fn read(&mut self, until: Instant) -> anyhow::Result<Option<Message>> {
        let Ok(message) = timeout_at(until, self.socket.next()).await else { return Ok(None) };
        let message = message.context("the agent has closed the websocket")??;
        if let Message::Text(text) = &message {
            self.waiting.push_back(serde_json::from_str(text)?);
        }
        Ok(Some(message))
    }
}

fn is_action(text: &Value, action: &str) -> bool {
    text.get("action").and_then(Value::as_str) == Some(action)
}

/// The bytes of a TCP connection in both directions, with the headers of all segments.
#[allow(unsafe_code, reason = "no safe wrapper of getsockopt knows the segments of TCP_INFO")]
fn bytes_on_the_wire(socket: BorrowedFd<'_>) -> anyhow::Result<u64> {
    let mut info = [0u8; 256];
    let mut length = info.len() as libc::socklen_t;
    let (level, option) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: the descriptor is open, and the kernel writes at most `length` bytes.
    let result = unsafe {
        libc::getsockopt(socket.as_raw_fd(), level, option, info.as_mut_ptr().cast(), &raw mut length)
    };
    if result != 0 {
        bail!(std::io::Error::last_os_error());
    }
    // the places of tcpi_bytes_acked, tcpi_bytes_received, tcpi_segs_out and tcpi_segs_in in linux/tcp.h
    ensure!(length >= 144, "this kernel does not count segments");
    let long =
        |at: usize| info.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u64::from_ne_bytes(*b));
    let word =
        |at: usize| info.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |b| u32::from_ne_bytes(*b));
    Ok(long(120) + long(128) + SEGMENT * u64::from(word(136) + word(140)))
}
