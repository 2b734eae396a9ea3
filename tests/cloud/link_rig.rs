//! The cloud's side of a websocket, and helpers that drive the agent's side.

use std::future::Future;

use connector_agent::cloud::CloudStatus;
use connector_agent::cloud::login::Authenticator;
use connector_agent::cloud::websocket::{CloudSocket, SocketEvent, SocketSettings};
use connector_agent::config::CloudConfig;
use futures_util::StreamExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};

use crate::scripted::{Reply, Server, authenticator, cloud_config, dialer, soon};

/// The scripted API, and a listener for websockets.
pub(crate) struct Cloud {
    pub api: Server,
    pub listener: TcpListener,
    pub config: CloudConfig,
    pub authenticator: Authenticator,
    pub status: watch::Receiver<CloudStatus>,
}

impl Cloud {
    pub(crate) async fn start() -> Self {
        let api = Server::start(|_, before| Reply::tokens(before + 1)).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/connector", listener.local_addr().unwrap());
        let config = cloud_config(&api.url, &url);
        let authenticator = authenticator(&config);
        let status = authenticator.status();
        Self { api, listener, config, authenticator, status }
    }

    pub(crate) fn settings(&self) -> SocketSettings {
        SocketSettings::new(&self.config, 4095)
    }

    pub(crate) fn link(&self) -> CloudSocket {
        self.link_with(self.settings())
    }

    pub(crate) fn link_with(&self, settings: SocketSettings) -> CloudSocket {
        CloudSocket::new(settings, dialer(&self.config), self.authenticator.clone(), 1)
    }
}

pub(crate) type Far<S> = WebSocketStream<S>;

/// Waits for the link, and returns the cloud's side of it with the request's authorization and subprotocol.
pub(crate) async fn up(link: &mut CloudSocket, listener: &TcpListener) -> (Far<TcpStream>, [String; 2]) {
    let accept = async { accept(listener.accept().await.unwrap().0).await };
    let (event, accepted) = soon(async { tokio::join!(link.next_event(false), accept) }).await;
    assert!(matches!(event, SocketEvent::Up), "{event:?}");
    accepted
}

pub(crate) async fn accept<S: AsyncRead + AsyncWrite + Unpin>(stream: S) -> (Far<S>, [String; 2]) {
    let mut seen = [String::new(), String::new()];
    #[allow(clippy::result_large_err, reason = "the library's signature")]
    let callback = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        let header = |name| request.headers().get(name).unwrap().to_str().unwrap().to_owned();
        seen = ["authorization", "sec-websocket-protocol"].map(header);
        response.headers_mut().insert("sec-websocket-protocol", "connector-relay.v1".parse().unwrap());
        Ok(response)
    };
    let far = tokio_tungstenite::accept_hdr_async(stream, callback).await.unwrap();
    (far, seen)
}

/// Answers one upgrade with this status, and returns the request.
pub(crate) async fn refuse(listener: &TcpListener, status: &str, headers: &str) -> String {
    let (mut tcp, _) = listener.accept().await.unwrap();
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        assert_ne!(tcp.read_buf(&mut request).await.unwrap(), 0);
    }
    let reply = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\n\r\n");
    tcp.write_all(reply.as_bytes()).await.unwrap();
    String::from_utf8(request).unwrap()
}

/// Drives the link until the future `until` is ready. An event of the link fails the test.
pub(crate) async fn drive<T>(link: &mut CloudSocket, until: impl Future<Output = T>) -> T {
    let both = async {
        tokio::select! {
            event = link.next_event(false) => panic!("{event:?}"),
            result = until => result,
        }
    };
    soon(both).await
}

/// The next text or binary message.
pub(crate) async fn message<S: AsyncRead + AsyncWrite + Unpin>(far: &mut Far<S>) -> Message {
    loop {
        match far.next().await.unwrap().unwrap() {
            message @ (Message::Text(_) | Message::Binary(_)) => return message,
            _ => continue,
        }
    }
}
