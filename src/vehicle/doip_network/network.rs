//! The network that DoIP needs: datagrams to and from all hosts on the link, and connections.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use connector_hal::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::protocol::doip::discovery::Destination;

/// The byte stream of a connection, by TCP or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The reason why a gateway could not be connected.
#[derive(Debug, thiserror::Error)]
pub enum GatewayConnectError {
    /// The TCP connection failed.
    #[error("no TCP connection to {address}: {source}")]
    Tcp {
        /// The gateway's address.
        address: SocketAddr,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The gateway did not answer in time.
    #[error("{0} did not answer in time")]
    Timeout(SocketAddr),
    /// TLS failed.
    #[error("no TLS with {address}: {source}")]
    Tls {
        /// The gateway's address.
        address: SocketAddr,
        /// The error that caused this. rustls has neither NULL ciphers nor brainpool curves.
        source: io::Error,
    },
    /// TLS is not configured.
    #[error("TLS is not set up: {0}")]
    NoTls(String),
}

/// The reason why a network cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{device}: {problem}")]
pub struct NetworkError {
    /// The device, as the configuration names it.
    pub device: String,
    /// The problem, in words.
    pub problem: String,
}

/// The network behind the pins of DoIP.
pub trait Network: Send {
    /// The destinations of a question to all gateways.
    fn destinations(&self) -> Vec<Destination>;

    /// The length and the sender of the next datagram. The part of a datagram that exceeds the buffer is
    /// lost.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>>;

    /// The last host that does not belong to the network and sent a datagram, since the last call. Such datagrams are
    /// dropped.
    fn take_foreign(&mut self) -> Option<SocketAddr> {
        None
    }

    /// Sends a datagram, or drops it if the network cannot take it now.
    fn send(&mut self, destination: Destination, datagram: &[u8]) -> io::Result<()>;

    /// Connects to a gateway within three seconds; by TLS to the gateway's TLS port.
    fn connect(
        &self,
        gateway: SocketAddr,
        tls: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, GatewayConnectError>>;
}
