//! One attempt to connect: name resolution, TCP, TLS, and the websocket's upgrade.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{self, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::reconnect::ConnectFailure;
use super::settings::SocketSettings;
use super::transport::SocketTransport;
use super::upgrade::{SUBPROTOCOL, upgrade};
use crate::cloud::rest::{AccessToken, USER_AGENT, retry_after};

/// A websocket to the cloud, with or without TLS.
pub(super) type Websocket = WebSocketStream<SocketTransport>;

/// The kernel accepts this many bytes beyond those it can send immediately. Bytes that wait there age, and
/// can no longer share a message with later records. The value is a compromise: with fewer bytes, the kernel
/// would run out of data before this process is woken; 16 KiB last for 13 ms at 10 Mbit/s.
const NOT_SENT_LOW_WATER: u32 = 16 << 10;

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloudConnectError {
    /// The attempt took too long.
    #[error("no websocket within {0:?}")]
    Timeout(Duration),
    /// The host name could not be resolved.
    #[error("cannot resolve the name {host}")]
    Resolve {
        /// The host name.
        host: String,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The TCP connection failed.
    #[error("no connection to {address}")]
    Tcp {
        /// The address of the host.
        address: SocketAddr,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The TLS handshake failed, most likely because the certificate is not trusted.
    #[error("the TLS handshake with {host} failed")]
    Tls {
        /// The name that the certificate must have.
        host: String,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The websocket's handshake failed.
    #[error("the websocket handshake failed")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The cloud refused the upgrade.
    #[error("the cloud answered {status} instead of a websocket")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
    /// The token has characters that a header must not contain.
    #[error("the token has characters that a header must not contain")]
    Token,
}

impl CloudConnectError {
    /// Classifies the error for the reconnect policy.
    pub(super) fn failure(&self) -> ConnectFailure {
        match self {
            Self::Refused { status: 401, .. } => ConnectFailure::Unauthorized,
            Self::Refused { retry_after, .. } => ConnectFailure::Busy { retry_after: *retry_after },
            _ => ConnectFailure::Lost,
        }
    }
}

/// Connects within the settings' `connect_timeout`.
pub(super) async fn connect(
    settings: Arc<SocketSettings>,
    tls: Arc<ClientConfig>,
    token: AccessToken,
) -> Result<Websocket, CloudConnectError> {
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, open(&settings, tls, &token)).await {
        Ok(result) => result,
        Err(_) => Err(CloudConnectError::Timeout(limit)),
    }
}

async fn open(
    settings: &SocketSettings,
    tls: Arc<ClientConfig>,
    token: &AccessToken,
) -> Result<Websocket, CloudConnectError> {
    let url = settings.url.as_url();
    let failed = |error| CloudConnectError::WebSocket(Box::new(error));
    let mut request = url.as_str().into_client_request().map_err(failed)?;
    let headers = request.headers_mut();
    // The websocket library logs the whole request, token included, with the crate `log` at TRACE: this
    // process must not install a receiver for those records.
    headers.insert(header::AUTHORIZATION, token.header().ok_or(CloudConnectError::Token)?);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));

    let host = url.host_str().unwrap_or_default();
    let default_port = if settings.url.is_secure() { 443 } else { 80 };
    let tcp = tcp(host, url.port().unwrap_or(default_port), settings.connect_timeout).await?;
    set_options(&tcp);
    let transport =
        if settings.url.is_secure() { add_tls(tls, host, tcp).await? } else { SocketTransport::plain(tcp) };

    let largest = settings.max_text.max(settings.max_binary);
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        // every message goes to the socket immediately
        .write_buffer_size(0)
        .max_write_buffer_size(settings.max_write_buffer())
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    match upgrade(request, transport, config).await {
        Ok(socket) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(CloudConnectError::Refused {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers(), SystemTime::now()),
        }),
        Err(error) => Err(failed(error)),
    }
}

async fn add_tls(
    tls: Arc<ClientConfig>,
    host: &str,
    tcp: TcpStream,
) -> Result<SocketTransport, CloudConnectError> {
    let failed = |source| CloudConnectError::Tls { host: host.to_owned(), source };
    let name = ServerName::try_from(bare(host).to_owned());
    let name = name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(failed)?;
    Ok(SocketTransport::tls(stream))
}

/// Connects to the first of the host's addresses that accepts.
async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, CloudConnectError> {
    let addresses = resolve(host, port).await?;
    // a dead address must leave time for the next one
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let mut last = CloudConnectError::Timeout(limit);
    for address in addresses {
        let connected = tokio::time::timeout(share, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = CloudConnectError::Tcp { address, source },
        }
    }
    Err(last)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, CloudConnectError> {
    if let Ok(address) = bare(host).parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    if host == "localhost" {
        // do not ask a resolver (RFC 6761, 6.3): without TLS nothing may leave this machine
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let resolve = |source| CloudConnectError::Resolve { host: host.to_owned(), source };
    let addresses: Vec<_> = lookup_host((host, port)).await.map_err(resolve)?.take(8).collect();
    if addresses.is_empty() { Err(resolve(io::ErrorKind::NotFound.into())) } else { Ok(addresses) }
}

/// The host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Sets options on the TCP connection. A failure is only logged: the websocket works without them.
fn set_options(tcp: &TcpStream) {
    let socket = SockRef::from(tcp);
    let options = [
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
        ("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)),
    ];
    for (name, result) in options {
        if let Err(error) = result {
            tracing::debug!("{name}: {error}");
        }
    }
}
