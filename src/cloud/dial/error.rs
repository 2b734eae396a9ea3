//! Why there is no transport to the cloud.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

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
    /// The proxy cannot be reached.
    #[error("no connection to the proxy {proxy}")]
    NoProxy {
        /// The proxy.
        proxy: String,
        /// Why there is no connection to it.
        source: Box<DialError>,
    },
    /// The proxy gave no tunnel to the host.
    #[error("the proxy {proxy} gave no tunnel to {target}")]
    Proxy {
        /// The proxy.
        proxy: String,
        /// The host and port to which the tunnel was to lead.
        target: String,
        /// What the proxy answered.
        source: ProxyError,
    },
}

impl DialError {
    /// Whether other addresses of the host need not be tried: a proxy has answered.
    pub(super) fn is_final(&self) -> bool {
        let answers = |source: &ProxyError| {
            matches!(source, ProxyError::Credentials { .. } | ProxyError::Refused { .. })
        };
        matches!(self, Self::Proxy { source, .. } if answers(source))
    }

    /// Whether there was not even a TCP connection.
    pub(super) fn is_without_connection(&self) -> bool {
        matches!(self, Self::NoHost(_) | Self::Resolve { .. } | Self::Tcp { .. } | Self::NoProxy { .. })
    }

    /// How long a proxy asks to wait.
    pub(in crate::cloud) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Proxy { source: ProxyError::Refused { retry_after, .. }, .. } => *retry_after,
            _ => None,
        }
    }
}

/// What a proxy did instead of opening a tunnel.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The proxy requires credentials, or others than those of the configuration.
    #[error("it answered 407 Proxy Authentication Required; {}", credentials_fix(*.had_credentials))]
    Credentials {
        /// Whether the agent sent credentials.
        had_credentials: bool,
    },
    /// The proxy refused.
    #[error("it answered {status}")]
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// How long the proxy asks to wait.
        retry_after: Option<Duration>,
    },
    /// The answer is longer than allowed.
    #[error("the head of its answer is longer than {0} bytes")]
    TooLong(usize),
    /// The answer is not HTTP, or more than an answer.
    #[error("its answer is not one to CONNECT")]
    Malformed,
    /// The proxy did not answer in time.
    #[error("it did not answer within {0:?}")]
    Silent(Duration),
    /// The connection to the proxy broke.
    #[error("the connection to it broke")]
    Broken(#[source] io::Error),
}

fn credentials_fix(had_credentials: bool) -> &'static str {
    match had_credentials {
        true => "correct user and password in the file of cloud.proxy_credentials_file",
        false => "set cloud.proxy_credentials_file",
    }
}
