//! A cloud in this process, a REST client that trusts it, and scripted peers on its websocket.

use std::sync::Arc;
use std::time::Duration;

use connector_sim::cloud::{Cloud, CloudConfig, Credentials};
use connector_test_support::HANG;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, StatusCode};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::{self, Message};

/// A product of the default catalogue, as partners name it.
pub(crate) const PRODUCT: &str = "97060000-0000-4000-8000-000000000001";

pub(crate) struct Rig {
    pub cloud: Cloud,
    pub directory: tempfile::TempDir,
    http: reqwest::Client,
    tls: Arc<rustls::ClientConfig>,
}

pub(crate) struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Answer {
    pub(crate) fn expect(self, status: u16) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        self.body
    }

    /// Checks that the answer is a problem object of this kind.
    pub(crate) fn problem(self, status: u16, slug: &str) -> Value {
        assert_eq!(self.status.as_u16(), status, "{}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        assert_eq!(self.body["status"], status);
        assert_eq!(self.body["type"], format!("/problems/{slug}"), "{}", self.body);
        for field in ["title", "detail"] {
            assert!(self.body[field].as_str().is_some_and(|text| !text.is_empty()), "{}", self.body);
        }
        self.body
    }

    /// Checks that the answer reports violations of exactly these fields.
    pub(crate) fn violates(self, fields: &[&str]) {
        let body = self.problem(400, "violations");
        let named: Vec<_> =
            body["violations"].as_array().unwrap().iter().map(|v| v["field"].clone()).collect();
        assert_eq!(named, fields, "{body}");
    }
}

impl Rig {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut CloudConfig)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    pub(crate) async fn start_in(
        directory: tempfile::TempDir,
        change: impl FnOnce(&mut CloudConfig),
    ) -> Self {
        let mut config = CloudConfig::local(directory.path().join("state"));
        change(&mut config);
        let cloud = Cloud::start(config).await.unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(&cloud.ca_file).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured(tls.clone())
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { cloud, directory, http, tls: Arc::new(tls) }
    }

    pub(crate) async fn restart(self, change: impl FnOnce(&mut CloudConfig)) -> Self {
        self.cloud.shutdown().await;
        Self::start_in(self.directory, change).await
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let url = if path.starts_with("https://") {
            path.to_owned()
        } else {
            format!("{}{path}", self.cloud.api_url)
        };
        self.http.request(method, url)
    }

    pub(crate) async fn answer(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.timeout(HANG).send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = response.bytes().await.unwrap();
        let body = serde_json::from_slice(&bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&bytes).into_owned()));
        Answer { status, headers, body }
    }

    pub(crate) async fn get(&self, token: &str, path: &str) -> Answer {
        self.answer(self.request(Method::GET, path).bearer_auth(token)).await
    }

    pub(crate) async fn send(&self, method: Method, token: &str, path: &str, body: Value) -> Answer {
        self.answer(self.request(method, path).bearer_auth(token).json(&body)).await
    }

    pub(crate) async fn post(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send(Method::POST, token, path, body).await
    }

    pub(crate) async fn patch(&self, token: &str, path: &str, body: Value) -> Answer {
        self.send(Method::PATCH, token, path, body).await
    }

    pub(crate) async fn form(&self, fields: &[(&str, &str)]) -> Answer {
        self.answer(self.request(Method::POST, "/oauth2/token").form(fields)).await
    }

    pub(crate) async fn pincode(&self, pincode: Value) -> Answer {
        let body = json!({"connector_uuid": self.cloud.connector_uuid, "pincode": pincode});
        self.answer(self.request(Method::POST, "/v2/authenticate/pincode").json(&body)).await
    }

    pub(crate) async fn connector_token(&self) -> String {
        let body = self.pincode(json!(self.cloud.connector_pincode)).await.expect(200);
        body["access_token"].as_str().unwrap().to_owned()
    }

    async fn account_token(&self, account: &Credentials, scope: &str) -> String {
        let fields = [
            ("grant_type", "client_credentials"),
            ("scope", scope),
            ("client_id", account.client_id.as_str()),
            ("client_secret", account.client_secret.as_str()),
        ];
        self.form(&fields).await.expect(200)["access_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn operator_token(&self) -> String {
        self.account_token(&self.cloud.operator, "").await
    }

    /// A token of the operator that is another one than [`Rig::operator_token`] returns.
    pub(crate) async fn other_operator_token(&self) -> String {
        self.account_token(&self.cloud.operator, "operator").await
    }

    pub(crate) async fn customer_token(&self) -> String {
        self.account_token(&self.cloud.customer, "").await
    }

    pub(crate) fn ticket_body(&self, vin: Option<&str>) -> Value {
        json!({
            "vin": vin, "vehicle_model_id": 3, "vehicle_model_variant_id": 3,
            "connector_id": self.cloud.connector_id, "product_ids": [1],
            "metadata": {"vin_is_found_by_reader": true},
        })
    }

    /// A pending ticket on the connector.
    pub(crate) async fn pending(&self, vin: Option<&str>) -> Value {
        let token = self.customer_token().await;
        self.post(&token, "/sandbox/v1/tickets", self.ticket_body(vin)).await.expect(201)
    }

    /// Joins the ticket, and returns it in progress.
    pub(crate) async fn join(&self, ticket: &Value) -> Value {
        let token = self.operator_token().await;
        let path = format!("/sandbox/v2/tickets/pending-tickets/{}", ticket["uuid"].as_str().unwrap());
        let body = json!({"transition": {"type": "join", "operator_id": "desk 1"}});
        let answer = self.patch(&token, &path, body).await;
        assert_eq!(answer.status, 303, "{}", answer.body);
        let location = answer.headers["location"].to_str().unwrap();
        let uuid = location.rsplit('/').next().unwrap();
        self.get(&token, &format!("/sandbox/v2/tickets/{uuid}")).await.expect(200)
    }

    pub(crate) async fn transition(&self, ticket: &Value, kind: &str) -> Answer {
        let token = self.operator_token().await;
        let path = format!("/v2/tickets/in-progress-tickets/{}", ticket["id"].as_str().unwrap());
        let mut transition = json!({"type": kind});
        if kind == "outsource" {
            let providers = self.get(&token, "/v2/providers/providers").await.expect(200);
            transition["provider_id"] = providers["result"][0]["id"].clone();
            transition["product_ids"] = json!([PRODUCT]);
        }
        self.patch(&token, &path, json!({"transition": transition})).await
    }

    /// A TLS connection to the cloud.
    pub(crate) async fn stream(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.cloud.address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let name = ServerName::from(self.cloud.address.ip());
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, stream).await.unwrap()
    }

    pub(crate) async fn try_socket(
        &self,
        url: &str,
        token: Option<&str>,
    ) -> Result<Socket, tungstenite::Error> {
        let mut request = url.into_client_request().unwrap();
        let headers = request.headers_mut();
        let is_relay = !url.contains("/wssprd");
        if is_relay {
            headers.insert("Sec-WebSocket-Protocol", "connector-relay.v1".parse().unwrap());
        }
        if let Some(token) = token {
            headers.insert("Authorization", format!("Bearer {token}").parse().unwrap());
        }
        let (stream, response) = tokio_tungstenite::client_async(request, self.stream().await).await?;
        if is_relay {
            assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "connector-relay.v1");
        }
        Ok(Socket { stream, patience: HANG })
    }

    pub(crate) async fn socket(&self, token: &str) -> Socket {
        self.try_socket(&self.cloud.websocket_url, Some(token)).await.unwrap()
    }

    /// The connector's link after its hello, which names the connections that the connector holds.
    pub(crate) async fn connector(&self, held: Value) -> Socket {
        let mut socket = self.socket(&self.connector_token().await).await;
        socket.say("connectorHello", self.hello(held)).await;
        // a stored status shows that the earlier hello is stored too
        socket.say("connectorStatusUpdate", json!({"connector_id": self.cloud.connector_uuid})).await;
        let token = self.operator_token().await;
        let path = format!("/v1/connectors/{}", self.cloud.connector_id);
        while self.get(&token, &path).await.expect(200)["is_online"] != true {}
        socket
    }

    pub(crate) fn hello(&self, held: Value) -> Value {
        json!({
            "connector_uuid": self.cloud.connector_uuid, "protocol": 1, "agent_version": "0.1.0",
            "software_version": 2, "hardware_version": 0, "hardware_type": "classic",
            "has_wifi": true, "supports_doip": true,
            "buses": [{"kind": "can", "pins": [6, 14], "fd": true}], "connections": held,
        })
    }

    pub(crate) async fn operator(&self) -> Socket {
        self.socket(&self.operator_token().await).await
    }
}

pub(crate) struct Socket {
    stream: WebSocketStream<TlsStream<TcpStream>>,
    /// The timeout for a message. Only virtual time permits a longer one than the default.
    pub patience: Duration,
}

/// Whether a text notifies a connector that an operator joined or left.
fn is_notice(text: &str) -> bool {
    let text: Value = serde_json::from_str(text).unwrap();
    text["action"] == "operatorJoined" || text["action"] == "operatorLeft"
}

impl Socket {
    pub(crate) async fn say(&mut self, action: &str, message: Value) {
        self.text(&json!({"action": action, "message": message}).to_string()).await;
    }

    pub(crate) async fn ask(&mut self, action: &str, request_id: &str, message: Value) {
        let envelope = json!({"action": action, "message": message, "request_id": request_id});
        self.text(&envelope.to_string()).await;
    }

    pub(crate) async fn reply(&mut self, to: &Value, action: &str, message: Value) {
        self.ask(action, to["request_id"].as_str().unwrap(), message).await;
    }

    pub(crate) async fn text(&mut self, text: &str) {
        self.stream.send(Message::text(text)).await.unwrap();
    }

    pub(crate) async fn try_text(&mut self, text: &str) -> Result<(), tungstenite::Error> {
        self.stream.send(Message::text(text)).await
    }

    pub(crate) async fn binary(&mut self, bytes: impl Into<Vec<u8>>) {
        self.stream.send(Message::binary(bytes.into())).await.unwrap();
    }

    pub(crate) async fn ping(&mut self) {
        self.stream.send(Message::Ping(Vec::new().into())).await.unwrap();
    }

    /// The next notice that an operator joined or left. Other messages are skipped.
    pub(crate) async fn notice(&mut self) -> Value {
        loop {
            let Message::Text(text) = self.raw().await else { continue };
            if is_notice(text.as_str()) {
                return serde_json::from_str(text.as_str()).unwrap();
            }
        }
    }

    /// The next message that is neither a ping nor a pong, nor a notice that an operator joined or left.
    pub(crate) async fn message(&mut self) -> Message {
        loop {
            match self.raw().await {
                Message::Ping(_) | Message::Pong(_) => {}
                Message::Text(text) if is_notice(text.as_str()) => {}
                message => return message,
            }
        }
    }

    pub(crate) async fn raw(&mut self) -> Message {
        tokio::time::timeout(self.patience, self.stream.next()).await.expect("hangs").expect("ended").unwrap()
    }

    /// The next message, which must be text, as JSON.
    pub(crate) async fn next(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(text.as_str()).unwrap(),
            other => panic!("no text: {other:?}"),
        }
    }

    /// The next message, which must be text with this action.
    pub(crate) async fn hear(&mut self, action: &str) -> Value {
        let envelope = self.next().await;
        assert_eq!(envelope["action"], action, "{envelope}");
        envelope
    }

    /// The next text with this action. Other messages are skipped.
    pub(crate) async fn await_action(&mut self, action: &str) -> Value {
        loop {
            let envelope = self.next().await;
            if envelope["action"] == action {
                return envelope;
            }
        }
    }

    /// The next message, which must be binary.
    pub(crate) async fn next_binary(&mut self) -> Vec<u8> {
        match self.message().await {
            Message::Binary(bytes) => bytes.to_vec(),
            other => panic!("not binary: {other:?}"),
        }
    }

    /// Checks that the next message is an error of this kind.
    pub(crate) async fn refused(&mut self, status: u16, slug: &str, in_reply_to: &str) -> Value {
        let envelope = self.next().await;
        assert!(envelope["action"] == "error" || envelope["action"] == "sandbox-error", "{envelope}");
        assert_eq!(envelope["message"]["status"], status, "{envelope}");
        assert_eq!(envelope["message"]["type"], format!("/problems/{slug}"), "{envelope}");
        assert_eq!(envelope["message"]["in_reply_to"], in_reply_to, "{envelope}");
        envelope
    }

    /// Reads until the cloud closes the socket.
    pub(crate) async fn closed(&mut self) -> Option<CloseFrame> {
        loop {
            match tokio::time::timeout(self.patience, self.stream.next()).await.expect("hangs") {
                Some(Ok(Message::Close(frame))) => return frame,
                Some(Ok(_)) => {}
                Some(Err(_)) | None => return None,
            }
        }
    }

    pub(crate) async fn close(mut self) {
        self.stream.close(None).await.unwrap();
        while let Some(Ok(_)) = self.stream.next().await {}
    }
}
