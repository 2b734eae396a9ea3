//! The cloud's addresses: checked URLs, and paths below them.

use std::fmt;
use std::net::IpAddr;

use serde::Deserialize;
use url::Url;

use super::identity::ConnectorUuid;

/// The base of the REST API: `https`, or `http` to a loopback address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ApiUrl(Url);

/// The websocket's URL: `wss`, or `ws` to a loopback address.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct WebsocketUrl(Url);

/// A REST resource: a path below the API's URL, or a separate URL. `{uuid}` stands for the connector's UUID.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct ResourcePath(String);

/// A REST resource of this connector: as [`ResourcePath`], and `{id}` stands for the cloud's number of the connector,
/// or for the UUID while the number is not known.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct NumberedPath(String);

/// Why an address cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text is not a URL with a host.
    #[error("not a URL; write it like {0}://cloud.example.com")]
    Syntax(&'static str),
    /// The URL has another scheme.
    #[error("the wrong scheme; it must begin with {0}://")]
    Scheme(&'static str),
    /// The URL is without TLS, and the host is not this machine.
    #[error("without TLS only a loopback address is allowed; write {0}:// instead")]
    Plain(&'static str),
    /// The URL has a user name or password.
    #[error("a URL must not contain a user name or password; remove it")]
    Credentials,
    /// The URL has a query or fragment.
    #[error("a URL with a query or fragment cannot be used here; remove ? or # and the text after it")]
    Query,
    /// The path is invalid.
    #[error("not a path of the API; begin it with / or https://, and use no placeholder but {{uuid}}")]
    Path,
    /// The path of a numbered resource is invalid.
    #[error(
        "not a path of the API; begin it with / or https://, and use no placeholder but {{id}} and {{uuid}}"
    )]
    NumberedPath,
}

impl ApiUrl {
    /// The URL.
    pub(crate) fn as_url(&self) -> &Url {
        &self.0
    }

    /// The URL of a resource of this connector.
    pub(crate) fn resource(&self, path: &ResourcePath, uuid: ConnectorUuid) -> Result<Url, AddressError> {
        self.below(path.0.replace(UUID_PLACEHOLDER, &uuid.to_string()))
    }

    /// The URL of a resource of this connector, by its number if that is known.
    pub(crate) fn numbered(
        &self,
        path: &NumberedPath,
        uuid: ConnectorUuid,
        id: Option<i64>,
    ) -> Result<Url, AddressError> {
        let uuid = uuid.to_string();
        let id = id.map_or_else(|| uuid.clone(), |id| id.to_string());
        self.below(path.0.replace(UUID_PLACEHOLDER, &uuid).replace(ID_PLACEHOLDER, &id))
    }

    fn below(&self, path: String) -> Result<Url, AddressError> {
        let url = if path.starts_with('/') {
            format!("{}{path}", self.0.as_str().trim_end_matches('/'))
        } else {
            path
        };
        Url::parse(&url).map_err(|_| AddressError::Path)
    }
}

impl WebsocketUrl {
    /// The URL.
    pub(crate) fn as_url(&self) -> &Url {
        &self.0
    }
}

impl ResourcePath {
    /// A path that is known to be valid.
    pub(super) fn known(path: &'static str) -> Self {
        Self(path.to_owned())
    }
}

impl NumberedPath {
    /// A path that is known to be valid.
    pub(super) fn known(path: &'static str) -> Self {
        Self(path.to_owned())
    }

    /// Whether the resource is named by the cloud's number of the connector.
    pub(crate) fn needs_id(&self) -> bool {
        self.0.contains(ID_PLACEHOLDER)
    }
}

impl TryFrom<String> for ApiUrl {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        checked(&text, "https", "http").map(Self)
    }
}

impl TryFrom<String> for WebsocketUrl {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        checked(&text, "wss", "ws").map(Self)
    }
}

impl TryFrom<String> for ResourcePath {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        check_path(&text.replace(UUID_PLACEHOLDER, ""), AddressError::Path)?;
        Ok(Self(text))
    }
}

impl TryFrom<String> for NumberedPath {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        let plain = text.replace(UUID_PLACEHOLDER, "").replace(ID_PLACEHOLDER, "");
        check_path(&plain, AddressError::NumberedPath)?;
        Ok(Self(text))
    }
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl fmt::Display for WebsocketUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

const UUID_PLACEHOLDER: &str = "{uuid}";
const ID_PLACEHOLDER: &str = "{id}";

/// Checks a path without its placeholders.
fn check_path(plain: &str, error: AddressError) -> Result<(), AddressError> {
    if plain.contains(['{', '}', ' ', '#']) {
        return Err(error);
    }
    if !plain.starts_with('/') {
        checked(plain, "https", "http")?;
    }
    Ok(())
}

fn checked(text: &str, secure: &'static str, plain: &'static str) -> Result<Url, AddressError> {
    let url = Url::parse(text).map_err(|_| AddressError::Syntax(secure))?;
    if url.scheme() != secure && url.scheme() != plain {
        return Err(AddressError::Scheme(secure));
    }
    if !url.has_host() {
        return Err(AddressError::Syntax(secure));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(AddressError::Credentials);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(AddressError::Query);
    }
    if url.scheme() == plain && !is_loopback(&url) {
        return Err(AddressError::Plain(secure));
    }
    Ok(url)
}

/// Whether the host is this machine: a loopback address, or `localhost` (RFC 6761, 6.3).
fn is_loopback(url: &Url) -> bool {
    let Some(host) = url.host_str() else { return false };
    let address = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(text: &str) -> Result<ApiUrl, AddressError> {
        ApiUrl::try_from(text.to_owned())
    }

    #[test]
    fn plain_http_is_refused_unless_it_stays_on_this_machine() {
        for host in ["127.0.0.1:8443", "127.8.8.8", "[::1]:80", "localhost"] {
            assert!(api(&format!("http://{host}")).is_ok(), "{host}");
        }
        for host in
            ["10.0.0.1", "example.com", "localhost.example.com", "[::2]", "0.0.0.0", "127.0.0.1.nip.io"]
        {
            assert_eq!(api(&format!("http://{host}/x")), Err(AddressError::Plain("https")), "{host}");
        }
        let websocket = WebsocketUrl::try_from("ws://example.com/ws".to_owned());
        assert_eq!(websocket, Err(AddressError::Plain("wss")));
    }

    #[test]
    fn an_impossible_cloud_url_is_refused() {
        assert_eq!(api("cloud.example.com"), Err(AddressError::Syntax("https")));
        assert_eq!(api("ftp://example.com"), Err(AddressError::Scheme("https")));
        assert_eq!(api("https://me:secret@example.com"), Err(AddressError::Credentials));
        assert_eq!(api("https://example.com/?a=b"), Err(AddressError::Query));
        let swapped = WebsocketUrl::try_from("https://example.com".to_owned());
        assert_eq!(swapped, Err(AddressError::Scheme("wss")));
    }

    #[test]
    fn a_resource_is_below_the_base_or_has_a_separate_url() {
        let uuid = "5f3d760d-ade2-4a19-aea4-36e097678ae3".parse().unwrap();
        let base = api("https://example.com/api/").unwrap();
        let path = ResourcePath::try_from("/v1/connectors/uuid/{uuid}/x".to_owned()).unwrap();
        let url = base.resource(&path, uuid).unwrap();
        let expected = "https://example.com/api/v1/connectors/uuid/5f3d760d-ade2-4a19-aea4-36e097678ae3/x";
        assert_eq!(url.as_str(), expected);
        let own = ResourcePath::try_from("https://login.example.com/token".to_owned()).unwrap();
        assert_eq!(base.resource(&own, uuid).unwrap().as_str(), "https://login.example.com/token");
    }

    #[test]
    fn a_numbered_resource_has_the_uuid_while_the_number_is_unknown() {
        let uuid = "5f3d760d-ade2-4a19-aea4-36e097678ae3".parse().unwrap();
        let base = api("https://example.com").unwrap();
        let path = NumberedPath::try_from("/v1/connectors/{id}/x".to_owned()).unwrap();
        let url = |id| base.numbered(&path, uuid, id).unwrap().to_string();
        assert_eq!(url(Some(910329423)), "https://example.com/v1/connectors/910329423/x");
        assert_eq!(url(None), "https://example.com/v1/connectors/5f3d760d-ade2-4a19-aea4-36e097678ae3/x");
        assert!(path.needs_id());
        assert!(!NumberedPath::try_from("/x/{uuid}".to_owned()).unwrap().needs_id());
        assert_eq!(NumberedPath::try_from("/{pin}".to_owned()), Err(AddressError::NumberedPath));
    }

    #[test]
    fn a_resource_path_with_another_placeholder_is_refused() {
        for text in ["/v1/{id}", "v1/x", "http://example.com/token", "/a b", ""] {
            assert!(ResourcePath::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
