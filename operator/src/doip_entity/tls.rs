//! TLS for simulated entities: a certificate made anew at each start, signed by itself.
//!
//! rustls has neither the NULL ciphers nor the brainpool curves that ISO 13400-2:2019 names besides the usual ones.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why an entity has no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The certificate cannot be made.
    #[error("cannot make a certificate")]
    Make(#[from] rcgen::Error),
    /// TLS does not take it.
    #[error("cannot serve TLS with the certificate")]
    Tls(#[from] rustls::Error),
}

/// What an entity serves TLS with.
#[derive(Debug, Clone)]
pub struct EntityTls {
    /// For the server.
    pub config: Arc<rustls::ServerConfig>,
    /// For testers to trust, as PEM.
    pub certificate: String,
}

impl EntityTls {
    /// A certificate for these names and addresses.
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
