//! One HTTP request over a transport of its own.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, HOST, HeaderMap, HeaderValue};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use secrecy::zeroize::Zeroizing;
use url::{Position, Url};

use super::error::{RestError, TransportError};
use crate::cloud::dial::{Dialer, SocketTransport};

/// The longest answer accepted, in bytes. Records and tokens have a few kilobytes; the limit bounds the
/// memory that a wrong server can take.
const MAX_ANSWER: usize = 256 << 10;
/// The longest head of an answer, in bytes, and the size of the buffer for its body.
const MAX_HEAD: usize = 16 << 10;

/// An answer to a request.
pub(super) struct HttpAnswer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The body, or why it could not be read.
    pub(super) body: Result<Zeroizing<Vec<u8>>, RestError>,
}

/// Sends requests. Each has its own connection: requests are minutes apart, and idle connections cost memory.
#[derive(Debug)]
pub(super) struct HttpClient {
    pub(super) dialer: Dialer,
    /// The time limit for a connection.
    pub(super) connect_timeout: Duration,
    /// The time limit for a connection and the answer.
    pub(super) request_timeout: Duration,
}

impl HttpClient {
    /// Sends the request to the URL, and returns the answer.
    pub(super) async fn send(
        &self,
        url: &Url,
        request: Request<Full<Bytes>>,
    ) -> Result<HttpAnswer, RestError> {
        let limit = self.request_timeout;
        let exchange = async {
            let dialled = tokio::time::timeout(self.connect_timeout, self.dialer.dial(url)).await;
            let transport = match dialled {
                Ok(dialled) => dialled.map_err(TransportError::Dial)?,
                Err(_) => return Err(TransportError::Connect(self.connect_timeout).into()),
            };
            exchange(transport, addressed(url, request)?).await
        };
        match tokio::time::timeout(limit, exchange).await {
            Ok(result) => result,
            Err(_) => Err(TransportError::Answer(limit).into()),
        }
    }
}

/// The request with the URL's path and host.
fn addressed(url: &Url, mut request: Request<Full<Bytes>>) -> Result<Request<Full<Bytes>>, RestError> {
    let target = &url[Position::BeforePath..Position::AfterQuery];
    let authority = &url[Position::BeforeHost..Position::AfterPort];
    *request.uri_mut() = Uri::try_from(target).map_err(|error| TransportError::Url(error.into()))?;
    let host = HeaderValue::from_str(authority).map_err(|error| TransportError::Url(error.into()))?;
    request.headers_mut().insert(HOST, host);
    request.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Ok(request)
}

async fn exchange(
    transport: SocketTransport,
    request: Request<Full<Bytes>>,
) -> Result<HttpAnswer, RestError> {
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD);
    let (mut sender, connection) =
        builder.handshake(TokioIo::new(transport)).await.map_err(TransportError::Http)?;
    let exchange = async move {
        let response = sender.send_request(request).await.map_err(TransportError::Http)?;
        let (head, body) = response.into_parts();
        Ok(HttpAnswer { status: head.status, headers: head.headers, body: read(body).await })
    };
    let (mut connection, mut exchange) = (pin!(connection), pin!(exchange));
    let mut has_ended = false;
    poll_fn(|cx| {
        // the exchange gets the connection's error, if there is one
        if !has_ended && connection.as_mut().poll(cx).is_ready() {
            has_ended = true;
        }
        match exchange.as_mut().poll(cx) {
            Poll::Ready(answer) => Poll::Ready(answer),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

async fn read(mut body: Incoming) -> Result<Zeroizing<Vec<u8>>, RestError> {
    let too_long = RestError::TooLong { limit: MAX_ANSWER };
    let expected = body.size_hint().lower();
    if expected > MAX_ANSWER as u64 {
        return Err(too_long);
    }
    let mut bytes = Zeroizing::new(Vec::with_capacity((expected as usize).max(4096)));
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(TransportError::Http)?.into_data() else { continue };
        if bytes.len() + data.len() > MAX_ANSWER {
            return Err(too_long);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}
