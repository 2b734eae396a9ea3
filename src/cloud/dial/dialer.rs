//! Transports to the cloud: name resolution, TCP, the tunnel through a proxy, and TLS.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

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
        let target = DialTarget { host, port, proxy, is_secure: matches!(url.scheme(), "https" | "wss") };
        let (first_host, first_port) = match proxy {
            Some(proxy) => host_and_port(proxy.url.as_url())?,
            None => (host, port),
        };
        let raced = self.race(first_host, first_port, &target).await;
        let (transport, address) = raced.map_err(|error| target.blamed(error))?;
        self.resolver.note(|book| book.handle_success(first_host, address));
        Ok(transport)
    }

    /// A transport by the address of the host that is ready first.
    async fn race(
        &self,
        host: &str,
        port: u16,
        target: &DialTarget<'_>,
    ) -> Result<(SocketTransport, IpAddr), DialError> {
        let mut eyeballs = self.eyeballs(host);
        let mut asked = eyeballs.is_resolving().then(|| self.resolver.ask(host));
        let mut attempts = FuturesUnordered::<BoxFuture<'_, Result<DialStage, DialError>>>::new();
        let mut failure = None;
        loop {
            while let Some(address) = eyeballs.poll_attempt(now()) {
                attempts.push(Box::pin(connect(address, port)));
            }
            if eyeballs.has_failed() {
                let nothing = || resolve_error(host, Arc::new(io::ErrorKind::NotFound.into()));
                return Err(failure.unwrap_or_else(nothing));
            }
            tokio::select! {
                Some(stage) = attempts.next() => match stage {
                    Ok(DialStage::Ready(transport, address)) => return Ok((transport, address)),
                    Ok(DialStage::Accepted { tcp, address, took }) => {
                        eyeballs.handle_accepted(now(), took);
                        attempts.push(Box::pin(self.finish(target, tcp, address)));
                    }
                    Err(error) if error.is_final() => return Err(error),
                    Err(error) => {
                        eyeballs.handle_failure(now());
                        failure = Some(further(failure, error));
                    }
                },
                result = resolved(&mut asked) => {
                    asked = None;
                    match result {
                        Ok(addresses) => eyeballs.handle_answer(&addresses),
                        Err(source) => {
                            tracing::debug!("cannot resolve the name {host}: {source}");
                            eyeballs.handle_resolver_failure();
                            failure = failure.or(Some(resolve_error(host, source)));
                        }
                    }
                }
                () = sleep_until(eyeballs.poll_timeout()) => {}
            }
        }
    }

    /// The attempts for a connection to the host.
    fn eyeballs(&self, host: &str) -> HappyEyeballs {
        let Some(addresses) = without_resolver(host) else {
            return HappyEyeballs::new(now(), self.resolver.known(host));
        };
        let mut eyeballs = HappyEyeballs::new(now(), KnownAddresses::default());
        eyeballs.handle_answer(&addresses);
        eyeballs
    }

    /// Adds the tunnel and TLS to a TCP connection.
    async fn finish(
        &self,
        target: &DialTarget<'_>,
        tcp: TcpStream,
        address: IpAddr,
    ) -> Result<DialStage, DialError> {
        let tcp = match target.proxy {
            Some(proxy) => open_tunnel(tcp, proxy, target.host, target.port).await?,
            None => tcp,
        };
        let transport = match target.is_secure {
            true => self.add_tls(target.host, tcp).await?,
            false => SocketTransport::plain(tcp),
        };
        Ok(DialStage::Ready(transport, address))
    }

    async fn add_tls(&self, host: &str, tcp: TcpStream) -> Result<SocketTransport, DialError> {
        let failed = |source| DialError::Tls { host: host.to_owned(), source };
        let name = ServerName::try_from(host.to_owned());
        let name = name.map_err(|error| failed(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, tcp).await.map_err(failed)?;
        Ok(SocketTransport::tls(stream))
    }
}

/// Where a transport leads.
struct DialTarget<'a> {
    host: &'a str,
    port: u16,
    proxy: Option<&'a Proxy>,
    is_secure: bool,
}

impl DialTarget<'_> {
    /// The error, which names the proxy if there was no connection to the proxy.
    fn blamed(&self, error: DialError) -> DialError {
        match (self.proxy, error) {
            (Some(proxy), error @ (DialError::Tcp { .. } | DialError::Resolve { .. })) => {
                DialError::NoProxy { proxy: proxy.url.to_string(), source: Box::new(error) }
            }
            (_, error) => error,
        }
    }
}

/// How far an attempt has come.
enum DialStage {
    /// There is a TCP connection, after this time.
    Accepted { tcp: TcpStream, address: IpAddr, took: Duration },
    /// The transport is ready.
    Ready(SocketTransport, IpAddr),
}

async fn connect(address: IpAddr, port: u16) -> Result<DialStage, DialError> {
    tracing::debug!("connecting to {address}, port {port}");
    let begin = now();
    let failed = |source| DialError::Tcp { address: SocketAddr::new(address, port), source };
    let tcp = TcpStream::connect((address, port)).await.map_err(failed)?;
    set_options(&tcp);
    Ok(DialStage::Accepted { tcp, address, took: now().saturating_duration_since(begin) })
}

/// The failure of the attempt that came further; of the later one, if both came as far.
fn further(earlier: Option<DialError>, later: DialError) -> DialError {
    match earlier {
        Some(earlier) if !earlier.is_without_connection() && later.is_without_connection() => earlier,
        _ => later,
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
