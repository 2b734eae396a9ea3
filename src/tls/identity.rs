//! The connector's own certificate for the cloud.

use std::path::PathBuf;

use rustls::client::WantsClientCert;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ConfigBuilder};
use secrecy::zeroize::Zeroizing;

use super::{TlsError, read_chain};

/// A certificate with its chain, and its key.
#[derive(Clone)]
pub struct Identity {
    /// The file of the certificate and its chain (PEM).
    pub certificate_file: PathBuf,
    /// The file of the key, for errors.
    pub key_file: PathBuf,
    /// The key (PEM: PKCS#8, SEC1 or PKCS#1).
    pub key: Zeroizing<Vec<u8>>,
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity({})", self.certificate_file.display())
    }
}

impl Identity {
    /// Adds the certificate to a client configuration.
    pub(super) fn add_to(
        self,
        builder: ConfigBuilder<ClientConfig, WantsClientCert>,
    ) -> Result<ClientConfig, TlsError> {
        let chain = read_chain(&self.certificate_file)?;
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|source| TlsError::Pem { path: self.key_file.clone(), source })?;
        builder.with_client_auth_cert(chain, key).map_err(|source| TlsError::Identity {
            certificate: self.certificate_file,
            key: self.key_file,
            source,
        })
    }
}
