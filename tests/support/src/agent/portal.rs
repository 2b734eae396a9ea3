//! A portal client: subscribed to a connector over the cloud's websocket.

use std::sync::Arc;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;

use super::{Connector, Sandbox};
use crate::soon;

/// The websocket of any client of the cloud.
pub struct Socket {
    stream: WebSocketStream<TlsStream<TcpStream>>,
}

impl Socket {
    pub async fn open(sandbox: &Sandbox, token: &str) -> Self {
        let mut request = sandbox.cloud.websocket_url.as_str().into_client_request().unwrap();
        let headers = request.headers_mut();
        headers.insert("Authorization", format!("Bearer {token}").parse().unwrap());
        headers.insert("Sec-WebSocket-Protocol", "connector-relay.v1".parse().unwrap());
        let tcp = TcpStream::connect(sandbox.cloud.address).await.unwrap();
        let name = ServerName::from(sandbox.cloud.address.ip());
        let tls = TlsConnector::from(Arc::clone(sandbox.tls())).connect(name, tcp).await.unwrap();
        let (stream, _) = tokio_tungstenite::client_async(request, tls).await.unwrap();
        Self { stream }
    }

    pub async fn say(&mut self, action: &str, message: Value) {
        let text = json!({"action": action, "message": message, "request_id": "1"}).to_string();
        self.stream.send(Message::text(text)).await.unwrap();
    }

    /// The next text.
    pub async fn hear(&mut self) -> Value {
        loop {
            if let Message::Text(text) = self.stream.next().await.unwrap().unwrap() {
                return serde_json::from_str(text.as_str()).unwrap();
            }
        }
    }
}

pub struct Portal {
    socket: Socket,
    pub last: Value,
}

impl Portal {
    pub(super) async fn subscribe(sandbox: &Sandbox, token: &str, connector: &Connector) -> Self {
        let mut socket = Socket::open(sandbox, token).await;
        socket.say("subscribeToConnector", json!({"connector_id": connector.id})).await;
        let mut portal = Self { socket, last: Value::Null };
        portal.update().await;
        portal
    }

    async fn update(&mut self) {
        let envelope = self.socket.hear().await;
        assert_eq!(envelope["action"], "subscribeToConnector", "{envelope}");
        self.last = envelope["message"].clone();
    }

    /// Waits for an update that `is_so` accepts, and returns it.
    #[track_caller]
    pub fn sees(&mut self, description: &str, is_so: impl Fn(&Value) -> bool) -> impl Future<Output = Value> {
        soon(description, async move {
            while !is_so(&self.last) {
                self.update().await;
            }
            self.last.clone()
        })
    }

    pub async fn sees_online(&mut self) {
        self.sees("the connector to be online", |update| update["is_online"] == true).await;
    }

    pub async fn sees_vin(&mut self, vin: &str) {
        self.sees(&format!("the VIN {vin}"), |update| update["vin_number"] == vin).await;
    }
}
