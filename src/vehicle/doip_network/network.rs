//! What DoIP needs of a network: datagrams to and from everybody on the link, and connections.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use connector_hal::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::protocol::doip::discovery::Destination;

/// A connection's bytes, by TCP or TLS.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Why there is no connection with a gateway.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No TCP connection.
    #[error("no TCP connection to {address}: {source}")]
    Tcp {
        /// The gateway.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The gateway did not answer in time.
    #[error("{0} did not answer in time")]
    Timeout(SocketAddr),
    /// No TLS.
    #[error("no TLS with {address}: {source}")]
    Tls {
        /// The gateway.
        address: SocketAddr,
        /// Why; rustls has neither NULL ciphers nor brainpool curves.
        source: io::Error,
    },
    /// TLS was not set up.
    #[error("TLS is not set up: {0}")]
    NoTls(String),
}

/// Why there is no network.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{device}: {problem}")]
pub struct LinkError {
    /// The device, as the configuration names it.
    pub device: String,
    /// What is wrong.
    pub problem: String,
}

/// The network behind DoIP's pins.
pub trait Network: Send {
    /// Whom questions for everybody are sent to.
    fn everybody(&self) -> Vec<Destination>;

    /// The next datagram, and whose it is; the rest of one that is longer than the buffer is lost.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<(usize, SocketAddr)>>;

    /// Sends a datagram, or loses it where the network can't take it now.
    fn send(&mut self, destination: Destination, datagram: &[u8]) -> io::Result<()>;

    /// Connects to a gateway, in three seconds at most; by TLS to its port for that.
    fn connect(
        &self,
        gateway: SocketAddr,
        tls: bool,
    ) -> BoxFuture<'static, Result<Box<dyn Stream>, ConnectError>>;
}
