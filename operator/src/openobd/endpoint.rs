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

    fn parse(authority: &str) -> Option<Self> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        let port = authority.port_u16().unwrap_or(TLS_PORT);
        Some(Self { host: authority.host().to_owned(), port: u32::from(port) })
    }
}

/// Keeps the called endpoint of a request, which the services do not see otherwise.
pub(super) fn keep<B>(mut request: http::Request<B>) -> http::Request<B> {
    let called = request.uri().authority().map(|authority| authority.as_str().to_owned());
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).map(str::to_owned);
    if let Some(endpoint) = called.or(host).as_deref().and_then(Endpoint::parse) {
        request.extensions_mut().insert(endpoint);
    }
    request
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_called_endpoint_is_host_and_port_with_443_as_default() {
        for (authority, host, port) in [
            ("127.0.0.1:50051", "127.0.0.1", 50051),
            ("gateway.example", "gateway.example", 443),
            ("[::1]:50051", "[::1]", 50051),
        ] {
            let request =
                keep(http::Request::builder().uri(format!("http://{authority}/x/y")).body(()).unwrap());
            let endpoint = request.extensions().get::<Endpoint>().unwrap();
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
        }
    }
}
