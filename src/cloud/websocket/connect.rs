//! Making a websocket: name, TCP, TLS, upgrade.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use reqwest::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL, USER_AGENT};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::link::LinkSettings;
use super::reconnect::Failure;
use crate::cloud::rest::AccessToken;
use crate::cloud::rest::client;
use crate::cloud::rest::retry_after::retry_after;
use crate::cloud::rest::transport::Transport;

/// The relay protocol's name.
pub const SUBPROTOCOL: &str = "connector-relay.v1";

/// A websocket to the cloud, with or without TLS.
pub type Socket = WebSocketStream<Transport>;

/// Bytes that the kernel takes beyond what it can put on the wire at once: what waits there can no longer share a
/// message with what comes later, and ages.
const NOT_SENT_LOW_WATER: u32 = 16 << 10;

/// Why there is no websocket.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// It took too long.
    #[error("no websocket within {0:?}")]
    Timeout(Duration),
    /// The name has no address.
    #[error("the name {host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No TCP connection.
    #[error("no connection to {address}")]
    Tcp {
        /// Where to.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// No TLS: most likely a certificate that is not trusted.
    #[error("no TLS with {host}")]
    Tls {
        /// The name that the certificate must have.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// The upgrade failed.
    #[error("no websocket")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The cloud refused the upgrade.
    #[error("the cloud answered {status} instead of a websocket")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// The token has characters that no header can have.
    #[error("the token cannot be sent")]
    Token,
}

impl ConnectError {
    /// What it means for connecting again.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Refused { status: 401, .. } => Failure::Unauthorized,
            Self::Refused { retry_after, .. } => Failure::Busy { retry_after: *retry_after },
            _ => Failure::Lost,
        }
    }
}

/// Makes a websocket within the time that the settings allow.
pub async fn connect(
    settings: Arc<LinkSettings>,
    tls: Arc<ClientConfig>,
    token: AccessToken,
) -> Result<Socket, ConnectError> {
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, open(&settings, tls, &token)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Timeout(limit)),
    }
}

async fn open(
    settings: &LinkSettings,
    tls: Arc<ClientConfig>,
    token: &AccessToken,
) -> Result<Socket, ConnectError> {
    let url = settings.url.as_url();
    let failed = |error| ConnectError::WebSocket(Box::new(error));
    let mut request = url.as_str().into_client_request().map_err(failed)?;
    let headers = request.headers_mut();
    // The websocket library logs the whole request, with the token, by the crate `log` at its finest level: nothing
    // may be set up that receives those records.
    headers.insert(AUTHORIZATION, token.header().ok_or(ConnectError::Token)?);
    headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(USER_AGENT, HeaderValue::from_static(client::USER_AGENT));

    let host = url.host_str().unwrap_or_default();
    let default_port = if settings.url.is_secure() { 443 } else { 80 };
    let tcp = tcp(host, url.port().unwrap_or(default_port), settings.connect_timeout).await?;
    set_options(&tcp, settings.dead_after);
    let transport =
        if settings.url.is_secure() { secured(tls, host, tcp).await? } else { Transport::Plain(tcp) };

    let largest = settings.max_text.max(settings.max_binary);
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        // every message goes to the socket at once
        .write_buffer_size(0)
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    match client_async_with_config(request, transport, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(ConnectError::Refused {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers(), SystemTime::now()),
        }),
        Err(error) => Err(failed(error)),
    }
}

async fn secured(tls: Arc<ClientConfig>, host: &str, tcp: TcpStream) -> Result<Transport, ConnectError> {
    let failed = |source| ConnectError::Tls { host: host.to_owned(), source };
    let name = ServerName::try_from(bare(host).to_owned());
    let name = name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    let stream = TlsConnector::from(tls).connect(name, tcp).await.map_err(failed)?;
    Ok(Transport::Tls(Box::new(stream)))
}

/// A connection to the first address of the host that takes one.
async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, ConnectError> {
    let addresses = resolve(host, port).await?;
    // a dead address must leave time for the next
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).saturating_add(1);
    let mut last = ConnectError::Timeout(limit);
    for address in addresses {
        let connected = tokio::time::timeout(share, TcpStream::connect(address)).await;
        match connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(stream) => return Ok(stream),
            Err(source) => last = ConnectError::Tcp { address, source },
        }
    }
    Err(last)
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, ConnectError> {
    if let Ok(address) = bare(host).parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    if host == "localhost" {
        // whatever a resolver says (RFC 6761, 6.3): without TLS nothing may leave this machine
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    let resolve = |source| ConnectError::Resolve { host: host.to_owned(), source };
    let addresses: Vec<_> = lookup_host((host, port)).await.map_err(resolve)?.take(8).collect();
    if addresses.is_empty() { Err(resolve(io::ErrorKind::NotFound.into())) } else { Ok(addresses) }
}

/// An IPv6 address without its brackets.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// None of these options is worth having no link for.
fn set_options(tcp: &TcpStream, dead_after: Duration) {
    let socket = SockRef::from(tcp);
    let options = [
        ("TCP_NODELAY", socket.set_tcp_nodelay(true)),
        ("TCP_USER_TIMEOUT", socket.set_tcp_user_timeout(Some(dead_after))),
        ("TCP_NOTSENT_LOWAT", socket.set_tcp_notsent_lowat(NOT_SENT_LOW_WATER)),
    ];
    for (name, result) in options {
        if let Err(error) = result {
            tracing::debug!("{name}: {error}");
        }
    }
}
