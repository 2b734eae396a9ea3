//! The client of the cloud's REST resources, without retries.

use std::sync::OnceLock;
use std::time::SystemTime;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde_json::Value;
use url::Url;

use super::error::{ErrorChain, RestError};
use super::http_client::{HttpAnswer, HttpClient};
use super::resources::{ActiveTicket, ConnectorRecord};
use super::tokens::{AccessToken, Tokens};
use crate::cloud::dial::Dialer;
use crate::cloud::retry_after::retry_after;
use crate::config::{ApiUrl, CloudConfig, ConnectorUuid, NumberedPath, Pincode, ResourcePath};
use crate::protocol::problem::Problem;

/// The end of the problem type with which the cloud answers that no ticket is active.
const NO_ACTIVE_TICKET: &str = "no-active-ticket";
/// The `User-Agent` header of every request.
pub(crate) const USER_AGENT_NAME: &str = concat!("connector-agent/", env!("CARGO_PKG_VERSION"));

/// The client of the REST resources. The client neither retries nor stores tokens.
#[derive(Debug)]
pub struct Rest {
    http: HttpClient,
    uuid: ConnectorUuid,
    /// The cloud's number of this connector, from its record.
    id: OnceLock<i64>,
    client_id: Option<String>,
    login: Url,
    token: Url,
    connector: Url,
    api_url: ApiUrl,
    active_ticket: NumberedPath,
    dismiss: Url,
}

impl Rest {
    /// A client for this connector, with connections of this dialer.
    pub fn new(cloud: &CloudConfig, uuid: ConnectorUuid, dialer: Dialer) -> Result<Self, RestError> {
        let (connect_timeout, request_timeout) = (cloud.connect_timeout, cloud.request_timeout);
        let http = HttpClient { dialer, connect_timeout, request_timeout };
        let resource = |path: &ResourcePath| cloud.api_url.resource(path, uuid);
        Ok(Self {
            http,
            uuid,
            id: OnceLock::new(),
            client_id: cloud.client_id.clone(),
            login: resource(&cloud.paths.login)?,
            token: resource(&cloud.paths.token)?,
            connector: resource(&cloud.paths.connector)?,
            api_url: cloud.api_url.clone(),
            active_ticket: cloud.paths.active_ticket.clone(),
            dismiss: resource(&cloud.paths.dismiss_call_for_attention)?,
        })
    }

    /// Obtains tokens with UUID and pincode.
    pub async fn log_in(&self, pincode: &Pincode) -> Result<Tokens, RestError> {
        #[derive(Serialize)]
        struct Login<'a> {
            connector_uuid: ConnectorUuid,
            pincode: &'a str,
        }
        let login = Login { connector_uuid: self.uuid, pincode: pincode.expose() };
        // with enough room, because growing would leave a copy of the secret in memory
        let mut body = Zeroizing::new(Vec::with_capacity(1024));
        serde_json::to_writer(&mut *body, &login).map_err(|error| RestError::malformed(&error))?;
        self.tokens(&self.login, "application/json", body, pincode.expose()).await
    }

    /// Obtains tokens with a refresh token (RFC 6749, 6). If the answer has a refresh token, it replaces the
    /// old one.
    pub async fn refresh(&self, refresh_token: &SecretString) -> Result<Tokens, RestError> {
        let secret = refresh_token.expose_secret();
        let mut body = Zeroizing::new(Vec::with_capacity(256 + 3 * secret.len()));
        body.extend_from_slice(b"grant_type=refresh_token&refresh_token=");
        form_encode(&mut body, secret);
        if let Some(client_id) = &self.client_id {
            body.extend_from_slice(b"&client_id=");
            form_encode(&mut body, client_id);
        }
        self.tokens(&self.token, "application/x-www-form-urlencoded", body, secret).await
    }

    /// Fetches the cloud's record of this connector.
    pub async fn connector(&self, token: &AccessToken) -> Result<ConnectorRecord, RestError> {
        let answer = self.authorized(Method::GET, &self.connector, token).await?.body?;
        let record: ConnectorRecord =
            serde_json::from_slice(&answer).map_err(|error| RestError::malformed(&error))?;
        if let Some(id) = record.id {
            // the number of a connector does not change
            let _known = self.id.set(id);
        }
        Ok(record)
    }

    /// Fetches the active ticket of this connector, if there is one. The first time, fetches the connector's record too,
    /// for the number by which the ticket is asked for; while that is not known, or if the cloud refuses the number with
    /// 400 or 404, the UUID names the connector. Only a 404 with the problem type for "no active ticket", and a 204, mean
    /// that there is none.
    pub async fn active_ticket(&self, token: &AccessToken) -> Result<Option<ActiveTicket>, RestError> {
        if self.active_ticket.needs_id()
            && self.id.get().is_none()
            && let Err(error) = self.connector(token).await
        {
            if error.needs_login() {
                return Err(error);
            }
            tracing::debug!("the cloud's number of the connector is not known: {}", ErrorChain(&error));
        }
        let mut id = self.id.get().copied().filter(|_| self.active_ticket.needs_id());
        let answer = loop {
            let url = self.api_url.numbered(&self.active_ticket, self.uuid, id)?;
            match self.authorized(Method::GET, &url, token).await {
                // any other 404 means that the resource does not exist, and says nothing about tickets
                Err(RestError::Refused { status: 404, problem: Some(problem), .. })
                    if problem.kind.ends_with(NO_ACTIVE_TICKET) =>
                {
                    return Ok(None);
                }
                // a cloud without the path by number may have the one by UUID
                Err(RestError::Refused { status: 400 | 404, .. }) if id.take().is_some() => {}
                other => break other?,
            }
        };
        if answer.status == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let value: Value =
            serde_json::from_slice(&answer.body?).map_err(|error| RestError::malformed(&error))?;
        Ok(Some(ActiveTicket::from_json(&value)?))
    }

    /// Dismisses the call for attention in the cloud.
    pub async fn dismiss_call_for_attention(&self, token: &AccessToken) -> Result<(), RestError> {
        self.authorized(Method::POST, &self.dismiss, token).await?.body.map(drop)
    }

    async fn tokens(
        &self,
        url: &Url,
        content_type: &'static str,
        body: Zeroizing<Vec<u8>>,
        secret: &str,
    ) -> Result<Tokens, RestError> {
        let content_type = (CONTENT_TYPE, HeaderValue::from_static(content_type));
        // `Zeroizing` overwrites the body when the HTTP client drops it
        let body = Bytes::from_owner(body);
        let answer = self.send(Method::POST, url, content_type, body).await;
        Tokens::from_json(&answer.map_err(|error| redacted(error, secret))?.body?)
    }

    async fn authorized(
        &self,
        method: Method,
        url: &Url,
        token: &AccessToken,
    ) -> Result<HttpAnswer, RestError> {
        let authorization = (AUTHORIZATION, token.header().ok_or(RestError::Token)?);
        let answer = self.send(method, url, authorization, Bytes::new()).await;
        answer.map_err(|error| redacted(error, token.secret.expose_secret()))
    }

    /// Sends the request. Returns the answer, or an error that contains the cloud's problem. Redirections
    /// are not followed: credentials go only where the configuration says.
    async fn send(
        &self,
        method: Method,
        url: &Url,
        header: (HeaderName, HeaderValue),
        body: Bytes,
    ) -> Result<HttpAnswer, RestError> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        let headers = request.headers_mut();
        headers.insert(USER_AGENT, HeaderValue::from_static(USER_AGENT_NAME));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, application/problem+json"));
        headers.insert(header.0, header.1);
        let answer = self.http.send(url, request).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        // the status counts even if the problem in the body cannot be read
        let problem =
            answer.body.ok().and_then(|body| serde_json::from_slice::<Problem>(&body).ok()).map(Box::new);
        let retry_after = retry_after(&answer.headers, SystemTime::now());
        Err(RestError::Refused { status: answer.status.as_u16(), problem, retry_after })
    }
}

/// The error, with the secret removed in case the cloud has quoted it.
fn redacted(error: RestError, secret: &str) -> RestError {
    match error {
        RestError::Refused { status, problem: Some(mut problem), retry_after } => {
            for text in [&mut problem.kind, &mut problem.title, &mut problem.detail] {
                *text = text.replace(secret, "…");
            }
            RestError::Refused { status, problem: Some(problem), retry_after }
        }
        other => other,
    }
}

/// Appends the text in the encoding of `application/x-www-form-urlencoded`.
fn form_encode(body: &mut Vec<u8>, text: &str) {
    const DIGITS: [u8; 16] = *b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._".contains(&byte) {
            body.push(byte);
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value & 0xF)).copied().unwrap_or(b'0');
            body.extend_from_slice(&[b'%', digit(byte >> 4), digit(byte)]);
        }
    }
}
