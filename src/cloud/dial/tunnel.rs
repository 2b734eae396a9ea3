//! The tunnel through an HTTP proxy (CONNECT: RFC 9110, 9.3.6).

use std::io;
use std::time::{Duration, SystemTime};

use secrecy::zeroize::Zeroizing;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Error;
use tokio_tungstenite::tungstenite::error::ProtocolError;

use super::error::{DialError, ProxyError};
use super::head::read_head;
use crate::cloud::retry_after::retry_after;
use crate::config::Proxy;

/// The longest head of a proxy's answer, in bytes. Proxies send a few hundred.
const MAX_HEAD: usize = 8 << 10;
/// How long a proxy may take to connect to the cloud and answer: below the time limit for a connection, so that the
/// error names the proxy.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks the proxy for a tunnel to the host.
pub(super) async fn open_tunnel<S: AsyncRead + AsyncWrite + Unpin>(
    mut proxied: S,
    proxy: &Proxy,
    host: &str,
    port: u16,
) -> Result<S, DialError> {
    let target = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
    match tokio::time::timeout(PATIENCE, ask(&mut proxied, proxy, &target)).await {
        Ok(Ok(())) => Ok(proxied),
        Ok(Err(source)) => Err(DialError::Proxy { proxy: proxy.url.to_string(), target, source }),
        Err(_) => {
            let source = ProxyError::Silent(PATIENCE);
            Err(DialError::Proxy { proxy: proxy.url.to_string(), target, source })
        }
    }
}

async fn ask<S: AsyncRead + AsyncWrite + Unpin>(
    proxied: &mut S,
    proxy: &Proxy,
    target: &str,
) -> Result<(), ProxyError> {
    // with enough room, because growing would leave a copy of the credentials in memory
    let mut request = Zeroizing::new(String::with_capacity(2048));
    request.push_str(&format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"));
    if let Some(credentials) = &proxy.credentials {
        for text in ["Proxy-Authorization: ", credentials.expose_header(), "\r\n"] {
            request.push_str(text);
        }
    }
    request.push_str("\r\n");
    proxied.write_all(request.as_bytes()).await.map_err(ProxyError::Broken)?;
    proxied.flush().await.map_err(ProxyError::Broken)?;
    let (response, rest) = read_head(proxied, MAX_HEAD).await.map_err(|error| match error {
        Error::AttackAttempt | Error::Capacity(_) => ProxyError::TooLong(MAX_HEAD),
        Error::Io(error) => ProxyError::Broken(error),
        Error::Protocol(ProtocolError::HandshakeIncomplete) => {
            ProxyError::Broken(io::ErrorKind::UnexpectedEof.into())
        }
        _ => ProxyError::Malformed,
    })?;
    match response.status() {
        status if status.as_u16() == 407 => {
            Err(ProxyError::Credentials { had_credentials: proxy.credentials.is_some() })
        }
        status if !status.is_success() => {
            let retry_after = retry_after(response.headers(), SystemTime::now());
            Err(ProxyError::Refused { status, retry_after })
        }
        // the cloud sends nothing before the agent's ClientHello
        _ if !rest.is_empty() => Err(ProxyError::Malformed),
        _ => Ok(()),
    }
}
