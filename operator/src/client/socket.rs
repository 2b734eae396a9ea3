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

use super::error::DialError;
use super::tokens::Tokens;

/// The relay's subprotocol.
const SUBPROTOCOL: &str = "connector-relay.v1";
/// The longest time for opening a websocket, including TLS and the upgrade: as long as the agent waits by
/// default.
const CONNECT: Duration = Duration::from_secs(15);
/// The longest message that is accepted: the longest configurable PDU and its header.
const MAX_MESSAGE: usize = 2 << 20;

/// The byte stream that carries a websocket.
pub trait Io: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Io for T {}

/// An open websocket.
pub type Socket = WebSocketStream<Box<dyn Io>>;

/// Opens a websocket, at first and after each loss.
pub trait Dial: Send + Sync {
    /// Opens an authorised websocket to the cloud.
    fn dial(&self) -> BoxFuture<'_, Result<Socket, DialError>>;
}

/// The cloud's websocket.
pub(super) struct Websocket {
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
        let uri: Uri = url.parse().map_err(|_| wrong("it is not a URL"))?;
        let host = uri.host().ok_or_else(|| wrong("it has no host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let (tls, port) = match uri.scheme_str() {
            Some("wss") => {
                let name =
                    ServerName::try_from(host.clone()).map_err(|_| wrong("its host is not a valid name"))?;
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
    /// The other side closed the websocket.
    #[error("the cloud closed the websocket")]
    Closed,
    /// The cloud sent nothing for this long.
    #[error("the cloud sent nothing for {} s", .0.as_secs())]
    Dead(Duration),
    /// The websocket failed.
    #[error(transparent)]
    Broken(#[from] tungstenite::Error),
}
