//! One attempt to connect to a gateway: TCP, and then TLS where it is used.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::time::Duration;

use connector_hal::ethernet::Interface;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::SockRef;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::off_thread::off_thread;
use super::sockets::bind_to;
use crate::vehicle::doip_network::network::{GatewayConnectError, Stream};

/// The longest time for a TCP connection, and then for the TLS handshake. The kernel repeats a lost SYN after
/// 1 s; the time is for one repetition and a slow gateway.
const CONNECT_TIME: Duration = Duration::from_secs(3);
/// A connection is lost when bytes are not acknowledged for this long. The value is S3 (ISO 14229-2), after which the
/// ECUs have left their session: a shorter interruption of the cable loses no session.
const USER_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects to a gateway, with TLS if there is a TLS configuration.
pub(super) async fn connect(
    address: SocketAddr,
    interface: Option<Interface>,
    tls: Option<Arc<ClientConfig>>,
) -> Result<Box<dyn Stream>, GatewayConnectError> {
    let stream = timeout(CONNECT_TIME, tcp(address, interface.as_ref()))
        .await
        .map_err(|_| GatewayConnectError::Timeout(address))?
        .map_err(|source| GatewayConnectError::Tcp { address, source })?;
    let Some(tls) = tls else { return Ok(Box::new(stream)) };
    // the name in the certificate does not matter: gateways have no names (see `tls::gateway`)
    let name = ServerName::IpAddress(address.ip().into());
    let stream = timeout(CONNECT_TIME, TlsConnector::from(tls).connect(name, stream))
        .await
        .map_err(|_| GatewayConnectError::Timeout(address))?
        .map_err(|source| GatewayConnectError::Tls { address, source })?;
    Ok(Box::new(stream))
}

async fn tcp(address: SocketAddr, interface: Option<&Interface>) -> io::Result<TcpStream> {
    let own = interface.cloned();
    let opening = off_thread(move || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(interface) = own {
            bind_to(&socket, &interface)?;
        }
        Ok(socket)
    });
    let socket = opening.await?;
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
