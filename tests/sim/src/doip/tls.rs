//! TLS for simulated entities, with a new self-signed certificate at each start.
//!
//! rustls supports neither the NULL ciphers nor the brainpool curves that ISO 13400-2:2019 names in addition
//! to the usual ones.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// The reasons why an entity has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be created.
    #[error("cannot create a certificate")]
    Make(#[from] rcgen::Error),
    /// TLS rejects the certificate.
    #[error("cannot serve TLS with the certificate")]
    Tls(#[from] rustls::Error),
}

/// The TLS certificate of an entity.
#[derive(Debug, Clone)]
pub struct EntityTls {
    /// The server's configuration.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificate that testers have to trust, as PEM.
    pub certificate: String,
}

impl EntityTls {
    /// Creates a certificate for these names and addresses.
    pub fn self_signed(names: &[String]) -> Result<Self, TlsError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "connector-sim DoIP entity");
        let key = KeyPair::generate()?;
        let certificate = params.self_signed(&key)?;
        let pem = certificate.pem();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_safe_default_protocol_versions()?
                .with_no_client_auth()
                .with_single_cert(vec![certificate.der().clone()], key)?;
        Ok(Self { config: Arc::new(config), certificate: pem })
    }
}
