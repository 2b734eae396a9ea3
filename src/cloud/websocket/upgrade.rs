//! The websocket's upgrade (RFC 6455, 4.1): sends the request and checks the answer.
//!
//! The websocket library can do this, too, but it refuses a `Connection` header that has other tokens beside
//! `Upgrade`, which proxies send.

use http::header::{
    CONNECTION, HeaderMap, HeaderName, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::{ProtocolError, SubProtocolError};
use tokio_tungstenite::tungstenite::handshake::client::{Request, generate_request};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};

use crate::cloud::dial::read_head;

/// The name of the relay protocol.
pub(super) const SUBPROTOCOL: &str = "connector-relay.v1";
/// The longest head of an answer, in bytes. What HTTP servers send is far shorter.
const MAX_HEAD: usize = 16 << 10;

/// Upgrades the transport to a websocket.
///
/// # Errors
///
/// The transport failed, the answer is not an upgrade to the relay protocol, or it has another status
/// ([`Error::Http`]).
pub(super) async fn upgrade<S: AsyncRead + AsyncWrite + Unpin>(
    request: Request,
    mut transport: S,
    config: WebSocketConfig,
) -> tungstenite::Result<WebSocketStream<S>> {
    let (request, key) = generate_request(request)?;
    transport.write_all(&request).await?;
    transport.flush().await?;
    let (response, rest) = read_head(&mut transport, MAX_HEAD).await?;
    if response.status().as_u16() != 101 {
        return Err(Error::Http(Box::new(response)));
    }
    check(response.headers(), &key)?;
    Ok(WebSocketStream::from_partially_read(transport, rest, Role::Client, Some(config)).await)
}

/// Checks what RFC 6455, 4.1 demands of the answer with status 101 to the request with this key.
fn check(headers: &HeaderMap, key: &str) -> tungstenite::Result<()> {
    let failed = |error| Err(Error::Protocol(error));
    if !has_token(headers, &UPGRADE, "websocket") {
        return failed(ProtocolError::MissingUpgradeWebSocketHeader);
    }
    if !has_token(headers, &CONNECTION, "upgrade") {
        return failed(ProtocolError::MissingConnectionUpgradeHeader);
    }
    let accept = derive_accept_key(key.as_bytes());
    if headers.get(SEC_WEBSOCKET_ACCEPT).is_none_or(|value| value != accept.as_str()) {
        return failed(ProtocolError::SecWebSocketAcceptKeyMismatch);
    }
    match headers.get(SEC_WEBSOCKET_PROTOCOL) {
        Some(protocol) if protocol == SUBPROTOCOL => Ok(()),
        Some(_) => failed(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::InvalidSubProtocol)),
        None => failed(ProtocolError::SecWebSocketSubProtocolError(SubProtocolError::NoSubProtocol)),
    }
}

/// Whether a header, which may come in several lines, is a list that has this token (RFC 9110, 5.6.1). Case
/// does not count.
fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|entry| entry.trim().eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
    /// The answer to [`KEY`] in RFC 6455, 1.3.
    const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let given = |name: &str| lines.iter().any(|(other, _)| *other == name);
        let defaults = [
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-accept", ACCEPT),
            ("sec-websocket-protocol", SUBPROTOCOL),
        ];
        let mut headers = HeaderMap::new();
        for (name, value) in lines.iter().chain(defaults.iter().filter(|(name, _)| !given(name))) {
            if !value.is_empty() {
                headers.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
            }
        }
        headers
    }

    #[test]
    fn the_connection_header_may_be_a_list_with_other_tokens() {
        for connection in [
            "Upgrade",
            "upgrade",
            "keep-alive, Upgrade",
            "Upgrade , keep-alive",
            "keep-alive,UPGRADE",
            ", Upgrade,",
        ] {
            let checked = check(&headers(&[("connection", connection)]), KEY);
            assert!(checked.is_ok(), "{connection}: {checked:?}");
        }
        let two_lines = headers(&[("connection", "keep-alive"), ("connection", "Upgrade")]);
        assert!(check(&two_lines, KEY).is_ok());
    }

    #[test]
    fn an_answer_that_lacks_a_token_or_has_a_wrong_key_is_no_upgrade() {
        for wrong in [
            ("connection", ""),
            ("connection", "keep-alive"),
            ("connection", "not-Upgrade"),
            ("connection", "Upgrade-Insecure-Requests"),
            ("upgrade", ""),
            ("upgrade", "h2c"),
            ("sec-websocket-accept", ""),
            ("sec-websocket-accept", "c3BQTE1CaVR4YVE5a1lHenpoWlJiSyt4T289"),
            ("sec-websocket-protocol", ""),
            ("sec-websocket-protocol", "connector-relay.v2"),
        ] {
            assert!(check(&headers(&[wrong]), KEY).is_err(), "{wrong:?}");
        }
    }

    #[tokio::test]
    async fn the_head_of_an_answer_may_come_in_pieces_and_has_a_bound() {
        let (mut far, mut near) = tokio::io::duplex(16);
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n\u{1}\u{2}";
        let sent = async {
            for byte in answer.as_bytes() {
                far.write_all(&[*byte]).await.unwrap();
            }
        };
        let (read, ()) = tokio::join!(read_head(&mut near, MAX_HEAD), sent);
        let (response, rest) = read.unwrap();
        assert_eq!(response.headers()[UPGRADE], "websocket");
        assert!([1, 2].starts_with(&rest), "{rest:?}");

        let endless = async {
            far.write_all(b"HTTP/1.1 101 Switching Protocols\r\nX: ").await.unwrap();
            while far.write_all(b"endless").await.is_ok() {}
        };
        let read = async move { read_head(&mut near, MAX_HEAD).await };
        let (read, ()) = tokio::join!(read, endless);
        assert!(matches!(read, Err(Error::AttackAttempt)), "{read:?}");
    }
}
