//! The websocket to the cloud: TCP without delay, TLS, the upgrade.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use connector_hal::future::BoxFuture;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::header::{AUTHORIZATION, SEC_WEBSOCKET_PROTOCOL};
use tokio_tungstenite::tungstenite::http::{HeaderValue, Request, StatusCode, Uri};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{self, Error as WsError};

use super::error::OperatorError;
use super::tokens::Tokens;

/// The relay's subprotocol.
const SUBPROTOCOL: &str = "connector-relay.v1";
/// For a connection to be made, TLS and the upgrade included.
const CONNECT: Duration = Duration::from_secs(15);
/// The longest message taken: the longest PDU that anybody configures, and what travels with it.
const MAX_MESSAGE: usize = 2 << 20;

/// What a websocket runs over.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// An open websocket.
pub type Socket = WebSocketStream<Box<dyn Io>>;

/// Why there is no websocket.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The URL cannot be used.
    #[error("{url} cannot be used as the websocket's address: {why}")]
    Url {
        /// The URL.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No TCP or TLS connection.
    #[error("cannot reach the cloud's websocket at {host}")]
    Connect {
        /// Host and port.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// No websocket.
    #[error("the cloud does not open the websocket")]
    Upgrade(#[source] Box<WsError>),
    /// The token was refused, a fresh one too.
    #[error("the cloud does not accept the operator's token")]
    Unauthorized,
    /// It took too long.
    #[error("the cloud's websocket did not open within {} s", .0.as_secs())]
    Timeout(Duration),
    /// There is no token.
    #[error(transparent)]
    Login(Box<OperatorError>),
}

/// Opens websockets, as often as they get lost.
pub trait Dial: Send + Sync {
    /// A websocket to the cloud, upgraded and authorised.
    fn dial(&self) -> BoxFuture<'_, Result<Socket, DialError>>;
}

/// The cloud's websocket.
pub struct Websocket {
    url: String,
    host: String,
    port: u16,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    tokens: Arc<Tokens>,
}

impl fmt::Debug for Websocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Websocket").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Websocket {
    pub(super) fn new(url: &str, tls: Arc<ClientConfig>, tokens: Arc<Tokens>) -> Result<Self, DialError> {
        let wrong = |why| DialError::Url { url: url.to_owned(), why };
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("wss") => {
                let name = ServerName::try_from(host.clone()).map_err(|_| wrong("its host is no name"))?;
                (Some((tls, name)), 443)
            }
            Some("ws") if is_loopback(&host) => (None, 80),
            Some("ws") => return Err(wrong("ws:// is for this machine only; use wss://")),
            _ => return Err(wrong("it does not begin with wss://")),
        };
        let port = uri.port_u16().unwrap_or(port);
        Ok(Self { url: url.to_owned(), host, port, tls, tokens })
    }

    async fn connect(&self) -> Result<Box<dyn Io>, io::Error> {
        let stream = TcpStream::connect((self.host.as_str(), self.port)).await?;
        stream.set_nodelay(true)?;
        Ok(match &self.tls {
            Some((config, name)) => {
                let connector = TlsConnector::from(Arc::clone(config));
                Box::new(connector.connect(name.clone(), stream).await?)
            }
            None => Box::new(stream),
        })
    }

    fn request(&self, token: &str) -> Result<Request<()>, WsError> {
        let mut request = self.url.as_str().into_client_request()?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {token}"))?;
        bearer.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, bearer);
        request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
        Ok(request)
    }

    async fn open(&self) -> Result<Socket, DialError> {
        let upgrade_error = |error| DialError::Upgrade(Box::new(error));
        let mut fresh = false;
        loop {
            let token = self.tokens.get().await.map_err(|error| DialError::Login(Box::new(error)))?;
            let request = self.request(&token).map_err(upgrade_error)?;
            let stream = self.connect().await.map_err(|source| DialError::Connect {
                host: format!("{}:{}", self.host, self.port),
                source,
            })?;
            let config = WebSocketConfig::default()
                .max_message_size(Some(MAX_MESSAGE))
                .max_frame_size(Some(MAX_MESSAGE));
            match tokio_tungstenite::client_async_with_config(request, stream, Some(config)).await {
                Ok((socket, _)) => return Ok(socket),
                Err(WsError::Http(response)) if response.status() == StatusCode::UNAUTHORIZED => {
                    if fresh {
                        return Err(DialError::Unauthorized);
                    }
                    fresh = true;
                    self.tokens.discard(&token).await;
                }
                Err(error) => return Err(upgrade_error(error)),
            }
        }
    }
}

impl Dial for Websocket {
    fn dial(&self) -> BoxFuture<'_, Result<Socket, DialError>> {
        Box::pin(async {
            tokio::time::timeout(CONNECT, self.open()).await.unwrap_or(Err(DialError::Timeout(CONNECT)))
        })
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Why an open websocket ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum SocketError {
    /// The other side closed it.
    #[error("the cloud closed the websocket")]
    Closed,
    /// Nothing came for too long.
    #[error("nothing came from the cloud for {} s", .0.as_secs())]
    Dead(Duration),
    /// It broke.
    #[error(transparent)]
    Broken(#[from] tungstenite::Error),
}
