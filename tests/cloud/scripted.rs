//! The client of a scripted cloud, the clock, and the log.

use std::cell::RefCell;
use std::future::Future;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use connector_agent::cloud::Cloud;
use connector_agent::cloud::dial::Dialer;
use connector_agent::cloud::login::Authenticator;
use connector_agent::cloud::rest::Rest;
use connector_agent::config::{CloudConfig, ConnectorUuid, Pincode};
use connector_agent::tls;
pub(crate) use connector_test_support::scripted_api::*;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

pub(crate) const UUID: &str = "5f3d760d-ade2-4a19-aea4-36e097678ae3";
pub(crate) const PINCODE: &str = "pin-94571";

pub(crate) fn uuid() -> ConnectorUuid {
    UUID.parse().unwrap()
}

pub(crate) fn dialer(config: &CloudConfig) -> Dialer {
    Dialer::new(tls::client_config(config.ca_file.as_deref()).unwrap())
}

pub(crate) fn rest(config: &CloudConfig) -> Arc<Rest> {
    Arc::new(Rest::new(config, uuid(), dialer(config)).unwrap())
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

/// The file of a certificate authority for the test, and a server with its certificate for 127.0.0.1 and cloud.test.
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
        let leaf =
            rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned(), "cloud.test".to_owned()]).unwrap();
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
