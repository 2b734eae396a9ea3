//! TLS towards the cloud: one client configuration for the REST API and the websocket.

mod clock_tolerant_verifier;
pub mod gateway;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

use clock_tolerant_verifier::ClockTolerantVerifier;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file of trusted certificates cannot be read.
    #[error("cannot read the certificates in {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is no PEM.
    #[error("{} is no PEM file: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// A certificate in the file cannot be trusted as a CA.
    #[error("a certificate in {} is of no use: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// The file contains no certificate.
    #[error("there is no certificate in {}", .0.display())]
    Empty(PathBuf),
    /// The library refused the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
    /// The library refused the certificates.
    #[error("certificates could not be checked: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// A client that trusts the certificates in the file, or those that web browsers trust; TLS 1.2 and 1.3.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_after(ca_file, Duration::ZERO)
}

/// The same on a device whose clock may start in 1970, at a time that is certainly later than `known_time` since
/// then, and later than this program's own date.
pub fn client_config_after(
    ca_file: Option<&Path>,
    known_time: Duration,
) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match ca_file {
        Some(path) => certificates(path)?,
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build()?;
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ClockTolerantVerifier::new(verifier, known_time)))
        .with_no_client_auth();
    // There are two hosts at most; the default keeps room for 256.
    config.resumption = Resumption::in_memory_sessions(4);
    Ok(Arc::new(config))
}

/// The certificates in a PEM file; an error if there are none.
pub(crate) fn certificates(path: &Path) -> Result<RootCertStore, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
        let refused = |source| TlsError::Certificate { path: path.to_owned(), source };
        roots.add(certificate).map_err(refused)?;
    }
    if roots.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(roots) }
}
