//! TLS for an entity, with a self-signed certificate that is created at each start.
//!
//! rustls supports neither the NULL ciphers nor the brainpool curves of ISO 13400-2:2019, but the other ones.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Why an entity cannot serve TLS.
#[derive(Debug, thiserror::Error)]
pub enum EntityTlsError {
    /// The certificate could not be created.
    #[error("cannot create a certificate")]
    Create(#[from] rcgen::Error),
    /// TLS does not accept the certificate.
    #[error("cannot serve TLS with the certificate")]
    Tls(#[from] rustls::Error),
}

/// The certificate and TLS configuration of an entity.
#[derive(Debug, Clone)]
pub struct EntityTls {
    /// The configuration of the server.
    pub config: Arc<rustls::ServerConfig>,
    /// The certificate that testers have to trust, as PEM.
    pub certificate: String,
}

impl EntityTls {
    /// A certificate for these names and addresses.
    pub fn self_signed(names: &[String]) -> Result<Self, EntityTlsError> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, "DoIP entity");
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
