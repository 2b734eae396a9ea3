//! TLS: one client configuration for the cloud's REST API and websocket, and one for the vehicle's gateways.

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

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates or keys cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The I/O error that caused this.
        source: io::Error,
    },
    /// The file is not PEM.
    #[error("{} is not a PEM file: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// The syntax error.
        source: pem::Error,
    },
    /// A certificate in the file cannot be trusted as a CA.
    #[error("a certificate in {} cannot be used as a CA: {source}", path.display())]
    Certificate {
        /// The file.
        path: PathBuf,
        /// The library's reason.
        source: rustls::Error,
    },
    /// The file contains no certificate.
    #[error("{} contains no certificate", .0.display())]
    Empty(PathBuf),
    /// The library refused the configuration.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
    /// The library refused the certificates.
    #[error("cannot set up the verification of certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// A client configuration that trusts the CA certificates in the file, or without a file those that web
/// browsers trust; TLS 1.2 and 1.3.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    client_config_after(ca_file, Duration::ZERO)
}

/// As [`client_config`], for a device whose clock may start in 1970. The present time is certainly later than
/// `known_time` since 1970, and later than this program's date.
pub(crate) fn client_config_after(
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
    // there are at most two hosts; the default has room for 256
    config.resumption = Resumption::in_memory_sessions(4);
    Ok(Arc::new(config))
}

/// Reads the CA certificates from a PEM file; an error if there are none.
fn certificates(path: &Path) -> Result<RootCertStore, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
        let refused = |source| TlsError::Certificate { path: path.to_owned(), source };
        roots.add(certificate).map_err(refused)?;
    }
    if roots.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(roots) }
}
