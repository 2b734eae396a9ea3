//! TLS: one client configuration for the cloud's REST API and websocket, and one for the vehicle's gateways.

mod clock_tolerant_verifier;
pub mod gateway;
mod identity;
mod pin;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::client::{Resumption, VerifierBuilderError, WebPkiServerVerifier};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::{self, PemObject};
use rustls::{ClientConfig, RootCertStore};

use clock_tolerant_verifier::ClockTolerantVerifier;
use pin::PinVerifier;

pub use identity::Identity;
pub use pin::{KeyPin, KeyPinError};

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
    /// The key does not belong to the certificate, or cannot be used.
    #[error("the key in {} cannot be used with the certificate in {}: {source}", key.display(), certificate.display())]
    Identity {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The library's reason.
        source: rustls::Error,
    },
    /// The library refused the configuration.
    #[error("cannot set up TLS: {0}")]
    Setup(#[from] rustls::Error),
    /// The library refused the certificates.
    #[error("cannot set up the verification of certificates: {0}")]
    Verifier(#[from] VerifierBuilderError),
}

impl TlsError {
    /// The file at fault.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Read { path, .. } | Self::Pem { path, .. } | Self::Certificate { path, .. } => Some(path),
            Self::Empty(path) | Self::Identity { certificate: path, .. } => Some(path),
            Self::Setup(_) | Self::Verifier(_) => None,
        }
    }
}

/// What the agent trusts, and what it shows, in TLS with the cloud.
#[derive(Debug, Default)]
pub struct CloudTls<'a> {
    /// The CA certificates (PEM) to trust instead of those that web browsers trust.
    pub ca_file: Option<&'a Path>,
    /// The public keys of which one must be in the cloud's chain; empty: any.
    pub pins: &'a [KeyPin],
    /// The connector's certificate and key.
    pub identity: Option<Identity>,
    /// A time since 1970 that has certainly passed: the clock of the device may start in 1970.
    pub known_time: Duration,
}

/// A client configuration that trusts the CA certificates in the file, or without a file those that web
/// browsers trust; TLS 1.2 and 1.3.
pub fn client_config(ca_file: Option<&Path>) -> Result<Arc<ClientConfig>, TlsError> {
    cloud_config(CloudTls { ca_file, ..CloudTls::default() })
}

/// The client configuration for the cloud; TLS 1.2 and 1.3. The present time is later than this program's date, too.
pub fn cloud_config(tls: CloudTls<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match tls.ca_file {
        Some(path) => certificates(path)?,
        None => RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let (roots, provider) = (Arc::new(roots), Arc::new(rustls::crypto::ring::default_provider()));
    let verifier = WebPkiServerVerifier::builder_with_provider(roots.clone(), provider.clone()).build()?;
    let verifier = PinVerifier::new(verifier, roots, provider.clone(), tls.pins.to_vec());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ClockTolerantVerifier::new(verifier, tls.known_time)));
    let mut config = match tls.identity {
        Some(identity) => identity.add_to(builder)?,
        None => builder.with_no_client_auth(),
    };
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

/// Reads a certificate chain from a PEM file; an error if there is none.
fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = std::fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|source| TlsError::Pem { path: path.to_owned(), source })?;
    if chain.is_empty() { Err(TlsError::Empty(path.to_owned())) } else { Ok(chain) }
}
