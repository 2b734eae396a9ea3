//! One attempt to connect: a transport, and the websocket's upgrade.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{self, HeaderValue};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::reconnect::ConnectFailure;
use super::settings::SocketSettings;
use super::upgrade::{SUBPROTOCOL, upgrade};
use crate::cloud::dial::{DialError, Dialer, SocketTransport};
use crate::cloud::rest::{AccessToken, USER_AGENT_NAME};
use crate::cloud::retry_after::retry_after;

/// A websocket to the cloud, with or without TLS.
pub(super) type Websocket = WebSocketStream<SocketTransport>;

/// Why an attempt to connect failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CloudConnectError {
    /// The attempt took too long.
    #[error("no websocket within {0:?}")]
    Timeout(Duration),
    /// There is no transport.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// The websocket's handshake failed.
    #[error("the websocket handshake failed")]
    WebSocket(#[source] Box<tungstenite::Error>),
    /// The cloud refused the upgrade.
    #[error("the cloud answered {status} instead of a websocket")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// How long the cloud asks to wait.
        retry_after: Option<Duration>,
    },
    /// The token has characters that a header must not contain.
    #[error("the token has characters that a header must not contain")]
    Token,
}

impl CloudConnectError {
    /// Classifies the error for the reconnect policy.
    pub(super) fn failure(&self) -> ConnectFailure {
        match self {
            Self::Refused { status: 401, retry_after } => {
                ConnectFailure::Unauthorized { retry_after: *retry_after }
            }
            Self::Refused { retry_after, .. } => ConnectFailure::Busy { retry_after: *retry_after },
            Self::Dial(error) => match error.retry_after() {
                None => ConnectFailure::Lost,
                retry_after => ConnectFailure::Busy { retry_after },
            },
            Self::Timeout(_) | Self::WebSocket(_) | Self::Token => ConnectFailure::Lost,
        }
    }
}

/// Connects within the settings' `connect_timeout`.
pub(super) async fn connect(
    settings: Arc<SocketSettings>,
    dialer: Dialer,
    token: AccessToken,
) -> Result<Websocket, CloudConnectError> {
    let limit = settings.connect_timeout;
    match tokio::time::timeout(limit, open(&settings, &dialer, &token)).await {
        Ok(result) => result,
        Err(_) => Err(CloudConnectError::Timeout(limit)),
    }
}

async fn open(
    settings: &SocketSettings,
    dialer: &Dialer,
    token: &AccessToken,
) -> Result<Websocket, CloudConnectError> {
    let url = settings.url.as_url();
    let failed = |error| CloudConnectError::WebSocket(Box::new(error));
    let mut request = url.as_str().into_client_request().map_err(failed)?;
    let headers = request.headers_mut();
    // The websocket library logs the whole request, token included, with the crate `log` at TRACE: this
    // process must not install a receiver for those records.
    headers.insert(header::AUTHORIZATION, token.header().ok_or(CloudConnectError::Token)?);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    headers.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT_NAME));

    let transport = dialer.dial(url).await?;
    let largest = settings.max_text.max(settings.max_binary);
    let config = WebSocketConfig::default()
        .read_buffer_size(16 << 10)
        // every message goes to the socket immediately
        .write_buffer_size(0)
        .max_write_buffer_size(settings.max_write_buffer())
        .max_message_size(Some(largest))
        .max_frame_size(Some(largest));
    match upgrade(request, transport, config).await {
        Ok(socket) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(CloudConnectError::Refused {
            status: response.status().as_u16(),
            retry_after: retry_after(response.headers(), SystemTime::now()),
        }),
        Err(error) => Err(failed(error)),
    }
}
