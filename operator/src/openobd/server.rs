//! The server: address, TLS, and all services.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tower::util::MapRequestLayer;

use super::answers::Answers;
use super::endpoint;
use super::gateway::{Gateway, OpenobdSettings};
use super::proto::can_server::CanServer;
use super::proto::config_server::ConfigServer;
use super::proto::connection_monitor_server::ConnectionMonitorServer;
use super::proto::doip_server::DoipServer;
use super::proto::function_broker_server::FunctionBrokerServer;
use super::proto::function_server::FunctionServer;
use super::proto::kline_server::KlineServer;
use super::proto::logging_server::LoggingServer;
use super::proto::product_info_server::ProductInfoServer;
use super::proto::session_controller_server::SessionControllerServer;
use super::proto::session_server::SessionServer;
use super::proto::terminal15_server::Terminal15Server;
use super::proto::ticket_info_server::TicketInfoServer;
use super::proto::user_interface_server::UserInterfaceServer;
use super::proto::vehicle_info_server::VehicleInfoServer;
use super::services::Service;
use super::ui::Ui;

/// How often an idle client is asked for a sign of life. A client that has gone without a word leaves its session.
const PING: Duration = Duration::from_secs(20);
/// How long the sign of life may take.
const PONG: Duration = Duration::from_secs(10);

/// Why the gateway cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum OpenobdError {
    /// Without TLS, others in the network could read the partner's secret.
    #[error("{0} is not a loopback address, and needs --tls-certificate and --tls-key")]
    Plaintext(SocketAddr),
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error that caused this.
        source: std::io::Error,
    },
    /// The address cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The I/O error that caused this.
        source: std::io::Error,
    },
    /// The certificate or the key cannot be used, or the server failed.
    #[error("cannot serve gRPC: {0}")]
    Serve(String),
}

impl From<tonic::transport::Error> for OpenobdError {
    fn from(error: tonic::transport::Error) -> Self {
        let cause = std::error::Error::source(&error).map(|cause| format!(": {cause}")).unwrap_or_default();
        Self::Serve(format!("{error}{cause}"))
    }
}

/// The files of the server's certificate and key (PEM).
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The certificate, and the intermediate ones.
    pub certificate: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A gateway that listens.
pub struct OpenobdServer {
    gateway: Arc<Gateway>,
    listener: TcpListener,
    address: SocketAddr,
    tls: Option<ServerTlsConfig>,
}

fn read(path: &Path) -> Result<Vec<u8>, OpenobdError> {
    std::fs::read(path).map_err(|source| OpenobdError::Read { path: path.to_owned(), source })
}

impl OpenobdServer {
    /// Listens on an address. Any address but a loopback one needs TLS.
    ///
    /// # Errors
    ///
    /// See [`OpenobdError`].
    pub async fn bind(
        address: SocketAddr,
        tls: Option<&TlsFiles>,
        settings: OpenobdSettings,
        answers: Option<Answers>,
    ) -> Result<Self, OpenobdError> {
        if tls.is_none() && !address.ip().is_loopback() {
            return Err(OpenobdError::Plaintext(address));
        }
        let tls = match tls {
            Some(files) => {
                let identity = Identity::from_pem(read(&files.certificate)?, read(&files.key)?);
                Some(ServerTlsConfig::new().identity(identity))
            }
            None => None,
        };
        let unusable = |source| OpenobdError::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(unusable)?;
        let address = listener.local_addr().map_err(unusable)?;
        Ok(Self { gateway: Gateway::new(settings, Ui::new(answers)), listener, address, tls })
    }

    /// The address, with the port that was chosen for port 0.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `stop` ends, then interrupts all sessions.
    ///
    /// # Errors
    ///
    /// A certificate or key that cannot be used.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), OpenobdError> {
        let Self { gateway, listener, tls, .. } = self;
        let is_tls = tls.is_some();
        let mut server = Server::builder()
            .tcp_nodelay(true)
            .http2_keepalive_interval(Some(PING))
            .http2_keepalive_timeout(Some(PONG))
            .layer(MapRequestLayer::new(move |request| endpoint::keep(request, is_tls)));
        if let Some(tls) = tls {
            server = server.tls_config(tls)?;
        }
        let service = Service { gateway: Arc::clone(&gateway) };
        let router = server
            .add_service(SessionControllerServer::new(service.clone()))
            .add_service(SessionServer::new(service.clone()))
            .add_service(ConfigServer::new(service.clone()))
            .add_service(CanServer::new(service.clone()))
            .add_service(KlineServer::new(service.clone()))
            .add_service(DoipServer::new(service.clone()))
            .add_service(Terminal15Server::new(service.clone()))
            .add_service(ConnectionMonitorServer::new(service.clone()))
            .add_service(VehicleInfoServer::new(service.clone()))
            .add_service(ProductInfoServer::new(service.clone()))
            .add_service(TicketInfoServer::new(service.clone()))
            .add_service(FunctionServer::new(service.clone()))
            .add_service(FunctionBrokerServer::new(service.clone()))
            .add_service(UserInterfaceServer::new(service.clone()))
            .add_service(LoggingServer::new(service));
        let served = tokio::select! {
            served = router.serve_with_incoming(TcpListenerStream::new(listener)) => served,
            () = stop => Ok(()),
        };
        gateway.shut_down().await;
        Ok(served?)
    }
}
