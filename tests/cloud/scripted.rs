//! A scripted cloud: an HTTP server that records the requests and answers as the test decides.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use connector_agent::cloud::Cloud;
use connector_agent::cloud::login::Authenticator;
use connector_agent::cloud::rest::Rest;
use connector_agent::config::{ApiUrl, CloudConfig, ConnectorUuid, Pincode, WebsocketUrl};
use connector_agent::tls;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

pub(crate) const UUID: &str = "5f3d760d-ade2-4a19-aea4-36e097678ae3";
pub(crate) const PINCODE: &str = "pin-94571";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Request {
    /// `GET /v1/…`
    pub line: String,
    pub authorization: Option<String>,
    pub content_type: Option<String>,
    pub body: String,
}

#[derive(Debug, Clone)]
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static str, String)>,
    pub body: String,
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Tokens `access-N` and `refresh-N`.
    pub(crate) fn tokens(number: usize) -> Self {
        let body = format!(
            r#"{{"id_token":"i","access_token":"access-{number}","refresh_token":"refresh-{number}+/=&"}}"#
        );
        Self::new(200, body)
    }
}

/// The server. It ends with the test.
pub(crate) struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    /// Answers every request by the function, whose second argument is the number of earlier requests with
    /// the same line.
    pub(crate) async fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_with(None, answer).await
    }

    pub(crate) async fn start_with(
        tls: Option<TlsAcceptor>,
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://127.0.0.1:{}", listener.local_addr().unwrap().port());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (seen, answer) = (requests.clone(), Arc::new(answer));
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (tls, seen, answer) = (tls.clone(), seen.clone(), answer.clone());
                tokio::spawn(async move {
                    match tls {
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(tcp).await {
                                serve(stream, &seen, &*answer).await.ok();
                            }
                        }
                        None => {
                            serve(tcp, &seen, &*answer).await.ok();
                        }
                    }
                });
            }
        });
        Self { url, requests }
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }

    pub(crate) fn count(&self, line: &str) -> usize {
        self.requests().iter().filter(|request| request.line == line).count()
    }

    pub(crate) fn config(&self) -> CloudConfig {
        cloud_config(&self.url, "ws://127.0.0.1:1")
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    seen: &Mutex<Vec<Request>>,
    answer: &(impl Fn(&Request, usize) -> Reply + ?Sized),
) -> io::Result<()> {
    let request = read_request(&mut stream).await?;
    let reply = {
        let mut seen = seen.lock().unwrap();
        let before = seen.iter().filter(|other| other.line == request.line).count();
        seen.push(request.clone());
        answer(&request, before)
    };
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !reply.headers.iter().any(|(name, _)| *name == "transfer-encoding") {
        head.push_str(&format!("content-length: {}\r\n", reply.body.len()));
    }
    stream.write_all(format!("{head}\r\n{}", reply.body).as_bytes()).await?;
    stream.shutdown().await
}

async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<Request> {
    let mut bytes = Vec::new();
    let head_end = loop {
        if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&bytes[..head_end]).into_owned();
    let header = |name: &str| {
        head.lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .find_map(|(key, value)| key.eq_ignore_ascii_case(name).then(|| value.to_owned()))
    };
    let length: usize = header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while bytes.len() < head_end + length {
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(Request {
        line: head.lines().next().unwrap().trim_end_matches(" HTTP/1.1").to_owned(),
        authorization: header("authorization"),
        content_type: header("content-type"),
        body: String::from_utf8_lossy(&bytes[head_end..]).into_owned(),
    })
}

pub(crate) fn cloud_config(api_url: &str, websocket_url: &str) -> CloudConfig {
    CloudConfig::new(
        ApiUrl::try_from(api_url.to_owned()).unwrap(),
        WebsocketUrl::try_from(websocket_url.to_owned()).unwrap(),
    )
}

pub(crate) fn uuid() -> ConnectorUuid {
    UUID.parse().unwrap()
}

pub(crate) fn rest(config: &CloudConfig) -> Arc<Rest> {
    let tls = tls::client_config(config.ca_file.as_deref()).unwrap();
    Arc::new(Rest::new(config, uuid(), &tls).unwrap())
}

pub(crate) fn authenticator(config: &CloudConfig) -> Authenticator {
    Authenticator::spawn(rest(config), Pincode::new(PINCODE).unwrap(), 1)
}

pub(crate) fn cloud(config: &CloudConfig) -> Cloud {
    Cloud::new(rest(config), authenticator(config), 1)
}

/// Advances the clock by this time, and runs the expired timers. For waits on timers only.
pub(crate) async fn pass(duration: Duration) {
    tokio::time::pause();
    tokio::time::advance(duration).await;
    tokio::time::resume();
}

/// The result of the future. The test fails if there is none within 20 s.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("a result within 20 s")
}

/// The file of a certificate authority for the test, and a server with its certificate for 127.0.0.1.
pub(crate) struct Authority {
    pub ca_file: PathBuf,
    pub acceptor: TlsAcceptor,
    _directory: tempfile::TempDir,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(Vec::new()).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let issuer = rcgen::Issuer::from_params(&ca, &ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let leaf = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let leaf = leaf.signed_by(&key, &issuer).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let ca_file = directory.path().join("ca.pem");
        std::fs::write(&ca_file, ca.self_signed(&ca_key).unwrap().pem()).unwrap();

        let chain = vec![CertificateDer::from(leaf.der().to_vec())];
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let server = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .unwrap();
        Self { ca_file, acceptor: TlsAcceptor::from(Arc::new(server)), _directory: directory }
    }
}

/// Everything logged on this thread from now on, at every level.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

thread_local! {
    static CAPTURED: RefCell<Option<Log>> = const { RefCell::new(None) };
}

impl Log {
    pub(crate) fn capture() -> Self {
        // One subscriber for all threads: while a subscriber of one thread is replaced, events of other
        // threads get lost.
        static SUBSCRIBER: Once = Once::new();
        SUBSCRIBER.call_once(|| {
            let to_thread = || CAPTURED.with_borrow(|log| log.clone().unwrap_or_default());
            let level = tracing::Level::TRACE;
            tracing_subscriber::fmt().with_max_level(level).with_writer(to_thread).with_ansi(false).init();
        });
        let log = Self::default();
        CAPTURED.set(Some(log.clone()));
        log
    }

    pub(crate) fn count(&self, text: &str) -> usize {
        self.text().matches(text).count()
    }

    /// Waits until this text has been logged `times` times.
    pub(crate) async fn has(&self, text: &str, times: usize) {
        soon(async {
            while self.count(text) < times {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
