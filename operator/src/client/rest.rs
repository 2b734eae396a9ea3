//! Login and tickets, through the REST API.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use connector_agent::tls;
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use super::connection::Connection;
use super::error::OperatorError;
use super::http::{answer, success};
use super::shared::ConnectionSettings;
use super::socket::Websocket;
use super::ticket::Ticket;
use super::tokens::{Credentials, Tokens};

/// The longest time for a REST request: as long as the agent waits by default.
const REQUEST: Duration = Duration::from_secs(30);
/// The longest time for connecting to the REST API: as long as the agent waits by default.
const CONNECT: Duration = Duration::from_secs(15);
/// The number of tickets in one list: the greatest `limit` of the vendor's API.
const TICKETS: u32 = 1000;

const TOKEN_PATH: &str = "/oauth2/token";
/// The documents do not print how a ticket is joined.
const PENDING_PATH: &str = "/sandbox/v2/tickets/pending-tickets";
const IN_PROGRESS_PATH: &str = "/v2/tickets/in-progress-tickets";
/// The documents print no operation that has a ticket's products.
const TICKET_PATH: &str = "/sandbox/v2/tickets";
/// The number of "other" in the sandbox's list of reasons.
const OTHER_REASON: i32 = 1;

#[derive(Deserialize)]
struct TicketList {
    result: Vec<Ticket>,
}

#[derive(Deserialize)]
struct ProductList {
    result: Vec<Product>,
}

#[derive(Deserialize)]
struct Product {
    id: u32,
    #[serde(default)]
    name: String,
}

/// A logged-in operator; cheap to clone.
#[derive(Clone)]
pub struct Operator {
    http: reqwest::Client,
    api_url: String,
    websocket: Arc<Websocket>,
    tokens: Arc<Tokens>,
}

impl std::fmt::Debug for Operator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Operator").field("api_url", &self.api_url).finish_non_exhaustive()
    }
}

impl Operator {
    /// Logs in. The certificates in `ca_file` replace the web's root certificates.
    ///
    /// # Errors
    ///
    /// An unusable certificate file or URL, an unreachable cloud, or rejected credentials.
    pub async fn login(
        api_url: &str,
        websocket_url: &str,
        ca_file: Option<&Path>,
        credentials: Credentials,
    ) -> Result<Self, OperatorError> {
        let tls = tls::client_config(ca_file)?;
        let http_error = |source| OperatorError::Http { what: "setting up the HTTP client", source };
        let http = reqwest::Client::builder()
            .tls_backend_preconfigured((*tls).clone())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT)
            .timeout(REQUEST)
            .build()
            .map_err(http_error)?;
        let api_url = api_url.trim_end_matches('/').to_owned();
        let tokens = Arc::new(Tokens::new(http.clone(), format!("{api_url}{TOKEN_PATH}"), credentials));
        tokens.get().await?;
        let websocket = Websocket::new(websocket_url, tls, Arc::clone(&tokens))?;
        Ok(Self { http, api_url, websocket: Arc::new(websocket), tokens })
    }

    /// The tickets that wait for an operator.
    pub async fn pending_tickets(&self) -> Result<Vec<Ticket>, OperatorError> {
        self.list("the list of pending tickets", PENDING_PATH, "pending").await
    }

    /// The tickets that an operator has joined.
    pub async fn in_progress_tickets(&self) -> Result<Vec<Ticket>, OperatorError> {
        self.list("the list of tickets in progress", IN_PROGRESS_PATH, "in_progress").await
    }

    /// All tickets that an operator can work on: first those in progress, then the pending ones.
    pub async fn tickets(&self) -> Result<Vec<Ticket>, OperatorError> {
        let mut tickets = self.in_progress_tickets().await?;
        tickets.extend(self.pending_tickets().await?);
        Ok(tickets)
    }

    /// Joins a pending ticket, which sets it in progress.
    pub async fn join(&self, ticket_id: &str, operator_id: &str) -> Result<Ticket, OperatorError> {
        let transition = json!({"type": "join", "operator_id": operator_id});
        let path = format!("{PENDING_PATH}/{ticket_id}");
        let response = self.transition("joining the ticket", &path, transition).await?;
        self.follow("the joined ticket", response).await
    }

    /// Completes a ticket in progress, which closes its connection.
    pub async fn complete(&self, ticket_id: &str) -> Result<(), OperatorError> {
        let path = format!("{IN_PROGRESS_PATH}/{ticket_id}");
        self.transition("completing the ticket", &path, json!({"type": "complete"})).await.map(drop)
    }

    /// Cancels a ticket in progress, which closes its connection.
    pub async fn cancel(&self, ticket_id: &str, reason: &str) -> Result<(), OperatorError> {
        let path = format!("{IN_PROGRESS_PATH}/{ticket_id}");
        let transition =
            json!({"type": "cancel", "cancel_reason_id": OTHER_REASON, "sandbox_reason": reason});
        self.transition("cancelling the ticket", &path, transition).await.map(drop)
    }

    /// Joins the connection of a ticket in progress.
    pub async fn connect(&self, connection_uuid: Uuid) -> Result<Connection, OperatorError> {
        self.connect_with(connection_uuid, ConnectionSettings::default()).await
    }

    /// Joins the connection of a ticket in progress, with these settings.
    pub async fn connect_with(
        &self,
        connection_uuid: Uuid,
        settings: ConnectionSettings,
    ) -> Result<Connection, OperatorError> {
        Connection::join(self.websocket.clone(), connection_uuid, settings).await
    }

    /// A ticket with all that the cloud knows about it.
    pub async fn ticket(&self, ticket_id: &str) -> Result<Ticket, OperatorError> {
        self.get("reading the ticket", &format!("{TICKET_PATH}/{ticket_id}")).await
    }

    /// Make and model of the vehicle with this VIN.
    pub async fn vehicle_name(&self, vin: &str) -> Result<String, OperatorError> {
        let found: Value =
            self.get("looking up the vehicle", &format!("/v1/vehicles/search?vin={vin}")).await?;
        let names = ["make", "model_group", "model"];
        let names = names.map(|part| found.pointer(&format!("/{part}/name")).and_then(Value::as_str));
        let mut words: Vec<&str> = Vec::new();
        for name in names.into_iter().flatten() {
            // a model's name often begins with that of its group
            if words.last().is_some_and(|last| name.starts_with(last)) {
                words.pop();
            }
            words.push(name);
        }
        Ok(words.join(" "))
    }

    /// The names of the products for a model of vehicle, by their numbers.
    pub async fn product_names(
        &self,
        model: u32,
        variant: Option<u32>,
    ) -> Result<BTreeMap<u32, String>, OperatorError> {
        let mut names = BTreeMap::new();
        // without a filter, the list has the favourites only
        for is_favorite in [true, false] {
            let variant = variant.unwrap_or_default();
            let path = format!(
                "/v1/products?vehicle_model_id={model}&vehicle_model_variant_id={variant}&is_favorite={is_favorite}"
            );
            let page: ProductList = self.get("the list of products", &path).await?;
            names.extend(page.result.into_iter().map(|product| (product.id, product.name)));
        }
        Ok(names)
    }

    /// The dialer that opens websockets with this login.
    pub(super) fn websocket(&self) -> &Arc<Websocket> {
        &self.websocket
    }

    pub(super) async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        what: &'static str,
        path: &str,
    ) -> Result<T, OperatorError> {
        let response = self.request(what, Method::GET, path, None).await?;
        answer(what, success(what, response).await?).await
    }

    pub(super) async fn post<T: for<'de> Deserialize<'de>>(
        &self,
        what: &'static str,
        path: &str,
        body: &Value,
    ) -> Result<T, OperatorError> {
        let response = self.request(what, Method::POST, path, Some(body)).await?;
        answer(what, success(what, response).await?).await
    }

    async fn list(
        &self,
        what: &'static str,
        path: &str,
        state: &'static str,
    ) -> Result<Vec<Ticket>, OperatorError> {
        let mut list: TicketList = self.get(what, &format!("{path}?limit={TICKETS}&offset=0")).await?;
        for ticket in &mut list.result {
            ticket.state.get_or_insert_with(|| state.to_owned());
        }
        Ok(list.result)
    }

    async fn transition(
        &self,
        what: &'static str,
        path: &str,
        transition: Value,
    ) -> Result<Response, OperatorError> {
        let body = json!({"transition": transition});
        let response = self.request(what, Method::PATCH, path, Some(&body)).await?;
        if response.status() == StatusCode::SEE_OTHER { Ok(response) } else { success(what, response).await }
    }

    /// Reads the resource that a 303 points to, or the response itself if the cloud answers with the
    /// resource.
    async fn follow(&self, what: &'static str, response: Response) -> Result<Ticket, OperatorError> {
        if response.status() != StatusCode::SEE_OTHER {
            return answer(what, response).await;
        }
        let invalid = |detail: &str| OperatorError::Answer { what, detail: detail.to_owned() };
        let location =
            response.headers().get(reqwest::header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.ok_or_else(|| invalid("a 303 without Location"))?;
        let target =
            response.url().join(location).map_err(|_| invalid("a 303 whose Location is not a URL"))?;
        // send the token to the cloud only
        if target.origin() != response.url().origin() {
            return Err(invalid("a 303 to another host"));
        }
        self.get(what, target.as_str()).await
    }

    async fn request(
        &self,
        what: &'static str,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response, OperatorError> {
        let url = if path.starts_with('/') { format!("{}{path}", self.api_url) } else { path.to_owned() };
        let mut fresh = false;
        loop {
            let token = self.tokens.get().await?;
            let mut request = self.http.request(method.clone(), &url).bearer_auth(&token);
            if let Some(body) = body {
                request = request.json(body);
            }
            let response = request.send().await.map_err(|source| OperatorError::Http { what, source })?;
            if response.status() != StatusCode::UNAUTHORIZED || fresh {
                return Ok(response);
            }
            fresh = true;
            self.tokens.discard(&token).await;
        }
    }
}
