//! The UDP sockets of a network: some ask questions, some listen to announcements.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::task::{Context, Poll};

use connector_hal::ethernet::Interface;
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, SockRef, Socket, Type};
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

use crate::config::doip::{InterfaceAddressing, NetworkConfig};
use crate::protocol::doip::PORT;

/// The purpose for which a network is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To listen to announcements. Nothing is switched on, set up or sent.
    Listen,
    /// To communicate with gateways.
    Talk,
}

pub(super) struct Sockets {
    /// Sockets that send questions and receive the answers.
    requests: Vec<UdpSocket>,
    /// Sockets that receive announcements.
    announcements: Vec<UdpSocket>,
}

impl Sockets {
    /// Opens the sockets for one host, or for all hosts on an interface.
    pub(super) fn open(
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
        let mut last_error = None;
        let by_v6_only = network.addressing == InterfaceAddressing::Ipv6LinkLocal;
        for domain in [Domain::IPV4, Domain::IPV6] {
            if domain == Domain::IPV4 && by_v6_only {
                continue;
            }
            match bind(domain, PORT, interface) {
                Ok(socket) => announcements.push(socket),
                Err(error) => {
                    tracing::info!(?domain, %error, "cannot listen to announcements at port {PORT}");
                    last_error = Some(error);
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
            return Err(last_error.unwrap_or_else(|| io::ErrorKind::AddrInUse.into()));
        }
        Ok(Self { requests, announcements })
    }

    /// The length and the sender of the next datagram.
    pub(super) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>> {
        for socket in self.requests.iter().chain(&self.announcements) {
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

    /// Sends a datagram by the socket of the address's family.
    pub(super) fn send(&self, to: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let is_same_family =
            |socket: &&UdpSocket| socket.local_addr().is_ok_and(|local| local.is_ipv4() == to.is_ipv4());
        match self.requests.iter().find(is_same_family) {
            // bypasses the runtime, which does not know yet that a new socket is writable
            Some(socket) => rustix::net::sendto(socket, datagram, SendFlags::DONTWAIT, &to)
                .map(|_| ())
                .map_err(io::Error::from),
            None => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

/// A socket at this port, which other programs may use too. The socket is bound to the interface.
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
        bind_to(&socket, interface)?;
    }
    socket.bind(&any.into())?;
    UdpSocket::from_std(socket.into())
}

/// Restricts a socket to this interface.
///
/// # Errors
///
/// The system forbids that, and there are other interfaces to which the socket would be open too.
pub(super) fn bind_to<'s>(socket: impl Into<SockRef<'s>>, interface: &Interface) -> io::Result<()> {
    match socket.into().bind_device(Some(interface.name().as_bytes())) {
        Ok(()) => Ok(()),
        Err(error) => accept_unbound(&error, &interface.others()?),
    }
}

/// Accepts a socket that could not be bound to its interface only if there is no other interface.
fn accept_unbound(error: &io::Error, others: &[String]) -> io::Result<()> {
    if others.is_empty() {
        tracing::debug!(%error, "a socket cannot be bound to the only interface");
        return Ok(());
    }
    let fix = "give the agent CAP_NET_RAW, or use Linux 5.7 or later";
    let others = others.join(", ");
    let problem =
        format!("a socket cannot be bound to the interface ({error}), and would be open to {others}; {fix}");
    Err(io::Error::new(error.kind(), problem))
}

fn concerns_a_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, HostUnreachable, NetworkUnreachable};
    matches!(error.kind(), ConnectionRefused | HostUnreachable | NetworkUnreachable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_cannot_be_bound_is_an_error_if_there_are_other_interfaces() {
        let forbidden = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(accept_unbound(&forbidden, &[]).is_ok());
        let error = accept_unbound(&forbidden, &["wlan0".to_owned(), "wwan0".to_owned()]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("open to wlan0, wwan0; give the agent CAP_NET_RAW"), "{error}");
    }

    #[tokio::test]
    async fn every_socket_of_an_interface_is_bound_to_it() {
        let loopback = Interface::find("lo").unwrap();
        let sockets = Sockets::open(Some(&loopback), None, &NetworkConfig::known(1), Purpose::Talk).unwrap();
        for socket in sockets.requests.iter().chain(&sockets.announcements) {
            assert_eq!(SockRef::from(socket).device().unwrap(), Some(b"lo".to_vec()));
        }
    }
}
