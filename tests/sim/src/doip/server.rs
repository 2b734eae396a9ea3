//! The sockets of an entity: UDP for discovery, TCP and TLS for testers.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use connector_agent::protocol::doip::{DiagnosticMessage, DiagnosticNackCode, LogicalAddress, PORT};
use connector_hal::timer::{Deadline, TimerKind};
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::connection::ConnectionId;
use super::entity::{Entity, Event, Output};

/// Messages to a tester that wait to be written; a tester with more unread loses its connection.
const QUEUE: usize = 1024;
/// News from connections that may wait; then they are not read.
const NEWS: usize = 64;
/// What is read from a connection at once, in bytes.
const READ: usize = 16 * 1024;
/// The longest datagram taken, in bytes: none of DoIP's is nearly as long.
const DATAGRAM: usize = 2048;
/// How long a connection that is closed may take to write what was said before.
const CLOSING: Duration = Duration::from_secs(2);
/// How long a tester may take for TLS' handshake, and to read a message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often a port is looked for that is free for TCP and for UDP.
const ATTEMPTS: u32 = 32;

/// Where an entity listens.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// TCP; port 13400 in vehicles, 0 for any that is free.
    pub tcp: SocketAddr,
    /// UDP on the same address; `None` takes the TCP port's number.
    pub udp_port: Option<u16>,
    /// TLS: its port (3496 in vehicles), and what it is served with.
    pub tls: Option<(u16, Arc<ServerConfig>)>,
    /// Where announcements go; `None` sends them to port 13400 of the subnet's broadcast address.
    pub announce_to: Option<SocketAddr>,
}

impl ListenConfig {
    /// Listens there, without TLS.
    pub fn new(tcp: SocketAddr) -> Self {
        Self { tcp, udp_port: None, tls: None, announce_to: None }
    }
}

/// Where an entity listens, once it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerAddresses {
    /// TCP.
    pub tcp: SocketAddr,
    /// UDP.
    pub udp: SocketAddr,
    /// TLS.
    pub tls: Option<SocketAddr>,
    /// Where announcements go.
    pub announce_to: SocketAddr,
}

enum News {
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId),
}

/// The sockets around an [`Entity`]. Dropped, all connections are closed.
pub struct Server {
    entity: Entity,
    addresses: ServerAddresses,
    tcp: TcpListener,
    tls: Option<(TcpListener, tokio_rustls::TlsAcceptor)>,
    udp: UdpSocket,
    /// Hears broadcasts, which a socket at a single address does not.
    broadcasts: Option<UdpSocket>,
    datagram: Vec<u8>,
    broadcast: Vec<u8>,
    writers: BTreeMap<ConnectionId, mpsc::Sender<Vec<u8>>>,
    tasks: JoinSet<()>,
    news: mpsc::Receiver<News>,
    newsgivers: mpsc::Sender<News>,
    opened: u64,
    deadline: Deadline,
}

impl Server {
    /// Binds the sockets; the entity is made once they are, since it announces itself at once.
    ///
    /// # Errors
    ///
    /// An address that is in use, or not this machine's.
    pub async fn bind(
        listen: &ListenConfig,
        entity: impl FnOnce(std::time::Instant) -> Entity,
    ) -> io::Result<Self> {
        let (tcp, udp) = bind_both(listen).await?;
        let address = tcp.local_addr()?;
        let tls = match &listen.tls {
            Some((port, config)) => {
                let listener = TcpListener::bind(with_port(address, *port)).await?;
                Some((listener, tokio_rustls::TlsAcceptor::from(Arc::clone(config))))
            }
            None => None,
        };
        let udp_address = udp.local_addr()?;
        let addresses = ServerAddresses {
            tcp: address,
            udp: udp_address,
            tls: tls.as_ref().map(|(listener, _)| listener.local_addr()).transpose()?,
            announce_to: listen.announce_to.unwrap_or_else(|| {
                // others listen for announcements where the standard says, wherever we listen
                with_port(everybody(udp_address), PORT)
            }),
        };
        let broadcasts = if udp_address.ip().is_unspecified() || udp_address.ip() == Ipv6Addr::LOCALHOST {
            None
        } else {
            let socket = udp_socket(everybody(udp_address));
            socket.inspect_err(|error| tracing::warn!(%error, "broadcasts are not heard")).ok()
        };
        // else the first announcement, which goes out at once, would find a socket that is not known to be ready
        udp.writable().await?;
        let (newsgivers, news) = mpsc::channel(NEWS);
        Ok(Self {
            entity: entity(now()),
            addresses,
            tcp,
            tls,
            udp,
            broadcasts,
            datagram: vec![0; DATAGRAM],
            broadcast: vec![0; DATAGRAM],
            writers: BTreeMap::new(),
            tasks: JoinSet::new(),
            news,
            newsgivers,
            opened: 0,
            deadline: Deadline::new(TimerKind::Runtime),
        })
    }

    /// Where it listens.
    pub fn addresses(&self) -> ServerAddresses {
        self.addresses
    }

    /// The protocol.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// The protocol, for what is to change while it runs.
    pub fn entity_mut(&mut self) -> &mut Entity {
        &mut self.entity
    }

    /// A response of an ECU to a tester; `false` where the tester has gone.
    pub fn respond(&mut self, message: DiagnosticMessage) -> bool {
        self.entity.respond(now(), message)
    }

    /// A message of a tester was acknowledged, and cannot be passed on after all.
    pub fn refuse(&mut self, tester: LogicalAddress, target: LogicalAddress, code: DiagnosticNackCode) {
        self.entity.refuse(now(), tester, target, code);
    }

    /// Serves until there is something for whoever has the ECUs; cancel-safe.
    pub async fn next(&mut self) -> Event {
        loop {
            self.drive_outputs().await;
            if let Some(event) = self.entity.poll_event() {
                return event;
            }
            self.deadline.set(self.entity.poll_timeout().map(|(at, _)| at));
            tokio::select! {
                biased;
                () = self.deadline.expired() => self.entity.handle_timeout(now()),
                Some(news) = self.news.recv() => match news {
                    News::Bytes(id, bytes) => self.entity.handle_bytes(now(), id, &bytes),
                    News::Closed(id) => {
                        self.writers.remove(&id);
                        self.entity.handle_closed(now(), id);
                    }
                },
                received = self.udp.recv_from(&mut self.datagram) => {
                    handle_datagram(&mut self.entity, received, &self.datagram);
                }
                received = hear(self.broadcasts.as_ref(), &mut self.broadcast) => {
                    handle_datagram(&mut self.entity, received, &self.broadcast);
                }
                accepted = self.tcp.accept() => self.accept(accepted, false).await,
                accepted = accept_tls(self.tls.as_ref()) => self.accept(accepted, true).await,
                Some(_) = self.tasks.join_next(), if !self.tasks.is_empty() => {}
            }
        }
    }

    async fn accept(&mut self, accepted: io::Result<(TcpStream, SocketAddr)>, tls: bool) {
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // out of file descriptors: others have to end first
                return tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
        self.opened += 1;
        let id = ConnectionId(self.opened);
        let (writer, messages) = mpsc::channel(QUEUE);
        self.writers.insert(id, writer);
        self.entity.handle_connected(now(), id, tls);
        let news = self.newsgivers.clone();
        match self.tls.as_ref().filter(|_| tls).map(|(_, acceptor)| acceptor.clone()) {
            Some(acceptor) => self.tasks.spawn(async move {
                match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => return serve(id, stream, messages, news).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a tester failed at TLS"),
                    Err(_) => tracing::debug!("a tester did not go on with TLS"),
                }
                let _ = news.send(News::Closed(id)).await;
            }),
            None => self.tasks.spawn(serve(id, stream, messages, news)),
        };
    }

    async fn drive_outputs(&mut self) {
        while let Some(output) = self.entity.poll_output(now()) {
            match output {
                Output::Datagram { to, bytes } => self.send_datagram(to, &bytes),
                Output::Broadcast(bytes) => {
                    if let Err(error) = self.udp.try_send_to(&bytes, self.addresses.announce_to) {
                        // listening everywhere, a machine without default route does not know where to broadcast
                        tracing::warn!(%error, to = %self.addresses.announce_to, "not announced; listen at an address of the link");
                    }
                }
                Output::Send { connection, bytes } => {
                    let full =
                        self.writers.get(&connection).is_some_and(|writer| writer.try_send(bytes).is_err());
                    if full {
                        tracing::debug!(?connection, "the tester does not read");
                        self.writers.remove(&connection);
                        self.entity.handle_closed(now(), connection);
                    }
                }
                // what was said before is still written
                Output::Close(connection) => drop(self.writers.remove(&connection)),
            }
        }
    }

    fn send_datagram(&self, to: SocketAddr, bytes: &[u8]) {
        // a datagram that finds no room is lost, as datagrams are
        if let Err(error) = self.udp.try_send_to(bytes, to) {
            tracing::debug!(%error, %to, "a datagram was not sent");
        }
    }
}

async fn hear(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

fn handle_datagram(entity: &mut Entity, received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
    match received {
        Ok((length, from)) => entity.handle_datagram(now(), from, buffer.get(..length).unwrap_or_default()),
        // an ICMP answer to something sent before
        Err(error) => tracing::debug!(%error, "UDP"),
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

async fn accept_tls(
    tls: Option<&(TcpListener, tokio_rustls::TlsAcceptor)>,
) -> io::Result<(TcpStream, SocketAddr)> {
    match tls {
        Some((listener, _)) => listener.accept().await,
        None => std::future::pending().await,
    }
}

/// Both sockets on one port, where none was named: one that is free for TCP may not be for UDP.
async fn bind_both(listen: &ListenConfig) -> io::Result<(TcpListener, UdpSocket)> {
    let may_retry = listen.tcp.port() == 0 && listen.udp_port.is_none();
    let mut attempts = if may_retry { ATTEMPTS } else { 1 };
    loop {
        let tcp = TcpListener::bind(listen.tcp).await?;
        let address = tcp.local_addr()?;
        attempts -= 1;
        match udp_socket(with_port(address, listen.udp_port.unwrap_or(address.port()))) {
            Ok(udp) => return Ok((tcp, udp)),
            Err(error) if attempts == 0 => return Err(error),
            Err(_) => {}
        }
    }
}

/// A socket that several entities on this machine may share, as a vehicle's share its subnet.
fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_ipv4() {
        socket.set_broadcast(true)?;
    }
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// The same host, and the same interface where it is a link-local address.
fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// Where everybody on the subnet hears what is sent to this port.
fn everybody(listening: SocketAddr) -> SocketAddr {
    match listening {
        // the loopback interface has no limited broadcast
        SocketAddr::V4(address) if address.ip().is_loopback() => {
            (Ipv4Addr::new(127, 255, 255, 255), address.port()).into()
        }
        SocketAddr::V4(address) => (Ipv4Addr::BROADCAST, address.port()).into(),
        // the link-local all-nodes address, as IPv6 has no broadcast
        SocketAddr::V6(address) => {
            let all_nodes = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
            SocketAddrV6::new(all_nodes, address.port(), 0, address.scope_id()).into()
        }
    }
}

/// Carries bytes between a connection and the server until one of them is done with it.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    id: ConnectionId,
    mut stream: S,
    mut messages: mpsc::Receiver<Vec<u8>>,
    news: mpsc::Sender<News>,
) {
    let mut buffer = vec![0; READ];
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else {
                    // closed from this side
                    let _ = tokio::time::timeout(CLOSING, stream.shutdown()).await;
                    return;
                };
                let writing = async {
                    stream.write_all(&message).await?;
                    stream.flush().await
                };
                if !matches!(tokio::time::timeout(PATIENCE, writing).await, Ok(Ok(()))) {
                    break;
                }
            }
            read = stream.read(&mut buffer) => match read {
                Ok(0) | Err(_) => break,
                Ok(length) => {
                    let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                    if news.send(News::Bytes(id, bytes)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    let _ = news.send(News::Closed(id)).await;
}
