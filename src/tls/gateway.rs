//! TLS with a gateway (ISO 13400-2:2019), versions 1.2 and 1.3.
//!
//! ISO 13400-2 allows NULL ciphers and brainpool curves; rustls has neither. The handshake with a gateway
//! that has nothing else fails, and its error names the reason.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use secrecy::zeroize::Zeroizing;
use serde::Deserialize;

use super::{TlsError, certificates, read_chain};
use crate::protocol::doip::TLS_PORT;

/// `[doip.tls]`: the trusted certificates, and the connector's own.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct DoipTlsConfig {
    /// The gateways' TLS port.
    pub port: u16,
    /// The CA certificates (PEM) for gateways. Without them there is no TLS, unless `trust_any` is set.
    pub ca_file: Option<PathBuf>,
    /// Trust any certificate. Then another device can pose as the vehicle, and listen.
    pub trust_any: bool,
    /// The connector's certificate chain (PEM), for gateways that ask for a certificate.
    pub certificate_file: Option<PathBuf>,
    /// The key of the connector's certificate (PEM).
    pub key_file: Option<PathBuf>,
}

impl Default for DoipTlsConfig {
    fn default() -> Self {
        Self { port: TLS_PORT, ca_file: None, trust_any: false, certificate_file: None, key_file: None }
    }
}

/// The TLS configuration for gateways; `None` if the configuration trusts no certificate.
pub(crate) fn client_config(config: &DoipTlsConfig) -> Result<Option<Arc<ClientConfig>>, TlsError> {
    let roots = match &config.ca_file {
        Some(path) => Some(certificates(path)?),
        None if config.trust_any => None,
        None => return Ok(None),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(GatewayVerifier { roots, provider: provider.clone() });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let config = match (&config.certificate_file, &config.key_file) {
        (Some(certificate), Some(key)) => {
            builder.with_client_auth_cert(read_chain(certificate)?, read_key(key)?)?
        }
        _ => builder.with_no_client_auth(),
    };
    Ok(Some(Arc::new(config)))
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let read = |source| TlsError::Read { path: path.to_owned(), source };
    let text = Zeroizing::new(std::fs::read(path).map_err(read)?);
    PrivateKeyDer::from_pem_slice(&text).map_err(|source| TlsError::Pem { path: path.to_owned(), source })
}

/// Verifies a gateway's certificate, but not its name: a vehicle has no host name, and its certificate was
/// issued before the vehicle had an address.
#[derive(Debug)]
struct GatewayVerifier {
    /// The trusted CAs; `None` trusts any certificate.
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for GatewayVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(end_entity)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
