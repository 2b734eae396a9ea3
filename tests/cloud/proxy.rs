//! The HTTP proxy between agent and cloud.

use std::sync::{Arc, Mutex};

use connector_agent::cloud::dial::Dialer;
use connector_agent::cloud::rest::{ErrorChain, Rest, RestError};
use connector_agent::cloud::websocket::{CloudSocket, SocketEvent};
use connector_agent::config::{Pincode, Proxy, ProxyCredentials, ProxyUrl};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::link_rig::*;
use crate::scripted::*;

const TUNNEL: &[u8] = b"HTTP/1.1 200 Connection established\r\n\r\n";

/// A proxy that gives every request this answer. After a 200 it connects to the port of the target on this machine.
struct ScriptedProxy {
    url: String,
    requests: Arc<Mutex<Vec<String>>>,
}

impl ScriptedProxy {
    async fn start(answer: impl Into<Vec<u8>>) -> Self {
        let (listener, answer) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), answer.into());
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::<Mutex<Vec<String>>>::default();
        let seen = requests.clone();
        tokio::spawn(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let (answer, seen) = (answer.clone(), seen.clone());
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        if tcp.read_buf(&mut head).await.unwrap() == 0 {
                            return;
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let target = head.split(' ').nth(1).unwrap().to_owned();
                    seen.lock().unwrap().push(head);
                    tcp.write_all(&answer).await.ok();
                    if answer == TUNNEL {
                        let port: u16 = target.rsplit(':').next().unwrap().parse().unwrap();
                        let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                        copy_bidirectional(&mut tcp, &mut far).await.ok();
                    }
                });
            }
        });
        Self { url, requests }
    }

    fn dialer(&self, authority: &Authority, credentials: Option<&str>) -> Dialer {
        let tls = connector_agent::tls::client_config(Some(&authority.ca_file)).unwrap();
        let url = ProxyUrl::try_from(self.url.clone()).unwrap();
        let credentials = credentials.map(|text| ProxyCredentials::new(text).unwrap());
        let dialer = Dialer::new(tls).with_proxy(Some(Proxy { url, credentials }));
        dialer.with_lookup(|host| panic!("the proxy looks up {host}"))
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// A failed login at `https://cloud.test` through a proxy that answers so.
async fn refused(answer: impl Into<Vec<u8>>, credentials: Option<&str>) -> (RestError, String) {
    let proxy = ScriptedProxy::start(answer).await;
    let config = cloud_config("https://cloud.test", "ws://127.0.0.1:1");
    let rest = Rest::new(&config, uuid(), proxy.dialer(&Authority::new(), credentials)).unwrap();
    let error = soon(rest.log_in(&Pincode::new(PINCODE).unwrap())).await.unwrap_err();
    (error, proxy.url)
}

#[tokio::test]
async fn rest_and_websocket_go_through_the_proxy_with_its_credentials() {
    let log = Log::capture();
    let (authority, proxy) = (Authority::new(), ScriptedProxy::start(TUNNEL).await);
    let server = Server::start_with(Some(authority.acceptor.clone()), |_, _| Reply::tokens(1)).await;
    let api_port = server.url.rsplit(':').next().unwrap().to_owned();
    let config = cloud_config(&format!("https://cloud.test:{api_port}"), "ws://127.0.0.1:1");
    let dialer = proxy.dialer(&authority, Some("me:open-sesame"));
    let rest = Rest::new(&config, uuid(), dialer.clone()).unwrap();
    soon(rest.log_in(&Pincode::new(PINCODE).unwrap())).await.unwrap();

    let mut cloud = Cloud::start().await;
    let port = cloud.listener.local_addr().unwrap().port();
    cloud.config = cloud_config(&cloud.api.url, &format!("wss://cloud.test:{port}/connector"));
    let mut link = CloudSocket::new(cloud.settings(), dialer, cloud.authenticator.clone(), 1);
    let accept = async {
        let (tcp, _) = cloud.listener.accept().await.unwrap();
        accept(authority.acceptor.accept(tcp).await.unwrap()).await
    };
    let (event, _) = soon(async { tokio::join!(link.next_event(false), accept) }).await;
    assert!(matches!(event, SocketEvent::Up), "{event:?}");

    let expected = |port: &str| {
        format!(
            "CONNECT cloud.test:{port} HTTP/1.1\r\nHost: cloud.test:{port}\r\n\
             Proxy-Authorization: Basic bWU6b3Blbi1zZXNhbWU=\r\n\r\n"
        )
    };
    assert_eq!(proxy.requests(), [expected(&api_port), expected(&port.to_string())]);
    for secret in ["open-sesame", "bWU6b3Blbi1zZXNhbWU="] {
        assert_eq!(log.count(secret), 0, "{}", log.text());
    }
}

#[tokio::test]
async fn what_a_proxy_answers_instead_of_a_tunnel_is_in_the_error() {
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(20_000));
    let early = [TUNNEL, b"HTTP/1.1 "].concat();
    for (answer, credentials, expected) in [
        (
            &b"HTTP/1.1 407 Log in\r\n\r\n"[..],
            None,
            "407 Proxy Authentication Required; set cloud.proxy_credentials_file",
        ),
        (
            b"HTTP/1.1 407 Log in\r\n\r\n",
            Some("me:wrong-one"),
            "407 Proxy Authentication Required; correct user and",
        ),
        (b"HTTP/1.1 403 Not you\r\n\r\n", None, "it answered 403 Forbidden"),
        (b"HTTP/1.1 502 Bad\r\n\r\n", None, "it answered 502 Bad Gateway"),
        (long.as_bytes(), None, "the head of its answer is longer than 8192 bytes"),
        (&early, None, "its answer is not one to CONNECT"),
        (b"SSH-2.0-OpenSSH_9.6\r\n\r\n", None, "its answer is not one to CONNECT"),
    ] {
        let (error, url) = refused(answer, credentials).await;
        assert!(error.is_transient());
        let text = ErrorChain(&error).to_string();
        assert!(text.contains(&format!("the proxy {url} gave no tunnel to cloud.test:443")), "{text}");
        assert!(text.contains(expected), "{text}");
        assert!(!text.contains("wrong-one"), "{text}");
    }
}

#[tokio::test]
async fn a_proxy_that_cannot_be_reached_is_named() {
    let proxy = ScriptedProxy { url: "http://127.0.0.1:9".to_owned(), requests: Arc::default() };
    let config = cloud_config("https://cloud.test", "ws://127.0.0.1:1");
    let rest = Rest::new(&config, uuid(), proxy.dialer(&Authority::new(), None)).unwrap();
    let error = soon(rest.log_in(&Pincode::new(PINCODE).unwrap())).await.unwrap_err();
    let text = ErrorChain(&error).to_string();
    assert!(
        text.contains("no connection to the proxy http://127.0.0.1:9: no connection to 127.0.0.1:9"),
        "{text}"
    );
}

#[tokio::test]
async fn an_api_on_this_machine_is_reached_without_the_proxy() {
    let server = Server::start(|_, _| Reply::tokens(1)).await;
    let proxy = ScriptedProxy::start(&b"HTTP/1.1 403 No\r\n\r\n"[..]).await;
    let port = server.url.rsplit(':').next().unwrap();
    for url in [server.url.clone(), format!("http://localhost:{port}")] {
        let config = cloud_config(&url, "ws://127.0.0.1:1");
        let rest = Rest::new(&config, uuid(), proxy.dialer(&Authority::new(), None)).unwrap();
        soon(rest.log_in(&Pincode::new(PINCODE).unwrap())).await.unwrap();
    }
    assert_eq!(proxy.requests(), [""; 0]);
}
