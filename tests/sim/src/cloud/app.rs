//! The state that all requests share.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::catalogue::Catalogue;
use super::hub::Hub;
use super::store::Store;
use super::tokens::Signer;

/// The limits of websockets, as gateways of other clouds have them.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct SocketLimits {
    pub(crate) lifetime: Option<Duration>,
    pub(crate) idle: Option<Duration>,
}

/// The state that requests share.
pub(crate) struct AppState {
    pub(crate) store: Store,
    pub(crate) signer: Signer,
    pub(crate) hub: Arc<Hub>,
    pub(crate) catalogue: Arc<Catalogue>,
    /// How long a websocket lasts at most, and how long without a message of its client.
    pub(crate) socket_limits: SocketLimits,
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
pub(crate) type App = Arc<AppState>;
