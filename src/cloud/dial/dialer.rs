//! Transports to the cloud: name resolution, TCP, the tunnel through a proxy, and TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use connector_hal::clock::{now, sleep_until};
use connector_hal::future::BoxFuture;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsConnector;
use url::Url;

use super::error::DialError;
use super::happy_eyeballs::{HappyEyeballs, KnownAddresses};
use super::resolver::{HostAnswer, HostResolver, answer};
use super::transport::SocketTransport;
use super::tunnel::open_tunnel;
use crate::config::Proxy;

/// The kernel accepts this many bytes beyond those it can send immediately. Bytes that wait there age, and
/// can no longer share a message with later records. The value is a compromise: with fewer bytes, the kernel
/// would run out of data before this process is woken; 16 KiB last for 13 ms at 10 Mbit/s.
const NOT_SENT_LOW_WATER: u32 = 16 << 10;

/// Makes the transports of REST and websocket. Clones share what is known about the cloud's addresses.
#[derive(Debug, Clone)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
    resolver: HostResolver,
    proxy: Option<Proxy>,
}

impl Dialer {
    /// A dialer with this TLS configuration, which asks the system's resolver.
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls, resolver: HostResolver::system(), proxy: None }
    }

    /// Reaches all hosts but this machine through the proxy.
    #[must_use]
    pub fn with_proxy(self, proxy: Option<Proxy>) -> Self {
        Self { proxy, ..self }
    }

    /// A dialer that looks up addresses with this function instead, for tests.
    #[must_use]
    pub fn with_lookup(
        self,
        lookup: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self { resolver: HostResolver::new(Arc::new(lookup)), ..self }
    }

    /// Connects to the host of the URL, with TLS if the scheme is `https` or `wss`. The caller limits the time.
    ///
    /// A proxy has no part in a connection to this machine: it could not reach the same machine.
    pub(in crate::cloud) async fn dial(&self, url: &Url) -> Result<SocketTransport, DialError> {
        let (host, port) = host_and_port(url)?;
        let proxy = self.proxy.as_ref().filter(|_| !is_this_machine(host));
        let (first_host, (tcp, address)) = match proxy {
            Some(proxy) => {
                let (proxy_host, proxy_port) = host_and_port(proxy.url.as_url())?;
                let connected = self.connect(proxy_host, proxy_port).await;
                let no_proxy =
                    |error| DialError::NoProxy { proxy: proxy.url.to_string(), source: Box::new(error) };
                (proxy_host, connected.map_err(no_proxy)?)
            }
            None => (host, self.connect(host, port).await?),
        };
        set_options(&tcp);
        self.resolver.note(|book| book.handle_connected(first_host, address));
        let tcp = match proxy {
            Some(proxy) => open_tunnel(tcp, proxy, host, port).await?,
            None => tcp,
        };
        let is_secure = matches!(url.scheme(), "https" | "wss");
        let transport = if is_secure { self.add_tls(host, tcp).await? } else { SocketTransport::plain(tcp) };
        self.resolver.note(|book| book.handle_success(first_host, address));
        Ok(transport)
    }

    /// A TCP connection to the address of the host that accepts first.
    async fn connect(&self, host: &str, port: u16) -> Result<(TcpStream, IpAddr), DialError> {
        if let Some(addresses) = without_resolver(host) {
            let mut eyeballs = HappyEyeballs::new(now(), KnownAddresses::default());
            eyeballs.handle_answer(&addresses);
            return self.race(eyeballs, host, port).await;
        }
        self.race(HappyEyeballs::new(now(), self.resolver.known(host)), host, port).await
    }

    async fn race(
        &self,
        mut eyeballs: HappyEyeballs,
        host: &str,
        port: u16,
    ) -> Result<(TcpStream, IpAddr), DialError> {
        let mut asked = eyeballs.is_resolving().then(|| self.resolver.ask(host));
        let mut attempts = FuturesUnordered::new();
        let mut last = None;
        loop {
            while let Some(address) = eyeballs.poll_attempt(now()) {
                tracing::debug!("connecting to {address}, port {port}");
                attempts.push(async move { (address, TcpStream::connect((address, port)).await) });
            }
            if eyeballs.has_failed() {
                let nothing = || resolve_error(host, Arc::new(io::ErrorKind::NotFound.into()));
                return Err(last.unwrap_or_else(nothing));
            }
            tokio::select! {
                Some((address, result)) = attempts.next() => match result {
                    Ok(tcp) => return Ok((tcp, address)),
                    Err(source) => {
                        eyeballs.handle_failure(now());
                        last = Some(DialError::Tcp { address: SocketAddr::new(address, port), source });
                    }
                },
                result = resolved(&mut asked) => {
                    asked = None;
                    match result {
                        Ok(addresses) => eyeballs.handle_answer(&addresses),
                        Err(source) => {
                            tracing::debug!("cannot resolve the name {host}: {source}");
                            eyeballs.handle_resolver_failure();
                            last = last.or(Some(resolve_error(host, source)));
                        }
                    }
                }
                () = sleep_until(eyeballs.poll_timeout()) => {}
            }
        }
    }

    async fn add_tls(&self, host: &str, tcp: TcpStream) -> Result<SocketTransport, DialError> {
        let failed = |source| DialError::Tls { host: host.to_owned(), source };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await.map_err(failed)?;
        Ok(SocketTransport::tls(stream))
    }
}

/// Waits for the resolver's answer; for ever, if it is not being asked.
async fn resolved(asked: &mut Option<watch::Receiver<Option<HostAnswer>>>) -> HostAnswer {
    match asked {
        Some(asked) => answer(asked).await,
        None => std::future::pending().await,
    }
}

fn resolve_error(host: &str, source: Arc<io::Error>) -> DialError {
    DialError::Resolve { host: host.to_owned(), source }
}

/// The addresses of a host that is not a name of the resolver.
fn without_resolver(host: &str) -> Option<Vec<IpAddr>> {
    if host == "localhost" {
        // do not ask a resolver (RFC 6761, 6.3): without TLS nothing may leave this machine
        return Some(vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]);
    }
    host.parse().ok().map(|address| vec![address])
}

fn is_this_machine(host: &str) -> bool {
    without_resolver(host).is_some_and(|addresses| addresses.iter().all(IpAddr::is_loopback))
}

fn host_and_port(url: &Url) -> Result<(&str, u16), DialError> {
    let host = url.host_str().ok_or_else(|| DialError::NoHost(url.to_string()))?;
    let default_port = if matches!(url.scheme(), "https" | "wss") { 443 } else { 80 };
    Ok((bare(host), url.port().unwrap_or(default_port)))
}

/// The host without the brackets of an IPv6 address.
fn bare(host: &str) -> &str {
    host.trim_start_matches('[').trim_end_matches(']')
}

/// Sets options on the TCP connection. A failure is only logged: the connection works without them.
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
