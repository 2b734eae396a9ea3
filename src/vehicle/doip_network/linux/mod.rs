//! The DoIP network on Linux: an interface or one host, its address, and its sockets.

mod claim;
mod dhcp;
mod link;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use connector_hal::board::{Activation, ActivationLine};
use connector_hal::ethernet::Interface;
use connector_hal::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::{TcpSocket, UdpSocket};
use tokio_rustls::TlsConnector;

use crate::config::doip::{DiscoveryMethod, DoipConfig, InterfaceAddressing, NetworkConfig};
use crate::config::doip_device;
use crate::config::doip_device::DoipDevice;
use crate::protocol::doip::PORT;
use crate::protocol::doip::discovery::Destination;
use crate::tls::gateway as tls;
use crate::vehicle::doip_network::network::{GatewayConnectError, Network, NetworkError, Stream};
pub use claim::AddressClaims;
use dhcp::DhcpClients;

/// The longest time for a TCP connection, and then for the TLS handshake. The kernel repeats a lost SYN after
/// 1 s; the time is for one repetition and a slow gateway.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// A connection is lost when bytes are not acknowledged for this long: S3 (ISO 14229-2), after which the ECUs
/// have left their session, so that a shorter interruption of the cable costs nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// The purpose for which a network is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To listen to announcements. Nothing is switched on, set up or sent.
    Listen,
    /// To communicate with gateways.
    Talk,
}

/// Opens networks on this machine, and keeps claimed addresses for the next time.
pub struct LinuxNetworks {
    config: Arc<DoipConfig>,
    activation: Option<ActivationLine>,
    claims: AddressClaims,
    dhcp: DhcpClients,
}

impl LinuxNetworks {
    /// Networks with this configuration and the board's activation line.
    pub fn new(config: Arc<DoipConfig>, activation: Option<ActivationLine>) -> Self {
        Self { config, activation, claims: AddressClaims::default(), dhcp: DhcpClients::default() }
    }

    /// Opens the network behind a device. The interface gets the address of the network configuration.
    pub async fn open(
        &self,
        device: &DoipDevice,
        network: &NetworkConfig,
        purpose: Purpose,
    ) -> Result<LinuxNetwork, NetworkError> {
        let failed = |problem: String| NetworkError { device: device.to_string(), problem };
        let activation = (purpose == Purpose::Talk)
            .then(|| self.activation.as_ref().map(ActivationLine::activate))
            .flatten();
        let tls = match tls::client_config(&self.config.tls) {
            Ok(Some(client)) => Ok(client),
            Ok(None) => Err("no certificates are trusted; set doip.tls.ca_file".to_owned()),
            Err(error) => Err(error.to_string()),
        };
        let no_interface = |_| failed("there is no such interface; `ip link` lists them".to_owned());
        let (interface, host) = match device {
            DoipDevice::Host(host) => (None, Some(*host)),
            DoipDevice::LinkLocalHost { ip, port, interface } => {
                let index = doip_device::scope_id(interface).map_err(no_interface)?;
                (None, Some(SocketAddrV6::new(*ip, *port, 0, index).into()))
            }
            DoipDevice::Interface(name) => {
                let interface = Interface::find(name).map_err(no_interface)?;
                if purpose == Purpose::Talk {
                    let prepared = link::prepare(&interface, network, &self.config, &self.claims, &self.dhcp);
                    prepared.await.map_err(failed)?;
                }
                (Some(interface), None)
            }
        };
        let sockets = Sockets::open(interface.as_ref(), host, network, purpose)
            .map_err(|error| failed(format!("no UDP socket: {error}")))?;
        let tls = (tls, self.config.tls.port);
        Ok(LinuxNetwork {
            sockets,
            interface,
            host,
            discovery: network.discovery.clone(),
            tls,
            _activation: activation,
        })
    }
}

/// A network on this machine.
pub struct LinuxNetwork {
    sockets: Sockets,
    interface: Option<Interface>,
    host: Option<SocketAddr>,
    discovery: Vec<DiscoveryMethod>,
    tls: (Result<Arc<ClientConfig>, String>, u16),
    _activation: Option<Activation>,
}

struct Sockets {
    /// Sockets that send questions and receive the answers.
    requests: Vec<UdpSocket>,
    /// Sockets that receive announcements.
    announcements: Vec<UdpSocket>,
}

impl Sockets {
    fn open(
        interface: Option<&Interface>,
        host: Option<SocketAddr>,
        network: &NetworkConfig,
        purpose: Purpose,
    ) -> io::Result<Self> {
        let (mut requests, mut announcements) = (Vec::new(), Vec::new());
        if let Some(host) = host {
            let any = if host.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
            requests.push(bind(any, 0, None)?);
            return Ok(Self { requests, announcements });
        }
        let by_v6_only = network.addressing == InterfaceAddressing::Ipv6LinkLocal;
        for domain in [Domain::IPV4, Domain::IPV6] {
            if domain == Domain::IPV4 && by_v6_only {
                continue;
            }
            match bind(domain, PORT, interface) {
                Ok(socket) => announcements.push(socket),
                Err(error) => {
                    tracing::info!(?domain, %error, "cannot listen to announcements at port {PORT}")
                }
            }
            if purpose == Purpose::Talk {
                match bind(domain, 0, interface) {
                    Ok(socket) => requests.push(socket),
                    // a machine without IPv6 has no such sockets
                    Err(error) if domain == Domain::IPV6 && !by_v6_only => {
                        tracing::debug!(%error, "cannot send questions by IPv6");
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if requests.is_empty() && announcements.is_empty() {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        Ok(Self { requests, announcements })
    }
}

/// A socket at this port, which other programs may use too. The socket is bound to the interface if the
/// system permits it.
fn bind(domain: Domain, port: u16, interface: Option<&Interface>) -> io::Result<UdpSocket> {
    let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    let any: SocketAddr = if domain == Domain::IPV4 {
        socket.set_broadcast(true)?;
        (Ipv4Addr::UNSPECIFIED, port).into()
    } else {
        socket.set_only_v6(true)?;
        (Ipv6Addr::UNSPECIFIED, port).into()
    };
    if port != 0 {
        socket.set_reuse_address(true)?;
    }
    if let Some(interface) = interface {
        bind_to(&socket, interface);
    }
    socket.bind(&any.into())?;
    UdpSocket::from_std(socket.into())
}

/// Restricts a socket to this interface. If the system forbids that, routes decide.
fn bind_to<'s>(socket: impl Into<SockRef<'s>>, interface: &Interface) {
    if let Err(error) = socket.into().bind_device(Some(interface.name().as_bytes())) {
        tracing::debug!(interface = interface.name(), %error, "a socket cannot be bound to the interface");
    }
}

impl Network for LinuxNetwork {
    fn destinations(&self) -> Vec<Destination> {
        if let Some(host) = self.host {
            return vec![Destination::Host(host)];
        }
        let destination = |method: &DiscoveryMethod| match method {
            DiscoveryMethod::Announcement => None,
            DiscoveryMethod::Broadcast => Some(Destination::Broadcast),
            DiscoveryMethod::Multicast => Some(Destination::Multicast),
        };
        self.discovery.iter().filter_map(destination).collect()
    }

    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        for socket in self.sockets.requests.iter().chain(&self.sockets.announcements) {
            let mut into = ReadBuf::new(buffer);
            match socket.poll_recv_from(cx, &mut into) {
                Poll::Ready(Ok(from)) => return Poll::Ready(Ok((into.filled().len(), from))),
                // an ICMP error about one host does not end the socket
                Poll::Ready(Err(error)) if concerns_a_peer(&error) => cx.waker().wake_by_ref(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn send(&mut self, destination: Destination, datagram: &[u8]) -> io::Result<()> {
        let to: SocketAddr = match destination {
            Destination::Broadcast => (Ipv4Addr::BROADCAST, PORT).into(),
            Destination::Multicast => {
                let index = self.interface.as_ref().map_or(0, Interface::index);
                let all_nodes = Ipv6Addr::new(0xFF02, 0, 0, 0, 0, 0, 0, 1);
                SocketAddrV6::new(all_nodes, PORT, 0, index).into()
            }
            Destination::Host(host) => host,
        };
        let is_same_family =
            |socket: &&UdpSocket| socket.local_addr().is_ok_and(|local| local.is_ipv4() == to.is_ipv4());
        match self.sockets.requests.iter().find(is_same_family) {
            // bypasses the runtime, which does not know yet that a new socket is writable
            Some(socket) => rustix::net::sendto(socket, datagram, rustix::net::SendFlags::DONTWAIT, &to)
                .map(|_| ())
                .map_err(io::Error::from),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }

    fn connect(
        &self,
        gateway: SocketAddr,
        tls: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>> {
        let (client, port) = self.tls.clone();
        let mut address = gateway;
        if tls {
            address.set_port(port);
        }
        let interface = self.interface.clone();
        Box::pin(async move {
            let connector = match client {
                Ok(client) => Some(TlsConnector::from(client)).filter(|_| tls),
                Err(error) if tls => return Err(GatewayConnectError::NoTls(error)),
                Err(_) => None,
            };
            let stream = tokio::time::timeout(CONNECT_TIME, connect(address, interface.as_ref()))
                .await
                .map_err(|_| GatewayConnectError::Timeout(address))?
                .map_err(|source| GatewayConnectError::Tcp { address, source })?;
            let Some(connector) = connector else { return Ok(Box::new(stream) as Box<dyn Stream>) };
            // the name in the certificate does not matter: gateways have no names (see `tls::gateway`)
            let name = ServerName::IpAddress(address.ip().into());
            let stream = tokio::time::timeout(CONNECT_TIME, connector.connect(name, stream))
                .await
                .map_err(|_| GatewayConnectError::Timeout(address))?
                .map_err(|source| GatewayConnectError::Tls { address, source })?;
            Ok(Box::new(stream) as Box<dyn Stream>)
        })
    }
}

fn concerns_a_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

async fn connect(address: SocketAddr, interface: Option<&Interface>) -> io::Result<tokio::net::TcpStream> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(interface) = interface {
        bind_to(&socket, interface);
    }
    let address = match (address.ip(), interface) {
        (IpAddr::V6(ip), Some(interface)) if ip.is_unicast_link_local() => {
            SocketAddrV6::new(ip, address.port(), 0, interface.index()).into()
        }
        _ => address,
    };
    let stream = socket.connect(address).await?;
    stream.set_nodelay(true)?;
    SockRef::from(&stream).set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    Ok(stream)
}
