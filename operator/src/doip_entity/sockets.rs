//! The sockets of an entity: UDP for discovery, and listeners for testers by TCP and TLS.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use connector_agent::protocol::doip::PORT;
use rustls::ServerConfig;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

/// The longest accepted datagram, in bytes: longer than any that fits an Ethernet frame. DoIP datagrams are
/// much shorter.
const DATAGRAM: usize = 2048;
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

/// What arrives at the sockets.
pub(super) enum Arrival<'a> {
    /// A datagram from this address.
    Datagram(SocketAddr, &'a [u8]),
    /// A connection of a tester, and what accepts its TLS, if it uses TLS.
    Tester(TcpStream, Option<TlsAcceptor>),
}

pub(super) struct Sockets {
    addresses: ServerAddresses,
    tcp: TcpListener,
    tls: Option<(TcpListener, TlsAcceptor)>,
    udp: UdpSocket,
    /// Receives broadcasts, which a socket bound to a single address does not receive.
    broadcasts: Option<UdpSocket>,
    datagram: Vec<u8>,
    broadcast: Vec<u8>,
}

impl Sockets {
    /// Binds the sockets.
    pub(super) async fn bind(listen: &ListenConfig) -> io::Result<Self> {
        let (tcp, udp) = bind_both(listen).await?;
        let address = tcp.local_addr()?;
        let tls = match &listen.tls {
            Some((port, config)) => {
                let listener = TcpListener::bind(with_port(address, *port)).await?;
                Some((listener, TlsAcceptor::from(Arc::clone(config))))
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
        let (datagram, broadcast) = (vec![0; DATAGRAM], vec![0; DATAGRAM]);
        Ok(Self { addresses, tcp, tls, udp, broadcasts, datagram, broadcast })
    }

    pub(super) fn addresses(&self) -> ServerAddresses {
        self.addresses
    }

    /// The next datagram or connection; cancel-safe.
    ///
    /// # Errors
    ///
    /// A connection cannot be accepted.
    pub(super) async fn next(&mut self) -> io::Result<Arrival<'_>> {
        let (received, is_broadcast) = loop {
            let (received, is_broadcast) = tokio::select! {
                biased;
                received = self.udp.recv_from(&mut self.datagram) => (received, false),
                received = receive_broadcast(self.broadcasts.as_ref(), &mut self.broadcast) => (received, true),
                accepted = self.tcp.accept() => return Ok(Arrival::Tester(accepted?.0, None)),
                accepted = accept_tls(self.tls.as_ref()) => {
                    let (stream, acceptor) = accepted?;
                    return Ok(Arrival::Tester(stream, Some(acceptor)));
                }
            };
            match received {
                Ok(received) => break (received, is_broadcast),
                // an ICMP error for an earlier datagram
                Err(error) => tracing::debug!(%error, "cannot receive a datagram"),
            }
        };
        let (length, from) = received;
        let buffer = if is_broadcast { &self.broadcast } else { &self.datagram };
        Ok(Arrival::Datagram(from, buffer.get(..length).unwrap_or_default()))
    }

    /// Sends a datagram. A datagram without room is lost.
    pub(super) fn send(&self, to: SocketAddr, bytes: &[u8]) {
        if let Err(error) = self.udp.try_send_to(bytes, to) {
            tracing::debug!(%error, %to, "a datagram was not sent");
        }
    }

    /// Sends an announcement.
    pub(super) fn announce(&self, bytes: &[u8]) {
        let to = self.addresses.announce_to;
        if let Err(error) = self.udp.try_send_to(bytes, to) {
            // on a wildcard address, a machine without a default route has no interface for broadcasts
            tracing::warn!(%error, %to, "cannot send the announcement; listen on an address of the interface");
        }
    }
}

async fn receive_broadcast(socket: Option<&UdpSocket>, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

async fn accept_tls(tls: Option<&(TcpListener, TlsAcceptor)>) -> io::Result<(TcpStream, TlsAcceptor)> {
    match tls {
        Some((listener, acceptor)) => Ok((listener.accept().await?.0, acceptor.clone())),
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
