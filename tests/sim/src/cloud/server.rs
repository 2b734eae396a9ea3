//! The running cloud: its configuration, its start and its shutdown.

use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::app::{AppState, SocketLimits};
use super::catalogue::{Catalogue, CatalogueError};
use super::certificates::{self, CertificateError};
use super::hub::{Hub, RelayPlan};
use super::store::{
    Account, Change, Connector, ConnectorSeed, Read as _, Role, Store, StoreError, Subject, Ticket,
    TicketState,
};
use super::tokens::Signer;
use super::{connections, random};

/// Limit of simultaneous websockets.
const MAX_SOCKETS: usize = 4096;
/// Limit for sockets to close in order at the shutdown.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// The configuration of a sandbox cloud.
#[derive(Debug, Clone)]
pub struct CloudConfig {
    /// Address to listen on, `host:port`; port 0 takes a free one.
    pub listen: String,
    /// Directory of the state; created if it does not exist. Two clouds cannot share one.
    pub state: PathBuf,
    /// The known connectors. If the list is empty, the cloud has those of the documented examples.
    pub connectors: Vec<ConnectorSeed>,
    /// Lifetime of access tokens.
    pub token_lifetime: Duration,
    /// Time that a connection outlives a lost link; at most 300 s.
    pub hold: Duration,
    /// The CA certificates (PEM) of the clients, each of which then needs a certificate (mutual TLS).
    pub client_ca: Option<PathBuf>,
    /// The file with vehicles, products and prices; by default, those of the simulators.
    pub catalogue: Option<PathBuf>,
    /// How long a websocket lasts at most.
    pub socket_lifetime: Option<Duration>,
    /// How long a websocket lasts without a message of its client.
    pub socket_idle: Option<Duration>,
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
            client_ca: None,
            catalogue: None,
            socket_lifetime: None,
            socket_idle: None,
        }
    }
}

/// The reasons why the cloud does not start.
#[derive(Debug, thiserror::Error)]
pub enum CloudError {
    /// The state cannot be used.
    #[error("cannot use the state directory")]
    Store(#[from] StoreError),
    /// The catalogue cannot be used.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
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

/// A running sandbox cloud. Dropping it stops the cloud without waiting.
#[derive(Debug)]
pub struct Cloud {
    /// The URL of the REST API, such as `https://127.0.0.1:8443`.
    pub api_url: String,
    /// The URL of the websocket of the relay, such as `wss://127.0.0.1:8443/sandbox/ws`.
    pub websocket_url: String,
    /// The URL of the documented websocket, such as `wss://127.0.0.1:8443/wssprd`.
    pub portal_websocket_url: String,
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
    /// The customer, as partners name it.
    pub customer_id: uuid::Uuid,
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
        create_directory(&config.state)?;
        let store = Store::open(&config.state.join("state.redb"))?;
        let customer_otp = random::voucher(12);
        let catalogue = Arc::new(match &config.catalogue {
            Some(file) => Catalogue::load(file)?,
            None => Catalogue::builtin(),
        });
        let seeded =
            seed(&store, config.connectors.clone(), customer_otp.clone(), Arc::clone(&catalogue)).await?;
        let (listener, address) = listen(&config.listen).await?;
        let host = host(&config.listen);
        let tls =
            certificates::server_tls(&config.state, &certificates::names(host), config.client_ca.as_deref())?;
        let authority = authority(host, address);
        let hub = restored_hub(&store, config.hold)?;
        let app = Arc::new(AppState {
            store,
            signer: Signer::new(&seeded.signing_key, config.token_lifetime),
            hub,
            catalogue: Arc::clone(&catalogue),
            socket_limits: SocketLimits { lifetime: config.socket_lifetime, idle: config.socket_idle },
            api_url: format!("https://{authority}"),
            sockets: Arc::new(Semaphore::new(MAX_SOCKETS)),
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            pincode_logins: Arc::default(),
            hellos: watch::Sender::new(0),
        });
        app.tasks.spawn(connections::accept(Arc::clone(&app), listener, TlsAcceptor::from(tls.config)));
        tracing::info!(%address, "listening");
        let Seeded { connector, operator, customer, .. } = seeded;
        Ok(Self {
            api_url: app.api_url.clone(),
            websocket_url: format!("wss://{authority}/sandbox/ws"),
            portal_websocket_url: format!("wss://{authority}/wssprd"),
            ca_file: std::path::absolute(&tls.ca_file).unwrap_or(tls.ca_file),
            address,
            connector_id: connector.id,
            connector_uuid: connector.uuid,
            connector_pincode: connector.pincode,
            operator: Credentials { client_id: operator.client_id, client_secret: operator.client_secret },
            customer_id: catalogue.customer.id,
            customer: Credentials { client_id: customer.client_id, client_secret: customer.client_secret },
            customer_otp,
            shutdown: app.shutdown.clone(),
            tasks: app.tasks.clone(),
            pincode_logins: Arc::clone(&app.pincode_logins),
            hellos: app.hellos.subscribe(),
            signer: app.signer.clone(),
        })
    }

    /// The line that the command prints when it is ready, without a line break.
    pub fn ready_line(&self) -> String {
        json!({
            "api_url": self.api_url,
            "websocket_url": self.websocket_url,
            "portal_websocket_url": self.portal_websocket_url,
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
    pub(crate) fn hellos(&self) -> watch::Receiver<u64> {
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

/// The initial records of the database.
struct Seeded {
    connector: Connector,
    operator: Account,
    customer: Account,
    signing_key: Vec<u8>,
}

fn create_directory(state: &Path) -> Result<(), StoreError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state)
        .map_err(|source| StoreError::File { path: state.to_owned(), source })
}

/// Stores the connectors, the accounts, the customer's one-time password and the signing key.
async fn seed(
    store: &Store,
    seeds: Vec<ConnectorSeed>,
    otp: String,
    catalogue: Arc<Catalogue>,
) -> Result<Seeded, StoreError> {
    store
        .change(move |change| {
            let connector = change.seed_connectors(&seeds)?;
            let operator = change.seed_account(Role::Operator)?;
            let customer = change.seed_account(Role::Customer)?;
            change.seed_catalogue(&catalogue)?;
            change.add_one_time_password(&otp, Subject::account(&customer))?;
            Ok(Seeded { connector, operator, customer, signing_key: signing_key(change)? })
        })
        .await
}

/// The key that signs tokens, created if there is none.
fn signing_key(change: &Change) -> Result<Vec<u8>, StoreError> {
    if let Some(key) = change.setting("signing-key")? {
        return Ok(key);
    }
    let mut key = vec![0; 32];
    random::fill(&mut key);
    change.set_setting("signing-key", &key)?;
    Ok(key)
}

async fn listen(on: &str) -> Result<(TcpListener, SocketAddr), CloudError> {
    let error = |source| CloudError::Listen { address: on.to_owned(), source };
    let listener = TcpListener::bind(on).await.map_err(error)?;
    let address = listener.local_addr().map_err(error)?;
    Ok((listener, address))
}

/// The host of `host:port`, without the brackets of an IPv6 address.
fn host(listen: &str) -> &str {
    let host = listen.rsplit_once(':').map_or("", |(host, _)| host);
    host.trim_start_matches('[').trim_end_matches(']')
}

/// The authority of the cloud's URLs: `host:port`.
fn authority(host: &str, address: SocketAddr) -> String {
    match host.parse::<std::net::IpAddr>() {
        _ if host.is_empty() => format!("localhost:{}", address.port()),
        Ok(ip) if ip.is_unspecified() => format!("localhost:{}", address.port()),
        Ok(_) => address.to_string(),
        Err(_) => format!("{host}:{}", address.port()),
    }
}

/// A hub with the connections of the tickets in progress.
fn restored_hub(store: &Store, hold: Duration) -> Result<Arc<Hub>, StoreError> {
    let hub = Hub::new(hold.min(Duration::from_secs(300)));
    for ticket in store.view()?.all::<Ticket>()? {
        if ticket.state == TicketState::InProgress
            && let Some(plan) = RelayPlan::of(&ticket)
        {
            hub.restore(plan);
        }
    }
    Ok(hub)
}
