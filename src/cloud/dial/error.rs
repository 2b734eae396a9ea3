//! Why there is no transport to the cloud.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// Why there is no transport to the cloud.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL has no host.
    #[error("{0} names no host")]
    NoHost(String),
    /// The host name could not be resolved.
    #[error("cannot resolve the name {host}")]
    Resolve {
        /// The host name.
        host: String,
        /// The I/O error that caused this.
        source: Arc<io::Error>,
    },
    /// The TCP connection failed, to this address and to all others of the host.
    #[error("no connection to {address}")]
    Tcp {
        /// The address tried last.
        address: SocketAddr,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The TLS handshake failed, most likely because the certificate is not trusted.
    #[error("the TLS handshake with {host} failed")]
    Tls {
        /// The name that the certificate must have.
        host: String,
        /// The I/O error that caused this.
        source: io::Error,
    },
}
