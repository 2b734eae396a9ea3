//! The address by which a client has reached the gateway, which is where its sessions are too.

use http::header::HOST;
use tonic::Request;

/// The port of a client that names none: such a client uses TLS.
const TLS_PORT: u16 = 443;

/// The host and the port of this gateway, as a client knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) host: String,
    pub(super) port: u32,
}

impl Endpoint {
    /// The endpoint that a client has called.
    pub(super) fn of<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().cloned().unwrap_or(Self { host: String::new(), port: 0 })
    }

    /// The client uses TLS if the port is 443, and then takes the host as it is. So a host with its port, and 443 beside
    /// it, mean TLS on another port.
    fn parse(authority: &str, is_tls: bool) -> Option<Self> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        let port = authority.port_u16().unwrap_or(TLS_PORT);
        if is_tls {
            let host = if port == TLS_PORT { authority.host() } else { authority.as_str() };
            return Some(Self { host: host.to_owned(), port: u32::from(TLS_PORT) });
        }
        Some(Self { host: authority.host().to_owned(), port: u32::from(port) })
    }
}

/// Keeps the called endpoint of a request, which the services do not see otherwise.
pub(super) fn keep<B>(mut request: http::Request<B>, is_tls: bool) -> http::Request<B> {
    let called = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    if let Some(endpoint) = called.or(host).as_deref().and_then(|called| Endpoint::parse(called, is_tls)) {
        request.extensions_mut().insert(endpoint);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_are_where_the_client_has_called_with_443_for_tls() {
        for (authority, is_tls, host, port) in [
            ("127.0.0.1:50051", false, "127.0.0.1", 50051),
            ("[::1]:50051", false, "[::1]", 50051),
            ("gateway.example", true, "gateway.example", 443),
            ("gateway.example:443", true, "gateway.example", 443),
            ("gateway.example:50051", true, "gateway.example:50051", 443),
        ] {
            let uri = format!("http://{authority}/x/y");
            let request = keep(http::Request::builder().uri(uri).body(()).unwrap(), is_tls);
            let endpoint = request.extensions().get::<Endpoint>().unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
        }
    }
}
