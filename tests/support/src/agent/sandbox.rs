//! The sandbox cloud with its operator and its customer.

use std::net::SocketAddr;
use std::sync::Arc;

use connector_agent::tls;
use connector_operator::client::{self, Operator, Ticket};
use connector_sim::cloud::{Cloud, CloudConfig, ConnectorSeed, Credentials};
use reqwest::{Method, StatusCode};
use rustls::ClientConfig;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Portal;
use crate::{HANG, soon};

/// The first connector's number.
const FIRST: i64 = 2001;

/// A connector of the cloud.
#[derive(Debug, Clone)]
pub struct Connector {
    pub id: i64,
    pub uuid: Uuid,
    pub pincode: String,
}

pub struct Sandbox {
    pub cloud: Cloud,
    pub connectors: Vec<Connector>,
    pub operator: Operator,
    http: reqwest::Client,
    tls: Arc<ClientConfig>,
    _state: tempfile::TempDir,
}

impl Sandbox {
    /// A cloud with this number of connectors.
    pub async fn start(connectors: usize) -> Self {
        Self::start_with(connectors, |_| {}).await
    }

    pub async fn start_with(connectors: usize, change: impl FnOnce(&mut CloudConfig)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let connectors: Vec<_> = (FIRST..)
            .take(connectors)
            .map(|id| Connector { id, uuid: Uuid::new_v4(), pincode: format!("{}", id * 7919) })
            .collect();
        let mut config = CloudConfig::local(state.path().join("cloud"));
        config.connectors = connectors
            .iter()
            .map(|connector| ConnectorSeed {
                id: Some(connector.id),
                ..ConnectorSeed::new(connector.uuid, connector.pincode.as_str())
            })
            .collect();
        change(&mut config);
        let cloud = Cloud::start(config).await.unwrap();
        let operator = log_in(&cloud, cloud.address).await;
        let tls = tls::client_config(Some(&cloud.ca_file)).unwrap();
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        Self { cloud, connectors, operator, http, tls, _state: state }
    }

    /// The operator behind a network.
    pub async fn operator_through(&self, address: SocketAddr) -> Operator {
        log_in(&self.cloud, address).await
    }

    pub fn tls(&self) -> &Arc<ClientConfig> {
        &self.tls
    }

    async fn token(&self, account: &Credentials) -> String {
        let form = [
            ("grant_type", "client_credentials"),
            ("client_id", account.client_id.as_str()),
            ("client_secret", account.client_secret.as_str()),
        ];
        let request = self.http.post(format!("{}/oauth2/token", self.cloud.api_url)).form(&form);
        let (status, body) = answer(request).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    pub async fn customer_token(&self) -> String {
        self.token(&self.cloud.customer).await
    }

    /// The token of the connector.
    pub async fn connector_token(&self, connector: &Connector) -> String {
        let body = json!({"connector_uuid": connector.uuid, "pincode": connector.pincode});
        let url = format!("{}/v2/authenticate/pincode", self.cloud.api_url);
        let (status, body) = answer(self.http.post(url).json(&body)).await;
        assert_eq!(status, 200, "{body}");
        body["access_token"].as_str().unwrap().to_owned()
    }

    /// Sends a request to the REST API with this token.
    pub async fn ask(
        &self,
        method: Method,
        token: &str,
        path: &str,
        body: Option<Value>,
    ) -> (StatusCode, Value) {
        let mut request =
            self.http.request(method, format!("{}{path}", self.cloud.api_url)).bearer_auth(token);
        if let Some(body) = &body {
            request = request.json(body);
        }
        answer(request).await
    }

    async fn as_customer(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        self.ask(method, &self.customer_token().await, path, body).await
    }

    /// The cloud's record of a connector.
    pub async fn record(&self, connector: &Connector) -> Value {
        let (status, body) = self
            .as_customer(Method::GET, &format!("/sandbox/v1/connectors/uuid/{}", connector.uuid), None)
            .await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Makes the connector identify its vehicle.
    pub async fn identify(&self, connector: &Connector) -> Value {
        let path = format!("/sandbox/v1/connectors/uuid/{}/identify-vehicle", connector.uuid);
        let (status, body) = self.as_customer(Method::POST, &path, None).await;
        assert_eq!(status, 200, "{body}");
        body
    }

    /// Ends a connector's call for attention.
    pub async fn dismiss(&self, connector: &Connector) {
        let path = format!("/v2/connectors/{}/actions/dismiss-call-for-attention", connector.uuid);
        let (status, body) = self.as_customer(Method::POST, &path, None).await;
        assert_eq!(status, 204, "{body}");
    }

    /// Creates a pending ticket, and returns its UUID.
    pub async fn pending(&self, connector: &Connector, vin: Option<&str>) -> String {
        self.pending_with(connector, vin, false).await
    }

    /// Creates a pending ticket that confirms unattended service or not, and returns its UUID.
    pub async fn pending_with(&self, connector: &Connector, vin: Option<&str>, unattended: bool) -> String {
        let body = json!({
            "confirmed_unattended_service": unattended,
            "vin": vin, "vehicle_model_id": 3, "connector_id": connector.id, "product_ids": [1],
            "metadata": {"vin_is_found_by_reader": vin.is_some()},
        });
        let (status, body) = self.as_customer(Method::POST, "/sandbox/v1/tickets", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        body["uuid"].as_str().unwrap().to_owned()
    }

    /// A ticket that the operator has joined.
    pub async fn ticket(&self, connector: &Connector, vin: Option<&str>) -> Ticket {
        let pending = self.pending(connector, vin).await;
        self.operator.join(&pending, "desk 1").await.unwrap()
    }

    /// Subscribes to a connector, as a portal does.
    pub async fn portal(&self, connector: &Connector) -> Portal {
        let token = self.customer_token().await;
        soon("the portal", Portal::subscribe(self, &token, connector)).await
    }
}

async fn log_in(cloud: &Cloud, address: SocketAddr) -> Operator {
    let credentials = client::Credentials {
        client_id: cloud.operator.client_id.clone(),
        client_secret: cloud.operator.client_secret.clone(),
    };
    let (api, websocket) = (format!("https://{address}"), format!("wss://{address}/sandbox/ws"));
    Operator::login(&api, &websocket, Some(&cloud.ca_file), credentials).await.unwrap()
}

async fn answer(request: reqwest::RequestBuilder) -> (StatusCode, Value) {
    let response = request.timeout(HANG).send().await.unwrap();
    let status = response.status();
    let bytes = response.bytes().await.unwrap();
    let text = || Value::String(String::from_utf8_lossy(&bytes).into_owned());
    (status, serde_json::from_slice(&bytes).unwrap_or_else(|_| text()))
}
