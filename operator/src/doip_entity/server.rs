//! The sockets of an entity: UDP for discovery, and TCP and TLS for testers.

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

/// How many messages to a tester may wait. A tester that leaves more unread loses its connection, because the
/// entity has to serve the other testers.
const QUEUE: usize = 1024;
/// How many events of connections may wait. Until then, the connections are not read. The number only smooths
/// bursts.
const EVENTS: usize = 64;
/// How many bytes one read takes from a connection. The buffer is memory of each connection.
const READ: usize = 16 * 1024;
/// The longest accepted datagram, in bytes: longer than any that fits an Ethernet frame. DoIP datagrams are
/// much shorter.
const DATAGRAM: usize = 2048;
/// How long a closing connection may take to write the remaining messages: as long as a tester waits for an
/// acknowledgement (ISO 13400-2).
const CLOSING: Duration = Duration::from_secs(2);
/// How long a tester may take for the TLS handshake, and to read a message. The value is a compromise: a
/// tester on a slow machine is served, and one that stalls frees its place.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many attempts to find a port that is free for both TCP and UDP. The kernel chooses the port for one of
/// them; the other is rarely in use.
const ATTEMPTS: u32 = 32;

/// The addresses to listen on.
#[derive(Debug, Clone)]
pub struct ListenConfig {
    /// The TCP address. Vehicles use port 13400; 0 selects a free port.
    pub tcp: SocketAddr,
    /// The UDP port on the same address; `None` uses the number of the TCP port.
    pub udp_port: Option<u16>,
    /// The TLS port (3496 in vehicles), and the TLS configuration.
    pub tls: Option<(u16, Arc<ServerConfig>)>,
    /// The destination of announcements; `None` selects port 13400 of the subnet's broadcast address.
    pub announce_to: Option<SocketAddr>,
}

impl ListenConfig {
    /// Listens on this address, without TLS.
    pub fn new(tcp: SocketAddr) -> Self {
        Self { tcp, udp_port: None, tls: None, announce_to: None }
    }
}

/// The addresses that an entity listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerAddresses {
    /// The TCP address.
    pub tcp: SocketAddr,
    /// The UDP address.
    pub udp: SocketAddr,
    /// The TLS address.
    pub tls: Option<SocketAddr>,
    /// The destination of announcements.
    pub announce_to: SocketAddr,
}

/// An event of a connection's task.
enum ConnectionEvent {
    Bytes(ConnectionId, Vec<u8>),
    Closed(ConnectionId),
}

/// The sockets around an [`Entity`]. Dropping the server closes all connections.
pub struct Server {
    entity: Entity,
    addresses: ServerAddresses,
    tcp: TcpListener,
    tls: Option<(TcpListener, tokio_rustls::TlsAcceptor)>,
    udp: UdpSocket,
    /// Receives broadcasts, which a socket bound to a single address does not receive.
    broadcasts: Option<UdpSocket>,
    datagram: Vec<u8>,
    broadcast: Vec<u8>,
    writers: BTreeMap<ConnectionId, mpsc::Sender<Vec<u8>>>,
    tasks: JoinSet<()>,
    events: mpsc::Receiver<ConnectionEvent>,
    event_sender: mpsc::Sender<ConnectionEvent>,
    opened: u64,
    deadline: Deadline,
}

impl Server {
    /// Binds the sockets, then creates the entity, which announces itself immediately.
    ///
    /// # Errors
    ///
    /// The address is in use, or does not belong to this machine.
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
                // testers listen on the standard's port, whatever port the entity uses
                with_port(broadcast_address(udp_address), PORT)
            }),
        };
        let broadcasts = if udp_address.ip().is_unspecified() || udp_address.ip() == Ipv6Addr::LOCALHOST {
            None
        } else {
            let socket = udp_socket(broadcast_address(udp_address));
            socket.inspect_err(|error| tracing::warn!(%error, "cannot receive broadcasts")).ok()
        };
        // wait until the socket is ready, because the first announcement does not wait
        udp.writable().await?;
        let (event_sender, events) = mpsc::channel(EVENTS);
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
            events,
            event_sender,
            opened: 0,
            deadline: Deadline::new(TimerKind::Runtime),
        })
    }

    /// The addresses that the entity listens on.
    pub fn addresses(&self) -> ServerAddresses {
        self.addresses
    }

    /// The entity.
    pub fn entity(&self) -> &Entity {
        &self.entity
    }

    /// The entity, for changes at run time.
    pub fn entity_mut(&mut self) -> &mut Entity {
        &mut self.entity
    }

    /// Sends an ECU's response to a tester. Returns `false` if the tester has disconnected.
    pub fn respond(&mut self, message: DiagnosticMessage) -> bool {
        self.entity.respond(now(), message)
    }

    /// Refuses a message that was acknowledged before.
    pub fn refuse(&mut self, tester: LogicalAddress, target: LogicalAddress, code: DiagnosticNackCode) {
        self.entity.refuse(now(), tester, target, code);
    }

    /// Serves testers until there is an event for the owner of the ECUs; cancel-safe.
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
                Some(event) = self.events.recv() => match event {
                    ConnectionEvent::Bytes(id, bytes) => self.entity.handle_bytes(now(), id, &bytes),
                    ConnectionEvent::Closed(id) => {
                        self.writers.remove(&id);
                        self.entity.handle_closed(now(), id);
                    }
                },
                received = self.udp.recv_from(&mut self.datagram) => {
                    handle_datagram(&mut self.entity, received, &self.datagram);
                }
                received = receive_broadcast(self.broadcasts.as_ref(), &mut self.broadcast) => {
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
                // without free file descriptors, other connections have to end first
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
        let events = self.event_sender.clone();
        match self.tls.as_ref().filter(|_| tls).map(|(_, acceptor)| acceptor.clone()) {
            Some(acceptor) => self.tasks.spawn(async move {
                match tokio::time::timeout(PATIENCE, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => return serve(id, stream, messages, events).await,
                    Ok(Err(error)) => tracing::debug!(%error, "the TLS handshake failed"),
                    Err(_) => tracing::debug!("the TLS handshake took too long"),
                }
                let _ = events.send(ConnectionEvent::Closed(id)).await;
            }),
            None => self.tasks.spawn(serve(id, stream, messages, events)),
        };
    }

    async fn drive_outputs(&mut self) {
        while let Some(output) = self.entity.poll_output(now()) {
            match output {
                Output::Datagram { to, bytes } => self.send_datagram(to, &bytes),
                Output::Broadcast(bytes) => {
                    if let Err(error) = self.udp.try_send_to(&bytes, self.addresses.announce_to) {
                        // on a wildcard address, a machine without a default route has no interface for
                        // broadcasts
                        tracing::warn!(%error, to = %self.addresses.announce_to, "cannot send the announcement; listen on an address of the interface");
                    }
                }
                Output::Send { connection, bytes } => {
                    let full =
                        self.writers.get(&connection).is_some_and(|writer| writer.try_send(bytes).is_err());
                    if full {
                        tracing::debug!(?connection, "the tester does not read its messages");
                        self.writers.remove(&connection);
                        self.entity.handle_closed(now(), connection);
                    }
                }
                // the connection's task still writes the earlier messages
                Output::Close(connection) => drop(self.writers.remove(&connection)),
            }
        }
    }

    fn send_datagram(&self, to: SocketAddr, bytes: &[u8]) {
        // a datagram without room is lost
        if let Err(error) = self.udp.try_send_to(bytes, to) {
            tracing::debug!(%error, %to, "a datagram was not sent");
        }
    }
}

async fn receive_broadcast(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

fn handle_datagram(entity: &mut Entity, received: io::Result<(usize, SocketAddr)>, buffer: &[u8]) {
    match received {
        Ok((length, from)) => entity.handle_datagram(now(), from, buffer.get(..length).unwrap_or_default()),
        // an ICMP error for an earlier datagram
        Err(error) => tracing::debug!(%error, "cannot receive a datagram"),
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

/// Binds both sockets. If no port is given, tries until one is free for both TCP and UDP.
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

/// A UDP socket whose address several entities on this machine can share.
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

/// The address with another port, and with the scope of a link-local address.
fn with_port(mut address: SocketAddr, port: u16) -> SocketAddr {
    address.set_port(port);
    address
}

/// The broadcast address of the subnet, with this port.
fn broadcast_address(listening: SocketAddr) -> SocketAddr {
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

/// Carries bytes between a connection and the server until either side ends.
async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    id: ConnectionId,
    mut stream: S,
    mut messages: mpsc::Receiver<Vec<u8>>,
    events: mpsc::Sender<ConnectionEvent>,
) {
    let mut buffer = vec![0; READ];
    loop {
        tokio::select! {
            message = messages.recv() => {
                let Some(message) = message else {
                    // the server closed the connection
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
                    if events.send(ConnectionEvent::Bytes(id, bytes)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
    let _ = events.send(ConnectionEvent::Closed(id)).await;
}
