//! The server: one TLS port, all services behind it, its start and its shutdown.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::certificates::{self, CertificateError};
use super::hub::{Hub, RelayPlan};
use super::store::{ConnectorSeed, Read as _, Role, Store, StoreError, Subject, Ticket, TicketState};
use super::tokens::Signer;
use super::{random, rest};

/// Limit of simultaneous TCP connections, including websockets until they are upgraded.
const MAX_CONNECTIONS: usize = 512;
/// Limit of simultaneous websockets.
const MAX_SOCKETS: usize = 512;
/// Limit for a TLS handshake.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Limit for a request's header, and thereby for an idle connection.
const HEADER: Duration = Duration::from_secs(60);
/// Limit for a request, including its body.
const REQUEST: Duration = Duration::from_secs(60);
/// Limit of a request's header, in bytes.
const MAX_HEADER: usize = 32 * 1024;
/// Limit of the header lines of a request.
const MAX_HEADERS: usize = 64;
/// Limit for sockets to close in order at the shutdown.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// The configuration of a sandbox cloud.
#[derive(Debug, Clone)]
pub struct CloudConfig {
    /// Address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Directory of the state; created if it does not exist. Two clouds cannot share one.
    pub state: PathBuf,
    /// The known connectors. If the list is empty, the cloud creates one connector and stores it.
    pub connectors: Vec<ConnectorSeed>,
    /// Lifetime of access tokens.
    pub token_lifetime: Duration,
    /// Time that a connection outlives a lost link; at most 300 s.
    pub hold: Duration,
}

impl CloudConfig {
    /// A cloud on a free port of the loopback address, with the defaults.
    pub fn local(state: impl Into<PathBuf>) -> Self {
        Self {
            listen: "127.0.0.1:0".to_owned(),
            state: state.into(),
            connectors: Vec::new(),
            token_lifetime: Duration::from_secs(3600),
            hold: Duration::from_secs(30),
        }
    }
}

/// The reasons why the cloud does not start.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The state cannot be used.
    #[error("cannot use the state directory")]
    Store(#[from] StoreError),
    /// The server has no certificate.
    #[error("cannot serve TLS")]
    Certificate(#[from] CertificateError),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: String,
        /// The I/O error that caused this.
        #[source]
        source: std::io::Error,
    },
}

/// Credentials for the client-credentials grant.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// The client's id.
    pub client_id: String,
    /// The client's secret.
    pub client_secret: String,
}

/// The state that requests share.
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) signer: Signer,
    pub(crate) hub: Arc<Hub>,
    pub(crate) catalogue: rest::Catalogue,
    pub(crate) api_url: String,
    pub(crate) sockets: Arc<Semaphore>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// The number of logins with a pincode, right or wrong.
    pub(crate) pincode_logins: Arc<AtomicU64>,
    /// The number of times that connectors came online.
    pub(crate) hellos: watch::Sender<u64>,
}

/// Shared access to the state.
pub(crate) type App = Arc<Inner>;

/// A running sandbox cloud. Dropping it stops the cloud without waiting.
#[derive(Debug)]
pub struct Cloud {
    /// The URL of the REST API, such as `https://127.0.0.1:8443`.
    pub api_url: String,
    /// The URL of the websocket, such as `wss://127.0.0.1:8443/ws`.
    pub websocket_url: String,
    /// The certificate authority that clients have to trust, as PEM.
    pub ca_file: PathBuf,
    /// The address that the server listens on.
    pub address: SocketAddr,
    /// The first connector's number.
    pub connector_id: i64,
    /// The first connector's UUID.
    pub connector_uuid: uuid::Uuid,
    /// The first connector's pincode.
    pub connector_pincode: String,
    /// The operator's credentials.
    pub operator: Credentials,
    /// The customer's credentials.
    pub customer: Credentials,
    /// The customer's number.
    pub customer_id: i64,
    /// A one-time password of the customer; new at every start.
    pub customer_otp: String,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    pincode_logins: Arc<AtomicU64>,
    hellos: watch::Receiver<u64>,
    signer: Signer,
}

impl Cloud {
    /// Starts a cloud. The cloud is ready when this returns.
    ///
    /// # Errors
    ///
    /// Returns an error if the state directory or the address cannot be used.
    pub async fn start(config: CloudConfig) -> Result<Self, CloudError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&config.state)
            .map_err(|source| StoreError::File { path: config.state.clone(), source })?;
        let store = Store::open(&config.state.join("state.redb"))?;
        let seeds = config.connectors;
        let customer_otp = random::voucher(12);
        let otp = customer_otp.clone();
        let (connector, operator, customer, key) = store
            .change(move |change| {
                let connector = change.seed_connectors(&seeds)?;
                let operator = change.seed_account(Role::Operator)?;
                let customer = change.seed_account(Role::Customer)?;
                change.add_one_time_password(&otp, Subject::account(&customer))?;
                let key = match change.setting("signing-key")? {
                    Some(key) => key,
                    None => {
                        let mut key = vec![0; 32];
                        random::fill(&mut key);
                        change.set_setting("signing-key", &key)?;
                        key
                    }
                };
                Ok::<_, StoreError>((connector, operator, customer, key))
            })
            .await?;

        let listen_error = |source| CloudError::Listen { address: config.listen.clone(), source };
        let listener = TcpListener::bind(&config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let host = config.listen.rsplit_once(':').map_or("", |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let tls = certificates::server_tls(&config.state, &certificates::names(host))?;
        let authority = match host.parse::<std::net::IpAddr>() {
            _ if host.is_empty() => format!("localhost:{}", address.port()),
            Ok(ip) if ip.is_unspecified() => format!("localhost:{}", address.port()),
            Ok(_) => address.to_string(),
            Err(_) => format!("{host}:{}", address.port()),
        };

        let hub = Hub::new(config.hold.min(Duration::from_secs(300)));
        for ticket in store.view()?.all::<Ticket>()? {
            if ticket.state == TicketState::InProgress
                && let Some(plan) = RelayPlan::of(&ticket)
            {
                hub.restore(plan);
            }
        }
        let app = Arc::new(Inner {
            store,
            signer: Signer::new(&key, config.token_lifetime),
            hub,
            catalogue: rest::Catalogue::embedded(),
            api_url: format!("https://{authority}"),
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            pincode_logins: Arc::default(),
            hellos: watch::Sender::new(0),
        });
        let pincode_logins = Arc::clone(&app.pincode_logins);
        let hellos = app.hellos.subscribe();
        let signer = app.signer.clone();
        let (shutdown, tasks) = (app.shutdown.clone(), app.tasks.clone());
        tasks.spawn(accept(app, listener, TlsAcceptor::from(tls.config)));
        tracing::info!(%address, "listening");
        Ok(Self {
            api_url: format!("https://{authority}"),
            websocket_url: format!("wss://{authority}/ws"),
            ca_file: std::path::absolute(&tls.ca_file).unwrap_or(tls.ca_file),
            address,
            connector_id: connector.id,
            connector_uuid: connector.uuid,
            connector_pincode: connector.pincode,
            operator: Credentials { client_id: operator.client_id, client_secret: operator.client_secret },
            customer_id: customer.customer_id.unwrap_or_default(),
            customer: Credentials { client_id: customer.client_id, client_secret: customer.client_secret },
            customer_otp,
            shutdown,
            tasks,
            pincode_logins,
            hellos,
            signer,
        })
    }

    /// The line that the command prints when it is ready, without a line break.
    pub fn ready_line(&self) -> String {
        json!({
            "api_url": self.api_url,
            "websocket_url": self.websocket_url,
            "ca_file": self.ca_file,
            "connector": {
                "id": self.connector_id,
                "uuid": self.connector_uuid,
                "pincode": self.connector_pincode,
            },
            "operator": {
                "client_id": self.operator.client_id,
                "client_secret": self.operator.client_secret,
            },
            "customer": {
                "id": self.customer_id,
                "client_id": self.customer.client_id,
                "client_secret": self.customer.client_secret,
                "otp": self.customer_otp,
            },
            "sandbox": true,
        })
        .to_string()
    }

    /// The number of logins with a pincode since the start, right or wrong.
    pub fn pincode_logins(&self) -> u64 {
        self.pincode_logins.load(Ordering::Relaxed)
    }

    /// The number of times that a connector came online since the start; the receiver notifies of changes.
    pub fn hellos(&self) -> watch::Receiver<u64> {
        self.hellos.clone()
    }

    /// Makes every access token issued so far expire. Open sockets stay open.
    pub fn expire_tokens(&self) {
        self.signer.expire_all();
    }

    /// Closes every socket in order, and waits until the state can be opened again.
    pub async fn shutdown(self) {
        self.shutdown.cancel();
        self.tasks.close();
        if tokio::time::timeout(SHUTDOWN, self.tasks.wait()).await.is_err() {
            tracing::warn!("some connections did not close in time");
        }
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl RelayPlan {
    /// The relay's plan for a ticket in progress.
    pub(crate) fn of(ticket: &Ticket) -> Option<Self> {
        Some(Self {
            connection_uuid: ticket.connection_uuid?,
            ticket_id: ticket.id,
            connector_id: ticket.connector_id,
            vin: ticket.vin,
            operator: ticket.operator.clone()?,
        })
    }
}

/// Accepts connections until the shutdown, with a task for each.
async fn accept(app: App, listener: TcpListener, acceptor: TlsAcceptor) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let router = rest::router(Arc::clone(&app));
    loop {
        // at the limit, new connections wait in the kernel's queue
        let place = tokio::select! {
            () = app.shutdown.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place,
        };
        let Ok(place) = place else { return };
        let accepted = tokio::select! {
            () = app.shutdown.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => {
                let serving = serve(Arc::clone(&app), router.clone(), acceptor.clone(), stream, peer, place);
                app.tasks.spawn(serving);
            }
            Err(error) => {
                // probably out of file descriptors, which return as connections end
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection: TLS, then HTTP/1.1 until the connection ends or becomes a websocket.
async fn serve(
    app: App,
    router: axum::Router,
    acceptor: TlsAcceptor,
    stream: TcpStream,
    peer: SocketAddr,
    place: OwnedSemaphorePermit,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%peer, %error, "cannot set TCP_NODELAY");
    }
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => return tracing::debug!(%peer, "TLS handshake timed out"),
    };
    let router = TowerToHyperService::new(router);
    let service = hyper::service::service_fn(move |request| {
        let answering = hyper::service::Service::call(&router, request);
        async move {
            match tokio::time::timeout(REQUEST, answering).await {
                Ok(answered) => answered,
                Err(_) => Ok(rest::timed_out()),
            }
        }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEADER)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = app.shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "connection ended");
    }
    drop(place);
}
